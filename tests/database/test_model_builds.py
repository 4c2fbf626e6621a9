"""Choose among the builds of a version."""

import pytest

from jobs.database.model_builds import BuildChoice, DeviceClass, EngineName, Precision, RegisteredBuild, choose_build


def make_build(
    number: int, device_class: DeviceClass, engine: EngineName, precision: Precision, *losses: str
) -> RegisteredBuild:
    uri = None if losses else f"s3://artifacts/builds/{number}"
    return RegisteredBuild(number, 1, device_class, engine, precision, uri, None, losses, "a machine")


BUILDS = (
    make_build(1, "cpu", "openvino", "int8", "agreement 0.9, at least 0.99 is required"),
    make_build(2, "cpu", "openvino", "bf16"),
    make_build(3, "cpu", "torch", "fp32"),
    make_build(4, "cuda", "torch", "bf16"),
    make_build(5, "cuda", "openvino", "fp32", "worst cosine 0.5, at least 0.9 is required"),
)


@pytest.mark.parametrize(
    ("choice", "build"),
    [
        (BuildChoice("cpu"), 2),
        (BuildChoice("cpu", "torch"), 3),
        (BuildChoice("cuda"), 4),
        # Its precision was rejected, so the next slower one is used.
        (BuildChoice("cpu", "openvino", "int8"), 2),
        (BuildChoice("cpu", None, "fp32"), 3),
        # The only build of this engine was rejected.
        (BuildChoice("cuda", "openvino"), 4),
        # These have to be made.
        (BuildChoice("cpu", "openvino", "fp32"), None),
        (BuildChoice("cpu", "torch", "int8"), None),
        (BuildChoice("cuda", "torch", "fp32"), None),
        (BuildChoice("cpu", "torch", "bf16"), None),
    ],
)
def test_the_fastest_admitted_build_is_chosen(choice: BuildChoice, build: int | None) -> None:
    chosen = choose_build(BUILDS, choice)
    assert (chosen and chosen.build_id) == build


def test_a_version_whose_builds_are_all_rejected_has_none() -> None:
    assert choose_build(BUILDS[:1], BuildChoice("cpu")) is None
    assert choose_build((), BuildChoice("cpu")) is None
