"""Switch the live models in one transaction, after a retag has prepared tags, vectors and texts."""

import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine

from jobs.connections import Connections
from jobs.database.drift_references import count_catalog_answers, upsert_drift_reference
from jobs.database.model_coverage import Losses, count_lost_tags, count_lost_vectors, count_unprocessed
from jobs.database.model_versions import read_champion, read_live_model
from jobs.database.products import renew_product_tags
from jobs.database.promotions import Switch, insert_switch
from jobs.database.search import count_missing_texts, insert_text_vectors, list_missing_texts
from jobs.database.spaces import (
    find_live_space,
    find_neighbours,
    make_space_live,
    read_space,
    sample_common_images,
    widen_index_search,
)
from jobs.database.tagging_runs import RunModels
from jobs.errors import RefusedError
from jobs.search.encoders import load_text_embedder

SAMPLE_IMAGES = 200
NEIGHBOURS = 10


@dataclass(frozen=True)
class NeighbourAgreement:
    """``overlap`` is the mean share, 0 to 1, of the nearest images in the old space that are nearest in the new one.

    It is None where no image has a neighbour in both spaces.
    """

    images: int
    overlap: float | None


def measure_agreement(engine: Engine, old_space_id: int, new_space_id: int) -> NeighbourAgreement:
    """Compare the neighbours of a sample of the images that are in both spaces, always the same sample."""
    overlaps: list[float] = []
    with engine.begin() as connection:
        widen_index_search(connection)
        spaces = [read_space(connection, space_id) for space_id in (old_space_id, new_space_id)]
        for image_id in sample_common_images(connection, old_space_id, new_space_id, SAMPLE_IMAGES):
            old, new = (find_neighbours(connection, space, image_id, NEIGHBOURS) for space in spaces)
            if old:
                overlaps.append(len(set(old) & set(new)) / len(old))
    return NeighbourAgreement(len(overlaps), round(sum(overlaps) / len(overlaps), 4) if overlaps else None)


log = logging.getLogger(__name__)

TEXTS_AT_A_TIME = 256


def carry_texts(connections: Connections, encoder_version_id: int) -> int:
    """Have an encoder embed every stored text that it has not embedded yet; returns how many.

    The encoder is loaded only when there is such a text. Killed and called again, it goes on.

    Raises:
        RefusedError: the checkpoint is not what was registered.
    """
    with connections.engine.connect() as connection:
        missing = count_missing_texts(connection, encoder_version_id)
    if not missing:
        return 0
    log.info("embedding %d stored texts by encoder %d", missing, encoder_version_id)
    embedder = load_text_embedder(connections, encoder_version_id)
    carried = 0
    while True:
        with connections.engine.begin() as connection:
            texts = list_missing_texts(connection, encoder_version_id, TEXTS_AT_A_TIME)
            if not texts:
                return carried
            insert_text_vectors(connection, encoder_version_id, texts, embedder.embed(texts))
        carried += len(texts)


@dataclass(frozen=True)
class LiveModels:
    """What answers now: the first promoted classifier at once, the first space once a run is published."""

    classifier_version_id: int | None
    encoder_version_id: int | None
    space_id: int | None


@dataclass(frozen=True)
class Incomplete:
    """Images, and texts of ``catalog.text_queries``, that the targets have not answered yet."""

    images: int
    texts: int


def read_live_models(connection: Connection) -> LiveModels:
    """The live version of each kind, and the live space."""
    classifier, encoder = (read_live_model(connection, kind) for kind in ("classifier", "encoder"))
    return LiveModels(
        classifier.model_version_id if classifier else None,
        encoder.model_version_id if encoder else None,
        find_live_space(connection),
    )


def find_switches(live: LiveModels, targets: RunModels) -> tuple[Switch, ...]:
    """What a retag has to switch; the very first space is not its business, but that of publishing."""
    switches = []
    if targets.classifier_version_id is not None and live.classifier_version_id != targets.classifier_version_id:
        switches.append(Switch("classifier", targets.classifier_version_id, live.classifier_version_id))
    if live.space_id not in {None, targets.space_id}:
        switches.append(Switch("encoder", targets.encoder_version_id, live.encoder_version_id))
    return tuple(switches)


def follow_rollbacks(connection: Connection, targets: RunModels, live: LiveModels) -> RunModels:
    """The targets of a retag, but for a kind whose champion is live already: by a rollback it may be another by now.

    What was rolled back starts no retag, which would bring over the champion of the other kind.
    """
    classifier, encoder = (read_champion(connection, kind) for kind in ("classifier", "encoder"))
    if classifier and classifier.model_version_id == live.classifier_version_id:
        targets = replace(targets, classifier_version_id=classifier.model_version_id)
    if encoder and encoder.model_version_id == live.encoder_version_id and live.space_id is not None:
        targets = replace(targets, encoder_version_id=encoder.model_version_id, space_id=live.space_id)
    return targets


def is_superseded(connection: Connection, targets: RunModels) -> bool:
    """Whether a target of a retag is no longer the champion."""
    champions = (read_champion(connection, kind) for kind in ("classifier", "encoder"))
    wanted = (targets.classifier_version_id, targets.encoder_version_id)
    return tuple(champion and champion.model_version_id for champion in champions) != wanted


def find_incompleteness(connection: Connection, targets: RunModels, switches: tuple[Switch, ...]) -> Incomplete | None:
    """What the targets have not answered, or None if they may go live; the truth only under `lock_for_switch`."""
    images = count_unprocessed(connection, targets.classifier_version_id, targets.space_id)
    has_new_encoder = any(switch.kind == "encoder" for switch in switches)
    texts = count_missing_texts(connection, targets.encoder_version_id) if has_new_encoder else 0
    return Incomplete(images, texts) if images or texts else None


def switch_models(
    connection: Connection,
    targets: RunModels,
    live: LiveModels,
    switches: tuple[Switch, ...],
    agreement: NeighbourAgreement | None,
    failed_share_limit: float,
) -> None:
    """Switch, in the caller's transaction and under `lock_for_switch`.

    Raises:
        RefusedError: so many images that have an answer now would lose it that something must be wrong.
    """
    for switch in switches:
        report: dict[str, Any]
        if switch.kind == "classifier":
            report = {}
            if switch.replaced_version_id is not None:
                losses = count_lost_tags(connection, switch.replaced_version_id, switch.model_version_id)
                _check_losses(switch, losses, failed_share_limit)
                report = asdict(losses)
            renew_product_tags(connection, switch.model_version_id)
            insert_switch(connection, switch, report)
            reference = count_catalog_answers(connection, switch.model_version_id)
            upsert_drift_reference(connection, switch.model_version_id, reference, "catalog")
        else:
            assert live.space_id is not None
            losses = count_lost_vectors(connection, live.space_id, targets.space_id)
            _check_losses(switch, losses, failed_share_limit)
            report = asdict(losses) | ({"neighbour_agreement": asdict(agreement)} if agreement else {})
            make_space_live(connection, targets.space_id, report)


def _check_losses(switch: Switch, losses: Losses, limit: float) -> None:
    if losses.lost > limit * losses.answered:
        raise RefusedError(
            f"{switch.kind} {switch.model_version_id} does not go live: {losses.lost} of the {losses.answered} images "
            f"that {switch.kind} {switch.replaced_version_id} answers failed with it, more than the {limit:.1%} of "
            "CATALOG_FAILED_SHARE_LIMIT; see the view catalog.item_failure_summary"
        )
