"""Charts make sense with one place and with a thousand, and a category has the same color on all of them."""

from collections import Counter

from jobs.charts import (
    COLORS,
    HEIGHT,
    OTHER_COLOR,
    WIDTH,
    Chart,
    Place,
    Series,
    choose_colors,
    draw_lines,
    draw_stacked_bars,
)


def draw(places: int) -> tuple[Chart, Chart]:
    """Draw bars and a line, with a new tick every ten places."""
    axis = [Place(f"run {number}", f"day {number // 10}") for number in range(places)]
    values = [Series("images", [float(number + 1) for number in range(places)], 3)]
    return draw_stacked_bars("Images", axis, values), draw_lines("Speed", axis, values)


def test_one_place_is_labeled_and_stays_on_the_left() -> None:
    bars, line = draw(1)
    assert bars.x_ticks == line.x_ticks == ((64.0, "day 0"),)
    assert bars.bars[0].width < WIDTH / 10
    assert [label[2] for label in (*bars.labels, *line.labels)] == ["1", "1"]
    assert "<text" in line.__html__()


def test_a_thousand_places_have_few_ticks_and_no_labels() -> None:
    for chart in draw(1000):
        assert [tick for _, tick in chart.x_ticks] == ["day 0", "day 20", "day 40", "day 60", "day 80"]
        assert all(0 <= x <= WIDTH for x, _ in chart.x_ticks)
        assert chart.labels == ()


def test_ticks_are_not_repeated() -> None:
    bars, _ = draw(6)
    assert [tick for _, tick in bars.x_ticks] == ["day 0"]


def test_no_places_are_an_empty_chart() -> None:
    for chart in draw(0):
        assert (chart.bars, chart.dots, chart.x_ticks) == ((), (), ())


def test_marks_and_legend_have_the_color_of_their_series() -> None:
    places = [Place("run", "day")]
    chart = draw_stacked_bars("Categories", places, [Series("hat", [0.25], 9), Series("dress", [0.75], 4)], "share", 1)
    assert [(bar.series, bar.height) for bar in chart.bars] == [(9, HEIGHT / 4), (4, HEIGHT * 3 / 4)]
    assert chart.legend == (("hat", 9), ("dress", 4))
    assert 'class="swatch series-9"' in chart.__html__()


def test_each_category_has_a_color_of_its_own_while_there_are_enough() -> None:
    categories = ["shoes", "dress", "hat"]
    assert choose_colors(categories) == choose_colors(sorted(categories))
    many = [f"{number:03}" for number in range(2 * len(COLORS))]
    assert set(choose_colors(many[: len(COLORS)]).values()) == set(COLORS)
    assert Counter(choose_colors(many).values()) == dict.fromkeys(COLORS, 2)
    assert OTHER_COLOR not in COLORS


def test_a_new_category_changes_few_other_colors() -> None:
    categories = ["bag", "coat", "dress", "hat", "jeans", "shirt", "shoes", "skirt"]
    before = choose_colors(categories)
    for new in ("accessory", "blazer", "cardigan", "gloves", "scarf", "zip hoodie"):
        after = choose_colors([*categories, new])
        assert sum(after[category] != before[category] for category in categories) <= 1
