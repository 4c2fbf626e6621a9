"""Champions without a training: tests and benchmarks that ask how photos flow need some models in use."""

from pathlib import Path

from jobs.connections import Connections
from jobs.database.model_versions import (
    ModelKind,
    ModelVersion,
    insert_model_version,
    insert_promotion,
    read_champion,
)
from jobs.models.registry import upload_checkpoint


def make_champion(connections: Connections, folder: Path, kind: ModelKind) -> ModelVersion:
    """Store and register a checkpoint and make it the champion of its kind, without any gate."""
    uploaded = upload_checkpoint(connections.store, connections.artifacts, folder, kind)
    with connections.engine.begin() as connection:
        version = insert_model_version(connection, uploaded)
        champion = read_champion(connection, kind)
        if champion != version:
            insert_promotion(connection, version, champion, promoted_by="tester", reason="because")
    return version
