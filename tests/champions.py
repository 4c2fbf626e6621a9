"""Champions without a training: tests and benchmarks that ask how photos flow need some models in use."""

from pathlib import Path

from jobs.connections import Connections
from jobs.database.model_versions import (
    ModelKind,
    ModelVersion,
    insert_model_version,
    read_champion,
    read_live_model,
)
from jobs.database.promotions import NewPromotion, insert_promotion
from jobs.database.switches import Switch, insert_switch
from jobs.models.registry import upload_checkpoint


def make_champion(connections: Connections, folder: Path, kind: ModelKind, *, is_live: bool = False) -> ModelVersion:
    """Store and register a checkpoint and make it the champion of its kind, without any gate.

    As in a promotion the first classifier is live at once; a later one if asked for.
    """
    uploaded = upload_checkpoint(connections.store, connections.artifacts, folder, kind)
    with connections.engine.begin() as connection:
        version = insert_model_version(connection, uploaded)
        champion, live = read_champion(connection, kind), read_live_model(connection, kind)
        if champion != version:
            # One that replaces another without an evaluation would be a rollback.
            insert_promotion(connection, NewPromotion(kind, version.model_version_id, None, None, "tester", "because"))
        if kind == "classifier" and live != version and (is_live or live is None):
            insert_switch(connection, Switch(kind, version.model_version_id, live.model_version_id if live else None))
    return version
