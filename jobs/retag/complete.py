"""Complete a retag: tag images that arrived in the meantime, prepare the new models, and switch to them."""

import json
import logging
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Engine

from jobs.connections import Connections
from jobs.database.model_coverage import lock_for_switch
from jobs.database.model_versions import read_champion
from jobs.database.products import renew_product_tags
from jobs.database.promotions import Switch
from jobs.database.run_history import read_recent_speed, sum_chunks, sum_run_and_parts
from jobs.database.spaces import (
    create_space_index,
    find_neighbors,
    read_space,
    sample_common_images,
)
from jobs.database.tagging_runs import RunModels, RunState, TaggingRun, finish_run, lock_run, name_runs, read_run
from jobs.database.tagging_work import list_live_buckets
from jobs.database.vector_codes import renew_live_codes, renew_vector_codes
from jobs.errors import NotFoundError, RefusedError, RetryableError
from jobs.ingest.manifest import ManifestWriter
from jobs.ingest.plan import IngestOptions, RunPlan, read_plan, store_plan, stream_due
from jobs.ingest.report import IndexFilling, find_run_error, read_index_filling
from jobs.ingest.tag_shard import ShardTagger
from jobs.progress import Progress, open_progress
from jobs.retag.switch import (
    LiveModels,
    NeighborAgreement,
    apply_rollbacks,
    embed_stored_texts,
    find_missing_results,
    find_switches,
    is_superseded,
    read_live_models,
    switch_models,
)
from jobs.storage.locations import S3Uri, report_location

log = logging.getLogger(__name__)

MAX_ROUNDS = 10
"""Maximum number of top-ups per call. Each tags the images that arrived during the previous one; two or three usually
suffice."""
SAMPLE_IMAGES = 200
NEIGHBORS = 10

RetagState = Literal["switched", "nothing to do", "superseded", "refused"]


@dataclass(frozen=True)
class RetagReport:
    """A finished retag with its top-ups. ``failed`` counts every failed attempt.

    ``neighbor_overlap_at_10`` is the overlap in `NeighborAgreement`, or None if no encoder was switched. ``index``
    is None if nothing was planned.
    """

    run_id: str
    state: RetagState
    switched: tuple[Switch, ...]
    entries: int
    failed: int
    top_up_rounds: int
    neighbor_overlap_at_10: float | None
    seconds: float
    index: IndexFilling | None = None

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "RetagReport":
        """Read a stored report."""
        switched = tuple(Switch(**switch) for switch in record["switched"])
        index = record.get("index")
        return cls(**{**record, "switched": switched, "index": IndexFilling(**index) if index else None})


def plan_missing_images(connections: Connections, run_id: str, models: RunModels) -> RunPlan:
    """Plan a run over all images that the models have not processed. If it is already planned, return its plan."""
    max_attempts = connections.settings.runs.max_attempts
    with connections.engine.begin() as connection:
        lock_run(connection, run_id)
        known = read_run(connection, run_id, "retag")
        if known is not None:
            return read_plan(connection, known)
        manifest = ManifestWriter(connections, run_id, models, read_recent_speed(connection))
        sources = [S3Uri(bucket, "") for bucket in list_live_buckets(connection)]
        for source in sources:
            due = stream_due(
                connection, source, models.classifier_version_id, models.space_id, max_attempts, IngestOptions()
            )
            manifest.write(source.bucket, due)
        source_uri = " ".join(map(str, sources))
        return store_plan(connection, manifest, source_uri, "retag", discovered={})


def complete_retag(connections: Connections, run_id: str) -> RetagReport:
    """Tag the images that arrived in the meantime, and switch to the champions in one transaction.

    If a call is killed, repeating it leads to the same state. For a finished retag, return the stored report.

    Raises:
        RetryableError: images arrive faster than they are tagged, or another job holds a lock for too long.
        RefusedError: the shards of the run are not finished, or too many images failed. The live models stay live.
        NotFoundError: the run was never planned.
    """
    return complete_with(ShardTagger(connections), connections, run_id)


def complete_with(tagger: ShardTagger, connections: Connections, run_id: str) -> RetagReport:
    """Complete a retag as `complete_retag` does, with a tagger that may have loaded its models already."""
    with connections.engine.connect() as connection:
        run = read_run(connection, run_id, "retag")
        if run is None:
            return _report_nothing_planned(connection, run_id)
        error = find_run_error(sum_chunks(connection, run_id), failed_share_limit=1)
    if error:
        raise RefusedError(error)
    if run.state == "succeeded" and run.report is not None:
        report = RetagReport.from_record(run.report)
        # If the earlier call was killed right after the switch, the codes are still those of the old models.
        renew_live_codes(connections.engine)
    else:
        with open_progress(connections.engine, run_id, "complete_retag") as progress:
            report = _Completion(connections, run, tagger, progress).run()
    content = json.dumps(asdict(report), indent=2)
    connections.store.write(report_location(connections.artifacts, run_id), content.encode())
    log.info("report of run %s:\n%s", run_id, content, extra={"is_report": True})
    return report


def _report_nothing_planned(connection: Connection, run_id: str) -> RetagReport:
    if read_champion(connection, "encoder"):
        raise NotFoundError(
            f"run {run_id!r} was never planned: run `catalog plan-retag --run {run_id}` first. "
            f"{name_runs(connection, run_id, 'retag')}"
        )
    return RetagReport(run_id, "nothing to do", (), 0, 0, 0, None, 0.0)


class _Completion:
    """Repeat top-up, preparation and switch until the switch succeeds or none is needed."""

    def __init__(self, connections: Connections, run: TaggingRun, tagger: ShardTagger, progress: Progress) -> None:
        self._connections = connections
        self._engine = connections.engine
        self._run = run
        self._targets = run.models
        self._tagger = tagger
        self._progress = progress
        self._top_ups = 0
        self._agreement: NeighborAgreement | None = None

    def run(self) -> RetagReport:
        self._finish_earlier_top_ups()
        for _ in range(MAX_ROUNDS):
            with self._engine.connect() as connection:
                live = read_live_models(connection)
                self._targets = apply_rollbacks(connection, self._targets, live)
                switches = find_switches(live, self._targets)
                is_out = is_superseded(connection, self._targets)
                missing = find_missing_results(connection, self._targets, switches) if switches and not is_out else None
            if missing and missing.images:
                self._top_up()
            if not is_out:
                self._prepare(live, switches)
            report = self._try_to_switch()
            if report:
                # Also after "nothing to do", because the first classifier goes live before it has tagged any image.
                if report.state == "switched" or (report.state == "nothing to do" and report.entries):
                    self._renew_codes()
                return report
        raise RetryableError(
            f"images arrive faster than they are tagged: some were left after {MAX_ROUNDS} rounds. The live models "
            "stay; run the same command again to continue"
        )

    def _finish_earlier_top_ups(self) -> None:
        """Run the top-ups of an earlier call again. Only the last one can have work left."""
        while True:
            with self._engine.connect() as connection:
                if read_run(connection, self._name_top_up(self._top_ups + 1), "retag") is None:
                    return
            self._top_up()

    def _top_up(self) -> None:
        self._top_ups += 1
        run_id = self._name_top_up(self._top_ups)
        plan = plan_missing_images(self._connections, run_id, self._targets)
        log.info("top-up %d: tagging %d images that arrived or failed in the meantime", self._top_ups, plan.entries)
        self._progress.report(f"tagging {plan.entries} images that arrived or failed in the meantime")
        self._tagger.tag(run_id, plan.shards)
        with self._engine.begin() as connection:
            totals = sum_chunks(connection, run_id)
            finish_run(connection, run_id, "succeeded", asdict(totals), totals)

    def _name_top_up(self, number: int) -> str:
        return f"{self._run.run_id}/top-up-{number}"

    def _prepare(self, live: LiveModels, switches: tuple[Switch, ...]) -> None:
        """Do as much as possible before the switch, because the switch blocks writers."""
        self._progress.report("renewing product tags")
        if self._targets.classifier_version_id is not None:
            with self._engine.begin() as connection:
                renew_product_tags(connection, self._targets.classifier_version_id)
        if any(switch.kind == "encoder" for switch in switches):
            self._progress.report("building the vector index")
            with self._engine.begin() as connection:
                create_space_index(connection, self._targets.space_id)
            self._renew_codes()
            embed_stored_texts(self._connections, self._targets.encoder_version_id)
            if self._agreement is None and live.space_id is not None:
                self._progress.report("comparing the old and the new space")
                self._agreement = measure_agreement(self._engine, live.space_id, self._targets.space_id)
                log.info("old and new space: %s", self._agreement)

    def _renew_codes(self) -> None:
        """Update the codes of the target space from the current tags.

        Called before an encoder switch, so the new space has codes, and after every switch, because tags changed.
        """
        with self._engine.begin() as connection:
            renew_vector_codes(connection, self._targets.space_id)

    def _try_to_switch(self) -> RetagReport | None:
        """Switch, or report why no switch is needed. Return None if anything has changed since the preparation."""
        limit = self._connections.settings.runs.failed_share_limit
        self._progress.report("switching")
        try:
            with self._engine.begin() as connection:
                lock_for_switch(connection)
                live = read_live_models(connection)
                if apply_rollbacks(connection, self._targets, live) != self._targets:
                    return None
                switches = find_switches(live, self._targets)
                if is_superseded(connection, self._targets):
                    return self._finish(connection, "succeeded", "superseded", ())
                if not switches:
                    return self._finish(connection, "succeeded", "nothing to do", ())
                if find_missing_results(connection, self._targets, switches):
                    return None
                switch_models(connection, self._targets, live, switches, self._agreement, limit)
                return self._finish(connection, "succeeded", "switched", switches)
        except RefusedError:
            with self._engine.begin() as connection:
                self._finish(connection, "failed", "refused", ())
            raise

    def _finish(
        self, connection: Connection, run_state: RunState, state: RetagState, switched: tuple[Switch, ...]
    ) -> RetagReport:
        """Close the run in the transaction of the switch."""
        counts, totals = sum_run_and_parts(connection, self._run.run_id), sum_chunks(connection, self._run.run_id)
        report = RetagReport(
            run_id=self._run.run_id,
            state=state,
            switched=switched,
            entries=counts.entries,
            failed=counts.failed,
            top_up_rounds=self._top_ups,
            neighbor_overlap_at_10=self._agreement.overlap if self._agreement and switched else None,
            seconds=round(totals.duration_seconds, 1),
            index=read_index_filling(connection, self._run.run_id, self._targets.space_id),
        )
        finish_run(connection, self._run.run_id, run_state, asdict(report), totals)
        return report


def measure_agreement(engine: Engine, old_space_id: int, new_space_id: int) -> NeighborAgreement:
    """Compare the nearest neighbors in both spaces, for a fixed sample of the images that both contain."""
    overlaps: list[float] = []
    with engine.begin() as connection:
        spaces = [read_space(connection, space_id) for space_id in (old_space_id, new_space_id)]
        for image_id in sample_common_images(connection, old_space_id, new_space_id, SAMPLE_IMAGES):
            old, new = (find_neighbors(connection, space, image_id, NEIGHBORS) for space in spaces)
            if old:
                overlaps.append(len(set(old) & set(new)) / len(old))
    return NeighborAgreement(len(overlaps), round(sum(overlaps) / len(overlaps), 4) if overlaps else None)
