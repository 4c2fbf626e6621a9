"""Bringing the whole catalog over to the champions: filled beside the live answers, switched when it is complete.

The same shards as in the ingest flow, planned over all images that are in the catalog instead of a listing. What
arrives while they are tagged is tagged in top-ups, until there is a moment at which nothing is missing.
"""

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection

from jobs.connections import Connections
from jobs.database.model_coverage import lock_for_switch
from jobs.database.model_versions import read_champion
from jobs.database.products import renew_product_tags
from jobs.database.promotions import Switch
from jobs.database.run_history import sum_chunks, sum_run_and_parts
from jobs.database.spaces import create_space_index, open_space
from jobs.database.tagging_runs import RunModels, RunState, TaggingRun, finish_run, lock_run, read_run
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
    NeighbourAgreement,
    carry_texts,
    find_incompleteness,
    find_switches,
    follow_rollbacks,
    is_superseded,
    measure_agreement,
    read_live_models,
    switch_models,
)
from jobs.storage.layout import report_location
from jobs.storage.uri import S3Uri

log = logging.getLogger(__name__)

MOST_ROUNDS = 10
"""In one call. Each takes what arrived during the one before, so that two or three are the rule."""

RetagState = Literal["switched", "nothing to do", "superseded", "refused"]


@dataclass(frozen=True)
class RetagReport:
    """A finished retag, its top-ups included; ``failed`` counts every attempt.

    ``neighbour_overlap_at_10`` is that of `NeighbourAgreement`, None where no encoder was switched; ``index`` is None
    where nothing was planned.
    """

    run_id: str
    state: RetagState
    switched: tuple[Switch, ...]
    entries: int
    failed: int
    top_up_rounds: int
    neighbour_overlap_at_10: float | None
    seconds: float
    index: IndexFilling | None = None


def retag(connections: Connections, run_id: str | None = None) -> RetagReport:
    """Bring the whole catalog over in one process; the ``run_id`` of a run that stopped halfway resumes it.

    Raises:
        RetryableError, PermanentError: as `complete_retag` does.
    """
    run_id = run_id or f"retag-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    plan = plan_retag(connections, run_id)
    log.info(
        "%d images to answer; if this run stops halfway, `python -m jobs retag --run %s` goes on", plan.entries, run_id
    )
    tagger = ShardTagger(connections)
    tagger.tag(run_id, plan.shards)
    return _complete(connections, run_id, tagger)


def plan_retag(connections: Connections, run_id: str) -> RunPlan:
    """Choose the images that the champions have not answered, and write the manifest; a run that has a plan keeps it.

    Until there is a champion encoder there is nothing to do, and nothing is stored.
    """
    with connections.engine.begin() as connection:
        known = read_run(connection, run_id, "retag")
        if known is not None:
            return read_plan(connection, known)
        classifier, encoder = read_champion(connection, "classifier"), read_champion(connection, "encoder")
        if encoder is None:
            return RunPlan(run_id, "", {}, 0, {}, None, [])
        # In a transaction of its own: a new space keeps others from writing to catalog.images until it ends.
        space_id = open_space(connection, encoder.model_version_id, encoder.vector_dimensions)
    classifier_version_id = classifier.model_version_id if classifier else None
    return _plan(connections, run_id, RunModels(classifier_version_id, encoder.model_version_id, space_id))


def _plan(connections: Connections, run_id: str, models: RunModels) -> RunPlan:
    """Plan a run, or recall the plan that it has."""
    manifest = ManifestWriter(connections, run_id, models)
    max_attempts = connections.settings.runs.max_attempts
    with connections.engine.begin() as connection:
        lock_run(connection, run_id)
        known = read_run(connection, run_id, "retag")
        if known is not None:
            return read_plan(connection, known)
        sources = [S3Uri(bucket, "") for bucket in list_live_buckets(connection)]
        for source in sources:
            due = stream_due(
                connection, source, models.classifier_version_id, models.space_id, max_attempts, IngestOptions()
            )
            manifest.write(source.bucket, due)
        source_uri = " ".join(map(str, sources))
        return store_plan(connection, manifest, source_uri, "retag", discovered={})


def complete_retag(connections: Connections, run_id: str) -> RetagReport:
    """Take in what arrived meanwhile, and have all answers come from the champions, in one transaction.

    Killed anywhere and called again, it ends in the same state; what is finished gives its report again.

    Raises:
        RetryableError: photos arrive faster than they are tagged, or whoever records a listing takes too long.
        PermanentError: the run was never planned, its shards are not finished, or too many images failed: answers
            come from the models before.
    """
    return _complete(connections, run_id, ShardTagger(connections))


def _complete(connections: Connections, run_id: str, tagger: ShardTagger) -> RetagReport:
    with connections.engine.connect() as connection:
        run = read_run(connection, run_id, "retag")
        if run is None:
            return _report_nothing_planned(connection, run_id)
        error = find_run_error(sum_chunks(connection, run_id), failed_share_limit=1)
    if error:
        raise RefusedError(error)
    if run.state == "succeeded" and run.report is not None:
        report = _recall_report(run.report)
        # A kill after the switch may have left codes by the answers of before.
        renew_live_codes(connections.engine)
    else:
        with open_progress(connections.engine, run_id, "complete_retag") as progress:
            report = _Completion(connections, run, tagger, progress).run()
    content = json.dumps(asdict(report), indent=2)
    connections.store.write(report_location(connections.artifacts, run_id), content.encode())
    log.info("report of run %s:\n%s", run_id, content)
    return report


def _report_nothing_planned(connection: Connection, run_id: str) -> RetagReport:
    if read_champion(connection, "encoder"):
        raise NotFoundError(f"run {run_id!r} was never planned: run `python -m jobs plan-retag --run {run_id}` first")
    return RetagReport(run_id, "nothing to do", (), 0, 0, 0, None, 0.0)


def _recall_report(record: dict[str, Any]) -> RetagReport:
    switched = tuple(Switch(**switch) for switch in record["switched"])
    index = record.get("index")
    return RetagReport(**{**record, "switched": switched, "index": IndexFilling(**index) if index else None})


class _Completion:
    """The end of one retag: rounds of topping up, preparing and trying to switch."""

    def __init__(self, connections: Connections, run: TaggingRun, tagger: ShardTagger, progress: Progress) -> None:
        self._connections = connections
        self._engine = connections.engine
        self._run = run
        self._targets = run.models
        self._tagger = tagger
        self._progress = progress
        self._top_ups = 0
        self._agreement: NeighbourAgreement | None = None

    def run(self) -> RetagReport:
        self._finish_top_ups()
        for _ in range(MOST_ROUNDS):
            with self._engine.connect() as connection:
                live = read_live_models(connection)
                self._targets = follow_rollbacks(connection, self._targets, live)
                switches = find_switches(live, self._targets)
                is_out = is_superseded(connection, self._targets)
                lacks = find_incompleteness(connection, self._targets, switches) if switches and not is_out else None
            if lacks and lacks.images:
                self._top_up()
            if not is_out:
                self._prepare(live, switches)
            report = self._try_to_switch()
            if report:
                # The first classifier is live before it has tagged anything, and needs no switch.
                if report.state == "switched" or (report.state == "nothing to do" and report.entries):
                    self._renew_codes()
                return report
        raise RetryableError(
            f"photos arrive faster than they are tagged: {MOST_ROUNDS} rounds left some out; answers come from the "
            "models before, and the same command goes on"
        )

    def _finish_top_ups(self) -> None:
        """Those that an earlier call has planned, of which only the last can be unfinished."""
        while True:
            with self._engine.connect() as connection:
                if read_run(connection, self._name_top_up(self._top_ups + 1), "retag") is None:
                    return
            self._top_up()

    def _top_up(self) -> None:
        self._top_ups += 1
        run_id = self._name_top_up(self._top_ups)
        plan = _plan(self._connections, run_id, self._targets)
        log.info("top-up %d: %d images arrived or failed meanwhile", self._top_ups, plan.entries)
        self._progress.report(f"tagging {plan.entries} photos that arrived or failed meanwhile")
        self._tagger.tag(run_id, plan.shards)
        with self._engine.begin() as connection:
            totals = sum_chunks(connection, run_id)
            finish_run(connection, run_id, "succeeded", asdict(totals), totals)

    def _name_top_up(self, number: int) -> str:
        return f"{self._run.run_id}/top-up-{number}"

    def _prepare(self, live: LiveModels, switches: tuple[Switch, ...]) -> None:
        """All that can be done before the switch, so that writers wait for it only a moment."""
        self._progress.report("renewing product tags")
        if self._targets.classifier_version_id is not None:
            with self._engine.begin() as connection:
                renew_product_tags(connection, self._targets.classifier_version_id)
        if any(switch.kind == "encoder" for switch in switches):
            self._progress.report("building the vector index")
            with self._engine.begin() as connection:
                create_space_index(connection, self._targets.space_id)
            self._renew_codes()
            carry_texts(self._connections, self._targets.encoder_version_id)
            if self._agreement is None and live.space_id is not None:
                self._progress.report("comparing the old and the new space")
                self._agreement = measure_agreement(self._engine, live.space_id, self._targets.space_id)
                log.info("old and new space: %s", self._agreement)

    def _renew_codes(self) -> None:
        """By the answers of now: before a switch of encoders, so that the new space has any, and again after it."""
        with self._engine.begin() as connection:
            renew_vector_codes(connection, self._targets.space_id)

    def _try_to_switch(self) -> RetagReport | None:
        """Switch, or say why there is nothing to switch; None if something changed in the last moment."""
        limit = self._connections.settings.runs.failed_share_limit
        self._progress.report("switching")
        try:
            with self._engine.begin() as connection:
                lock_for_switch(connection)
                live = read_live_models(connection)
                if follow_rollbacks(connection, self._targets, live) != self._targets:
                    return None
                switches = find_switches(live, self._targets)
                if is_superseded(connection, self._targets):
                    return self._finish(connection, "succeeded", "superseded", ())
                if not switches:
                    return self._finish(connection, "succeeded", "nothing to do", ())
                if find_incompleteness(connection, self._targets, switches):
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
        """Close the run in the transaction of the switch, so that the one is never without the other."""
        counts, totals = sum_run_and_parts(connection, self._run.run_id), sum_chunks(connection, self._run.run_id)
        report = RetagReport(
            run_id=self._run.run_id,
            state=state,
            switched=switched,
            entries=counts.entries,
            failed=counts.failed,
            top_up_rounds=self._top_ups,
            neighbour_overlap_at_10=self._agreement.overlap if self._agreement and switched else None,
            seconds=round(totals.duration_seconds, 1),
            index=read_index_filling(connection, self._run.run_id, self._targets.space_id),
        )
        finish_run(connection, self._run.run_id, run_state, asdict(report), totals)
        return report
