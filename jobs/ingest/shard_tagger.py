"""Shard after shard in one process, with the models of a run loaded once."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from jobs.connections import Connections
from jobs.database.tagging_runs import RunModels
from jobs.stopping import finish_steps

if TYPE_CHECKING:
    from jobs.models.predictor import Predictor


class ShardTagger:
    """Keeps the models that it has loaded, for the shards of one run and those of its top-ups."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._load = cache(self._load_predictor)

    def tag(self, run_id: str, shards: Sequence[int]) -> None:
        """Tag shards of a planned run; those that are finished already cost next to nothing.

        Raises:
            RetryableError, PermanentError, TerminatedError: as `tag_shard` does.
        """
        if not shards:
            return
        # Here, for torch takes seconds to import, and planning or a run without work does without.
        from jobs.images.decode_pool import DecodePool
        from jobs.ingest.tag_shard import TagSettings, tag_shard

        to = self._connections
        settings = TagSettings.from_settings(to.settings)
        with finish_steps(), DecodePool(settings.decode_processes) as decode_pool:
            for shard in shards:
                tag_shard(to.engine, to.store, to.artifacts, run_id, shard, settings, self._load, decode_pool)

    def _load_predictor(self, models: RunModels) -> "Predictor":
        from jobs.ingest.tag_shard import TagSettings, load_models

        to = self._connections
        return load_models(to.engine, to.store, TagSettings.from_settings(to.settings), models)
