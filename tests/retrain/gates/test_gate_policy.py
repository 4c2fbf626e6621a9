import re
from pathlib import Path

import pytest
from pydantic import ValidationError
from scipy.stats import norm

from jobs.errors import ConfigurationError
from jobs.retrain.gates.gate_policy import DEFAULTS, GatePolicy, load_gate_policy
from jobs.settings import HOME, make_settings, read_variables


def test_the_defaults() -> None:
    assert load_gate_policy().model_dump() == {
        "accuracy_resolution": 0.05,
        "min_category_test_images": 5,
        "max_snapshot_age_days": 90,
        "min_accuracy": 0.80,
        "min_top_3_accuracy": 0.90,
        "min_category_recall": 0.60,
        "max_calibration_error": 0.05,
        "not_worse_margin": 0.025,
        "max_changed_share": 0.20,
        "min_clip_score": 30,
        "recall_margin": 0.05,
        "max_lost_accuracy": 0.005,
        "min_agreement": 0.99,
        "min_mean_cosine": 0.99,
        "min_worst_cosine": 0.97,
        "min_neighbor_recall": 0.95,
        "max_lost_recall": 0.01,
        "max_latency_milliseconds": 200,
        "min_images_per_second": 100,
        "max_failed_share": 0.01,
        "max_memory_bytes": 2_000_000_000,
        "max_output_difference": 1e-3,
    }


def write(folder: Path, text: str) -> Path:
    file = folder / "gates.toml"
    file.write_text(text)
    return file


def test_an_override_file_changes_the_bounds_it_names(tmp_path: Path) -> None:
    policy = load_gate_policy(write(tmp_path, "min_accuracy = 0.9\nmax_memory_bytes = 4_000_000_000\n"))
    changed = {"min_accuracy": 0.9, "max_memory_bytes": 4_000_000_000}
    assert policy.model_dump() == load_gate_policy().model_dump() | changed
    assert load_gate_policy(write(tmp_path, "# nothing\n")) == load_gate_policy()


def test_the_setting_names_the_override_file(tmp_path: Path, env_file: Path) -> None:
    env_file.write_text(f"CATALOG_GATE_POLICY={write(tmp_path, 'min_clip_score = 20')}\n")
    locations = ("CATALOG_DATABASE_URL", "CATALOG_SOURCE_URI", "CATALOG_ARTIFACTS_URI")
    needed = dict(zip(locations, ("postgresql://h/d", "s3://b/", "s3://b/"), strict=True))
    assert make_settings(needed).training.gate_policy is None
    assert load_gate_policy(make_settings(needed | read_variables()).training.gate_policy).min_clip_score == 20
    relative = make_settings(needed | {"CATALOG_GATE_POLICY": "gates.toml"}).training.gate_policy
    assert relative == HOME / "gates.toml"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_accuracy", "80"),
        ("min_accuracy", '"0.8x"'),
        ("min_category_recall", "-0.1"),
        ("min_top_3_accuracy", "nan"),
        ("not_worse_margin", "0"),
        ("max_latency_milliseconds", "inf"),
        ("min_images_per_second", "-inf"),
        ("max_output_difference", "nan"),
        ("min_clip_score", "nan"),
        ("max_memory_bytes", '"2 GB"'),
        ("minimum_accuracy", "0.9"),
    ],
)
def test_a_wrong_bound_is_named_with_its_file(name: str, value: str, tmp_path: Path) -> None:
    file = write(tmp_path, f"{name} = {value}\n")
    with pytest.raises(ConfigurationError) as caught:
        load_gate_policy(file)
    pattern = rf"CATALOG_GATE_POLICY={re.escape(str(file))}: {name}: .+\. policy\.toml lists all bounds"
    assert re.fullmatch(pattern, str(caught.value))
    assert ("unknown bound" in str(caught.value)) is (name == "minimum_accuracy")
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(("text", "words"), [(None, "cannot be read: No such file"), ("a = ", "is not valid TOML: ")])
def test_an_unreadable_file_is_named(text: str | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "missing.toml" if text is None else write(tmp_path, text)
    with pytest.raises(ConfigurationError, match=rf"^CATALOG_GATE_POLICY={re.escape(str(file))} {words}"):
        load_gate_policy(file)


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_bytes(b"# Zul\xe4ssig\nmin_accuracy = 0.9\n")
    with pytest.raises(ConfigurationError, match="is not valid TOML"):
        load_gate_policy(file)


def test_bounds_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_gate_policy().min_accuracy = 0.1


def test_every_bound_has_a_comment_that_explains_it() -> None:
    lines = DEFAULTS.read_text(encoding="utf-8").splitlines()
    numbers = [number for number, line in enumerate(lines) if " = " in line and not line.startswith("#")]
    assert [lines[number].partition(" = ")[0] for number in numbers] == list(GatePolicy.model_fields)
    assert [lines[number] for number in numbers if not lines[number - 1].startswith("# ")] == []


def test_the_minimum_test_set_resolves_five_points_of_accuracy() -> None:
    images = load_gate_policy().min_test_images
    assert images == 174
    for enough, count in ((True, images), (False, images - 1)):
        error = norm.ppf(0.95) * (0.8 * 0.2 / count) ** 0.5
        assert bool(error <= 0.05) is enough
    assert load_gate_policy().model_copy(update={"accuracy_resolution": 0.10}).min_test_images == 44


@pytest.mark.parametrize("name", ["CATALOG_GATE_POLCY", "CATALOG_GATE_MIN_ACCURACY"])
@pytest.mark.parametrize("is_in_file", [False, True])
def test_an_unknown_gate_variable_is_named(
    name: str, is_in_file: bool, env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text(f"{name}=0.9\n" if is_in_file else "")
    if not is_in_file:
        monkeypatch.setenv(name, "0.9")
    with pytest.raises(ConfigurationError, match=f"^{name}: unknown"):
        make_settings(read_variables())
