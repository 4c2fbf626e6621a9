"""Roll back to an earlier champion. It goes live at once, because its results are still stored."""

import logging

from sqlalchemy import Connection

from jobs.alternatives import name_alternatives
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
    list_once_live,
    lock_promotions,
    read_latest_promotion,
    was_live,
)
from jobs.database.spaces import find_searchable_space, lock_spaces, make_space_live
from jobs.database.vector_codes import renew_live_codes
from jobs.errors import NotFoundError, RefusedError
from jobs.retag.switch import embed_stored_texts

log = logging.getLogger(__name__)


def roll_back(
    connections: Connections,
    kind: ModelKind,
    to_version: int | None = None,
    promoted_by: str = "rollback",
    reason: str = "rolled back",
    decision_id: int | None = None,
) -> PromotionReport:
    """Make an earlier version champion and live in one transaction.

    The default is the version, other than the champion, that was live last. If the champion is itself the result of a
    rollback, it stays: repeating a call changes nothing, and going back further requires ``to_version``. Images that
    the version has not processed have no result until the next ingest run. Texts that an encoder has not embedded are
    embedded after the switch. ``decision_id`` is the user's decision that this call carries out and closes.

    Raises:
        NotFoundError: there is no earlier version.
        RefusedError: the version was never live, or its space was dropped.
    """
    with connections.engine.begin() as connection:
        lock_promotions(connection)
        if decision_id is not None:
            close_decision(connection, decision_id)
        report = _roll_back(connection, kind, to_version, promoted_by, reason)
    if report.unprocessed_images:
        log.warning(
            "%s %d has not processed %d images, which arrived after it was replaced: the next ingest run processes "
            "them, or `catalog retag` now",
            kind,
            report.model_version_id,
            report.unprocessed_images,
        )
    if kind == "encoder" and report.is_live:
        embed_stored_texts(connections, report.model_version_id)
    if report.is_live:
        # Searches in large categories are slower until this is done.
        renew_live_codes(connections.engine)
    return report


def _roll_back(
    connection: Connection, kind: ModelKind, to_version: int | None, promoted_by: str, reason: str
) -> PromotionReport:
    champion = read_latest_promotion(connection, kind)
    if champion and champion.is_rollback and not to_version:
        log.info(
            "%s %d already is the champion after a rollback: use --to VERSION to go back further",
            kind,
            champion.model_version_id,
        )
        return report_champion(connection, kind, is_new=False)
    version = choose_rollback(connection, kind, to_version)
    assert champion is not None
    if version == champion.model_version_id:
        log.info("%s %d is already the champion", kind, version)
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
    """Return the version to roll back to. It was live before, and is the champion only if ``to_version`` names it.

    Raises:
        NotFoundError: there is no earlier version.
        RefusedError: the version was never live, or its space was dropped.
    """
    champion = read_latest_promotion(connection, kind)
    if champion is None:
        raise NotFoundError(f"no {kind} was promoted yet: there is no version to roll back to")
    version = to_version or find_latest_other(connection, kind, champion.model_version_id)
    if version is None:
        raise NotFoundError(f"{kind} {champion.model_version_id} was the first live version: there is none before it")
    if version == champion.model_version_id:
        return version
    if not was_live(connection, kind, version):
        names = name_alternatives(version, list_once_live(connection, kind), f"No {kind} was live yet")
        raise RefusedError(
            f"{kind} {version} was never live: evaluate and promote it instead, or choose a version that was live. "
            f"{names}"
        )
    if kind == "encoder":
        _require_searchable_space(connection, version)
    return version


def _require_searchable_space(connection: Connection, encoder_version_id: int) -> int:
    space_id = find_searchable_space(connection, encoder_version_id)
    if space_id is None:
        raise RefusedError(
            f"the space of encoder {encoder_version_id} was dropped with its vectors: evaluate and promote the encoder "
            "again, and a retag fills a new space"
        )
    return space_id


def _go_live(connection: Connection, kind: ModelKind, version: int, report: dict[str, str]) -> None:
    live = read_live_model(connection, kind)
    if live is not None and live.model_version_id == version:
        return
    if kind == "classifier":
        # Images may have been added, deleted or moved to another product since this version was live.
        renew_product_tags(connection, version)
        insert_switch(connection, Switch(kind, version, live.model_version_id if live else None), report)
        return
    lock_spaces(connection)
    make_space_live(connection, _require_searchable_space(connection, version), report)
