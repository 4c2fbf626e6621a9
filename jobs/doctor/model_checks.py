"""Check that the champions' files are complete and run on this machine."""

from jobs.connections import Connections
from jobs.database.engine import open_reading
from jobs.database.model_versions import ModelKind, read_champion
from jobs.doctor.checks import Finding
from jobs.errors import PermanentError
from jobs.models.builds import choose_builds, fetch_build, find_build
from jobs.models.engine import EngineSettings, load_image_model
from jobs.models.registry import find_missing_files

NO_CHAMPION = {
    "classifier": "images get no tags: import labels and run `catalog retrain`",
    "encoder": "nothing can be searched: run `catalog retrain`, or without labels `catalog adopt encoder`",
}


def check_model(connections: Connections, kind: ModelKind) -> Finding:
    """Check that the files of a champion are in the bucket, and load its build for this machine, if it has one."""
    with open_reading(connections.engine) as connection:
        champion = read_champion(connection, kind)
    if champion is None:
        return Finding(f"no champion yet, so {NO_CHAMPION[kind]}", "warning")
    number = champion.model_version_id
    if missing := find_missing_files(connections.store, champion.artifact_uri):
        raise PermanentError(f"{kind} {number} lacks {missing[0]} in {champion.artifact_uri}: restore it, or roll back")
    if find_build(connections, number) is None:
        device = choose_builds(connections.settings.compute).device_class
        return Finding(
            f"{kind} {number} has no build for {device} yet: the first job makes one, or run `catalog build {number}`",
            "warning",
        )
    build, folder = fetch_build(connections, champion)
    compute = connections.settings.compute
    load_image_model(folder, kind, EngineSettings(compute.device, compute.precision, batch_size=1))
    return Finding(f"{kind} {number} loads as {build.describe()}")
