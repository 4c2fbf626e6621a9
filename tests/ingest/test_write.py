from jobs.ingest.write import count_confidences


def test_each_bin_includes_its_lower_bound_and_the_last_one_includes_1() -> None:
    assert count_confidences([0.0, 0.0999, 0.1, 0.5, 0.9, 1.0]) == [2, 1, 0, 0, 0, 1, 0, 0, 0, 2]
