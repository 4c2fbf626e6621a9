import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from jobs.database.model_versions import ModelKind
from jobs.retrain.evaluate.evaluation_record import ClassifierScores, EvaluationMetrics, Flip, LabelSuspect
from jobs.retrain.gates.evaluation_page import PageContents, list_tiles, render_page, write_approval_text
from jobs.retrain.gates.gate_policy import load_gate_policy
from jobs.retrain.gates.gates import decide_all
from jobs.retrain.gates.page_charts import draw_history, draw_reliability, list_category_bars, list_confusion
from jobs.retrain.train.history import EpochRecord
from jobs.units import format_figure, format_words
from tests.retrain.gates.sample_evaluations import CLASSIFIER, ENCODER, GOOD, make_evaluation, replace_value

ATTACK = '"><script>alert(1)</script><img src=https://elsewhere.test/x onerror=alert(2)>'
VOID = {"meta", "link", "img", "br", "hr", "input"}
LOADING = {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}
PAGE = "s3://artifacts/page.html"
THUMBNAIL = "/9j/4AAQSkZJRg=="
KINDS: list[ModelKind] = ["classifier", "encoder"]


class PageReader(HTMLParser):
    """Collects tags with their attributes, the visible text, and tags that are not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        """Return all text with normalized white space."""
        return " ".join(word for word in self.words if word)


def make_flip(number: int, **changes: Any) -> Flip:
    flip = Flip(number, f"p{number}_1.jpg", f"p{number}", "dress", 0.51, "shirt", 0.97, THUMBNAIL)
    return replace(flip, **changes)


def render(
    kind: ModelKind = "classifier",
    record: dict[str, Any] | None = None,
    flips: Sequence[Flip] = (),
    suspects: Sequence[LabelSuspect] = (),
    has_champion: bool = True,
    run_id: str = "run",
) -> PageReader:
    evaluation = replace(make_evaluation(kind, record, has_champion), run_id=run_id)
    metrics = EvaluationMetrics.from_record(evaluation.metrics)
    decisions = decide_all(evaluation, has_tagged_catalog=True, policy=load_gate_policy())
    history = [EpochRecord(epoch, 0.001, 1 / epoch, 1.2 / epoch, 1 - 0.4 / epoch) for epoch in (1, 2, 3)]
    reader = PageReader(render_page(PageContents(evaluation, metrics, decisions, flips, suspects, history)))
    assert reader.open == []
    return reader


@pytest.mark.parametrize("kind", KINDS)
def test_page_loads_and_runs_nothing(kind: ModelKind) -> None:
    page = render(kind, flips=[make_flip(1)], suspects=[LabelSuspect("ab" * 32, "hat", "shirt", 0.02, THUMBNAIL)])
    loading = [attributes for tag, attributes in page.tags if tag != "a"]
    loaded = [value or "" for attributes in loading for name, value in attributes.items() if name in LOADING]
    assert all(value.startswith("data:image/jpeg;base64,") for value in loaded)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base", "form"}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    styles = " ".join([*page.words, *(attributes.get("style") or "" for _, attributes in page.tags)])
    assert "url(" not in styles
    assert "@import" not in styles
    policies = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_escapes_names_from_the_shop() -> None:
    flip = make_flip(1, object_key=ATTACK, product_id=ATTACK, old_category=ATTACK, new_category=ATTACK)
    others = [replace(flip, thumbnail=None), replace(flip, thumbnail=ATTACK)]
    record = CLASSIFIER.as_record()
    scores = record["classifier"]
    scores = {
        **scores,
        "categories": [ATTACK, *scores["categories"][1:]],
        "images_by_category": {**scores["images_by_category"], ATTACK: 3},
        "recall_by_category": {**scores["recall_by_category"], ATTACK: 0.1},
    }
    artifact = {**record["artifact"], "error": ATTACK, "is_checksum_right": False}
    record = {**record, "classifier": scores, "artifact": artifact}
    suspects = [LabelSuspect(ATTACK, ATTACK, ATTACK, 0.02, thumbnail) for thumbnail in (THUMBNAIL, None)]
    page = render(record=record, flips=[flip, *others], suspects=suspects, run_id=ATTACK)
    assert not {tag for tag, _ in page.tags} & {"script", "iframe"}
    assert not any("onerror" in attributes for _, attributes in page.tags)
    images = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert all(source.startswith("data:image/jpeg;base64,") for source in images)
    assert "<script>alert(1)</script>" in page.text


def test_page_links_to_its_model() -> None:
    assert [attributes["href"] for tag, attributes in render().tags if tag == "a"] == ["../models/2"]


@pytest.mark.parametrize("kind", KINDS)
def test_header_shows_passed_candidate(kind: ModelKind) -> None:
    text = render(kind).text
    assert f"{kind.capitalize()} 2 passed its gates" in text
    assert "Why it cannot be promoted" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_header_shows_failed_candidate_with_reasons(kind: ModelKind) -> None:
    text = render(kind, replace_value(GOOD[kind].as_record(), "data.shared_groups", 3)).text
    assert re.search(rf"{kind.capitalize()} 2 failed 1 of \d+ gates", text)
    assert "Why it cannot be promoted" in text
    # Once in the reasons, once in the table.
    assert text.count("3 share a group") == 2


@pytest.mark.parametrize("kind", KINDS)
def test_shows_every_decision(kind: ModelKind) -> None:
    text = render(kind, has_champion=False).text
    for decision in decide_all(
        make_evaluation(kind, has_champion=False), has_tagged_catalog=True, policy=load_gate_policy()
    ):
        assert f"{format_words(decision.gate)} {decision.verdict} " in text
        assert " ".join(decision.sentence.split()) in text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_champion", [True, False])
def test_renders_without_any_of_the_metrics(kind: ModelKind, has_champion: bool) -> None:
    record = GOOD[kind].as_record()
    for name in record:
        render(kind, {**record, name: None}, has_champion=has_champion)
    render(kind, EvaluationMetrics().as_record(), has_champion=has_champion)


@pytest.mark.parametrize("kind", KINDS)
def test_renders_without_any_of_the_values(kind: ModelKind) -> None:
    record = GOOD[kind].as_record()
    optional = [
        "classifier.expected_calibration_error",
        "classifier.temperature",
        "classifier.recall_by_category.hat",
        "encoder.clip_score",
        "encoder.recall_at_5",
        "champion_encoder.recall_at_5",
        "serving.mean_latency_milliseconds",
        "serving.images_per_second",
        "data.age_days",
    ]
    for path in optional:
        if record[path.partition(".")[0]] is not None:
            render(kind, replace_value(record, path, None))


def test_renders_without_images() -> None:
    nothing = ClassifierScores(0, 0, 0, ["hat"], {"hat": 0}, {"hat": None}, [[0]], None, [], None)
    render(record=replace(CLASSIFIER, classifier=nothing, champion_classifier=nothing).as_record())


def test_flips_without_thumbnails_are_table_rows() -> None:
    flips = [make_flip(number, thumbnail=THUMBNAIL if number < 40 else None) for number in range(300)]
    page = render(flips=flips)
    assert [tag for tag, _ in page.tags].count("img") == 40
    assert "260 more (first 200 shown)" in page.text
    assert "p239_1.jpg" in page.text
    assert "p240_1.jpg" not in page.text


def test_page_is_small() -> None:
    names = [f"category-{number}" for number in range(17)]
    scores = ClassifierScores(
        images=289 * 9,
        correct=17 * 9,
        top_3_correct=17 * 9,
        categories=names,
        images_by_category=dict.fromkeys(names, 153),
        recall_by_category=dict.fromkeys(names, 0.9),
        confusion=[[9] * 17 for _ in names],
        expected_calibration_error=0.01,
        reliability=[],
        temperature=1.0,
    )
    evaluation = make_evaluation("classifier", replace(CLASSIFIER, classifier=scores).as_record())
    metrics = EvaluationMetrics.from_record(evaluation.metrics)
    decisions = decide_all(evaluation, has_tagged_catalog=True, policy=load_gate_policy())
    flips = [make_flip(number, thumbnail=None) for number in range(500)]
    assert len(render_page(PageContents(evaluation, metrics, decisions, flips, [], []))) < 300_000


def test_confusion_matrix_has_true_categories_as_rows() -> None:
    assert CLASSIFIER.classifier
    dress = list_confusion(CLASSIFIER.classifier)[0]
    assert (dress.category, dress.images) == ("dress", 110)
    assert [(cell.prediction, cell.images, cell.is_correct) for cell in dress.cells] == [
        ("dress", 100, True),
        ("hat", 2, False),
        ("shirt", 8, False),
    ]
    assert dress.cells[0].share == pytest.approx(100 / 110)


def test_bars_start_with_the_lowest_recall() -> None:
    assert CLASSIFIER.classifier
    assert CLASSIFIER.champion_classifier
    scores = replace(CLASSIFIER.classifier, recall_by_category={"dress": 0.9, "hat": 0.5, "shirt": None})
    bars = list_category_bars(scores, CLASSIFIER.champion_classifier)
    assert [(bar.category, bar.recall, bar.champion_recall) for bar in bars] == [
        ("shirt", None, 0.91),
        ("hat", 0.5, 0.81),
        ("dress", 0.9, 0.9),
    ]


def test_dots_lie_where_confidence_and_accuracy_say() -> None:
    assert CLASSIFIER.classifier
    chart = draw_reliability(CLASSIFIER.classifier.reliability)
    assert chart
    small, large = chart.dots
    # 41 images of confidence 0.44, of which half were right: above the diagonal, which is up where y is small.
    assert (small.x, small.y) == pytest.approx((0.44 * 330, 0.5 * 330))
    gap = chart.lines[1]
    assert gap.css_class == "gap"
    assert gap.points[0] == pytest.approx((0.44 * 330, 0.56 * 330))
    assert gap.points[1:] == ((small.x, small.y),)
    assert small.radius**2 / large.radius**2 == pytest.approx(41 / 300)
    assert draw_reliability([]) is None


def test_a_training_that_diverged_still_has_a_chart() -> None:
    history = [EpochRecord(1, 0.1, 2.0, float("nan"), 0.1), EpochRecord(2, 0.1, float("nan"), float("inf"), 0.1)]
    loss, accuracy = draw_history(history)
    assert [line.points for line in loss.lines] == [((64.0, 0.0),), ()]
    assert loss.y_ticks[0] == (0.0, "2")
    assert loss.legend == (("train, diverged", 0), ("validation, diverged", 1))
    assert len(accuracy.lines[0].points) == 2
    assert draw_history([]) == ()


def test_tiles_show_headline_metrics() -> None:
    assert [(tile.name, tile.value) for tile in list_tiles(CLASSIFIER)] == [
        ("Accuracy", "92.1 %"),
        ("Top-3 accuracy", "99.1 %"),
        ("Calibration error", "3.1 %"),
        ("Catalog would change", "5.4 %"),
        ("Latency", "0.041 s"),
        ("Throughput", "214"),
    ]
    assert [tile.name for tile in list_tiles(ENCODER)] == ["CLIP score", "Recall@5", "Latency", "Throughput"]
    assert list_tiles(EvaluationMetrics()) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (0.0, "0"),
        (174.0, "174"),
        (-0.025, "-0.025"),
        (0.8704, "0.870"),
        (41.23, "41.2"),
        (2e-6, "2e-06"),
        (1234.0, "1,234"),
        (2_000_000_000.0, "2,000 million"),
    ],
)
def test_formats_numbers_briefly(value: float | None, text: str) -> None:
    assert format_figure(value) == text


def write_text(flips: list[Flip], has_champion: bool = True) -> list[str]:
    evaluation = make_evaluation("classifier", has_champion=has_champion)
    decisions = decide_all(evaluation, has_tagged_catalog=True, policy=load_gate_policy())
    return write_approval_text(evaluation, decisions, flips, PAGE).splitlines()


def test_approval_text_names_the_champion() -> None:
    assert write_text([])[0].startswith("**Classifier 2** would replace **classifier 1**.")
    assert write_text([], has_champion=False)[0].startswith("**Classifier 2** would be the first classifier.")


def test_approval_text_lists_every_gate() -> None:
    lines = [line for line in write_text([]) if line.startswith("| ")]
    assert lines[0] == "| gate | verdict | reason |"
    assert len(lines) == 1 + 18
    assert sum("| **passed** |" in line for line in lines) == 18


def test_approval_text_lists_the_first_flips() -> None:
    flips = [Flip(number, f"p{number}.jpg", "p", "dress", 0.5, "hat", 0.9, None) for number in range(500)]
    lines = write_text(flips)
    assert "First 20 of 500 sampled images that would change their category:" in lines
    assert sum(".jpg" in line for line in lines) == 20
    assert "| p | p0.jpg | dress 0.50 | **hat** 0.90 |" in lines


def test_approval_text_escapes_markdown() -> None:
    key = "a|b\n| x | **passed** |\n<img src=x> [click](https://elsewhere.test) `code`.jpg"
    lines = write_text([Flip(1, key, "p_1", "dress", 0.5, "hat", 0.9, None)])
    row = lines[-1]
    assert row.startswith(r"| p\_1 | a\|b \| x \| \*\*passed\*\* \| \<img src=x\> \[click\]\(")
    assert row.endswith(r"\`code\`.jpg | dress 0.50 | **hat** 0.90 |")
