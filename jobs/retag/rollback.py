"""Going back to an earlier champion: at once, for its answers are still there."""

import logging

from sqlalchemy import Connection

from jobs.connections import Connections
from jobs.database.model_coverage import PromotionReport, report_champion
from jobs.database.model_versions import ModelKind, read_live_model
from jobs.database.products import renew_product_tags
from jobs.database.promotions import (
    NewPromotion,
    Switch,
    close_decision,
    find_latest_other,
    insert_promotion,
    insert_switch,
    lock_promotions,
    read_latest_promotion,
    was_live,
)
from jobs.database.spaces import find_searchable_space, lock_spaces, make_space_live
from jobs.database.vector_codes import renew_live_codes
from jobs.errors import NotFoundError, RefusedError
from jobs.retag.switch import carry_texts

log = logging.getLogger(__name__)


def roll_back(
    connections: Connections,
    kind: ModelKind,
    to_version: int | None = None,
    promoted_by: str = "rollback",
    reason: str = "rolled back",
    decision_id: int | None = None,
) -> PromotionReport:
    """Make an earlier version the champion and have answers come from it, in one transaction.

    By default it is the version that was live last beside the champion. Where a rollback made the champion, it
    stays, so that a repeated call changes nothing: going back further takes ``to_version``. Images that it has not
    answered stay without its answer until the next ingest run; of an encoder, texts that it has not
    embedded are embedded after the switch. ``decision_id`` is the decision of a person that this carries out.

    Raises:
        PermanentError: answers never came from that version, or the space of that encoder was dropped.
    """
    with connections.engine.begin() as connection:
        lock_promotions(connection)
        if decision_id is not None:
            close_decision(connection, decision_id)
        report = _roll_back(connection, kind, to_version, promoted_by, reason)
    if report.unanswered_images:
        log.warning(
            "%s %d has not answered %d images, which arrived after it was replaced: the next ingest run does, or now "
            "`python -m jobs retag`",
            kind,
            report.model_version_id,
            report.unanswered_images,
        )
    if kind == "encoder" and report.is_live:
        carry_texts(connections, report.model_version_id)
    if report.is_live:
        # Until it ends, searches in large categories take longer.
        renew_live_codes(connections.engine)
    return report


def _roll_back(
    connection: Connection, kind: ModelKind, to_version: int | None, promoted_by: str, reason: str
) -> PromotionReport:
    champion = read_latest_promotion(connection, kind)
    if champion and champion.is_rollback and not to_version:
        log.info(
            "%s %d is the champion since a rollback already: `--to VERSION` goes back to another one",
            kind,
            champion.model_version_id,
        )
        return report_champion(connection, kind, is_new=False)
    version = choose_rollback(connection, kind, to_version)
    assert champion is not None
    if version == champion.model_version_id:
        log.info("%s %d is the champion already", kind, version)
        return report_champion(connection, kind, is_new=False)
    _go_live(connection, kind, version, report={"promoted_by": promoted_by, "reason": reason})
    insert_promotion(
        connection,
        NewPromotion(
            kind=kind,
            model_version_id=version,
            replaced_version_id=champion.model_version_id,
            evaluation_id=None,
            promoted_by=promoted_by,
            reason=reason,
        ),
    )
    return report_champion(connection, kind, is_new=True)


def choose_rollback(connection: Connection, kind: ModelKind, to_version: int | None = None) -> int:
    """The version to go back to, which has answered the catalog; the champion itself only if it was asked for.

    Raises:
        PermanentError: there is none, or it cannot answer at once.
    """
    champion = read_latest_promotion(connection, kind)
    if champion is None:
        raise NotFoundError(f"no {kind} was promoted yet, so that there is none to go back to")
    version = to_version or find_latest_other(connection, kind, champion.model_version_id)
    if version is None:
        raise NotFoundError(f"{kind} {champion.model_version_id} is the first that was live: there is none before it")
    if version == champion.model_version_id:
        return version
    if not was_live(connection, kind, version):
        raise RefusedError(
            f"{kind} {version} was never live, so that it has not answered the catalog: evaluate and promote it "
            "instead; `python -m jobs models list` shows those that were"
        )
    if kind == "encoder":
        _require_searchable_space(connection, version)
    return version


def _require_searchable_space(connection: Connection, encoder_version_id: int) -> int:
    space_id = find_searchable_space(connection, encoder_version_id)
    if space_id is None:
        raise RefusedError(
            f"the space of encoder {encoder_version_id} was dropped, and its vectors with it: evaluate and promote the "
            "encoder again, and a retag fills a new one"
        )
    return space_id


def _go_live(connection: Connection, kind: ModelKind, version: int, report: dict[str, str]) -> None:
    live = read_live_model(connection, kind)
    if live is not None and live.model_version_id == version:
        return
    if kind == "classifier":
        # Photos may have come, gone or changed their product while it did not answer.
        renew_product_tags(connection, version)
        insert_switch(connection, Switch(kind, version, live.model_version_id if live else None), report)
        return
    lock_spaces(connection)
    make_space_live(connection, _require_searchable_space(connection, version), report)
