"""List and show model versions in a shell."""

from sqlalchemy import Engine

from fixtures.catalog_rows import register_model
from jobs.commands.models import format_model, list_version_rows
from jobs.database.model_builds import NewBuild, insert_builds
from jobs.database.model_listing import list_model_versions, show_model_version

FIDELITY = {"images": 100, "agreement": 0.995, "lost_accuracy": 0.0, "mean_cosine": None}


def test_builds_are_shown_with_their_figures(engine: Engine) -> None:
    with engine.connect() as connection:
        version = register_model(connection, "classifier")
        loss = "agreement 0.9000, at least 0.99 is required"
        builds = [
            NewBuild(version, "cpu", "openvino", "int8", None, FIDELITY, (loss,), "an old processor"),
            NewBuild(version, "cuda", "torch", "bf16", "s3://artifacts/builds/2", FIDELITY, (), "a GPU"),
        ]
        insert_builds(connection, builds)
        listed = str(list_version_rows(list_model_versions(connection)).rows)
        shown = format_model(show_model_version(connection, version))
    assert "torch fp32 on cpu; torch bf16 on cuda" in listed
    assert "int8" not in listed
    assert "build     torch fp32 on cpu, made on fixtures: not compared with float32" in shown
    assert f"build     openvino int8 on cpu, made on an old processor: rejected: {loss}" in shown
    assert "build     torch bf16 on cuda, made on a GPU: agreement 0.9950, lost accuracy 0.0000" in shown


def test_a_build_that_is_made_again_replaces_its_record(engine: Engine) -> None:
    with engine.connect() as connection:
        version = register_model(connection, "classifier")
        insert_builds(connection, [NewBuild(version, "cpu", "torch", "fp32", None, FIDELITY, ("too slow",), "here")])
        (build,) = show_model_version(connection, version).builds
    assert (build.artifact_uri, build.losses, build.machine) == (None, ("too slow",), "here")
