from pathlib import Path

import pytest
from pydantic import ValidationError
from scipy.stats import norm

from jobs.errors import PermanentError
from jobs.retrain.gates.gate_policy import GatePolicy, load_gate_policy


def test_the_defaults() -> None:
    assert load_gate_policy().model_dump() == {
        "accuracy_resolution": 0.05,
        "min_category_test_images": 5,
        "max_snapshot_age_days": 90,
        "min_accuracy": 0.80,
        "min_top_3_accuracy": 0.90,
        "min_class_recall": 0.60,
        "max_calibration_error": 0.05,
        "not_worse_margin": 0.025,
        "max_changed_share": 0.20,
        "min_clip_score": 30,
        "recall_margin": 0.05,
        "max_lost_accuracy": 0.005,
        "min_agreement": 0.99,
        "min_mean_cosine": 0.99,
        "min_worst_cosine": 0.97,
        "min_neighbour_recall": 0.95,
        "max_lost_recall": 0.01,
        "max_latency_milliseconds": 200,
        "min_images_per_second": 100,
        "max_failed_share": 0.01,
        "max_memory_bytes": 2_000_000_000,
        "max_output_difference": 1e-3,
    }


def test_thresholds_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_GATE_MIN_ACCURACY", "0.9")
    monkeypatch.setenv("CATALOG_GATE_MAX_MEMORY_BYTES", "4000000000")
    monkeypatch.setenv("CATALOG_GATE_MIN_CLIP_SCORE", "")
    policy = load_gate_policy()
    assert (policy.min_accuracy, policy.max_memory_bytes, policy.min_clip_score) == (0.9, 4_000_000_000, 30)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MIN_ACCURACY", "80"),
        ("MIN_ACCURACY", "0.8x"),
        ("MIN_CLASS_RECALL", "-0.1"),
        ("MIN_TOP_3_ACCURACY", "nan"),
        ("NOT_WORSE_MARGIN", "0"),
        ("MAX_LATENCY_MILLISECONDS", "inf"),
        ("MIN_IMAGES_PER_SECOND", "-inf"),
        ("MAX_OUTPUT_DIFFERENCE", "nan"),
        ("MIN_CLIP_SCORE", "nan"),
        ("MAX_MEMORY_BYTES", "2 GB"),
    ],
)
def test_a_wrong_threshold_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"CATALOG_GATE_{name}", value)
    with pytest.raises(PermanentError, match=rf"^CATALOG_GATE_{name}: .+ \(see .env.example\)$"):
        load_gate_policy()


def test_a_misspelt_threshold_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_GATE_MINIMUM_ACCURACY", "0.9")
    with pytest.raises(PermanentError, match="CATALOG_GATE_MINIMUM_ACCURACY is no threshold"):
        load_gate_policy()


def test_thresholds_come_from_the_file_where_the_environment_has_none(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text("CATALOG_GATE_MIN_ACCURACY=0.7\nCATALOG_GATE_MIN_CLIP_SCORE=20\n")
    monkeypatch.setenv("CATALOG_GATE_MIN_CLIP_SCORE", "25")
    policy = load_gate_policy()
    assert (policy.min_accuracy, policy.min_clip_score) == (0.7, 25)


def test_a_misspelt_threshold_in_the_file_is_named(env_file: Path) -> None:
    env_file.write_text("CATALOG_GATE_MINIMUM_ACCURACY=0.9\n")
    with pytest.raises(PermanentError, match="CATALOG_GATE_MINIMUM_ACCURACY is no threshold"):
        load_gate_policy()


def test_thresholds_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        GatePolicy().min_accuracy = 0.1


def test_every_threshold_says_what_it_demands() -> None:
    """Pydantic takes a field's docstring along where it is told to."""
    assert [name for name, field in GatePolicy.model_fields.items() if not field.description] == []


def test_the_least_test_set_tells_the_accuracy_from_five_points_less() -> None:
    images = GatePolicy().min_test_images
    assert images == 174
    for enough, count in ((True, images), (False, images - 1)):
        error = norm.ppf(0.95) * (0.8 * 0.2 / count) ** 0.5
        assert bool(error <= 0.05) is enough
    assert GatePolicy(accuracy_resolution=0.10).min_test_images == 44
