"""Switch the live models in one transaction, after a retag has prepared tags, vectors and texts."""

import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection

from jobs.connections import Connections
from jobs.database.drift_references import count_catalog_predictions, upsert_drift_reference
from jobs.database.model_coverage import Losses, count_lost_tags, count_lost_vectors, count_unprocessed
from jobs.database.model_versions import read_champion, read_live_model
from jobs.database.products import renew_product_tags
from jobs.database.promotions import Switch, insert_switch
from jobs.database.search import count_missing_texts, insert_text_vectors, list_missing_texts
from jobs.database.spaces import find_live_space, make_space_live
from jobs.database.tagging_runs import RunModels
from jobs.errors import RefusedError
from jobs.search.encoders import load_text_embedder

log = logging.getLogger(__name__)

TEXT_BATCH_SIZE = 256


@dataclass(frozen=True)
class LiveModels:
    """The live models. The first classifier goes live when it is promoted, the first space when a run is published.

    A field is None before that.
    """

    classifier_version_id: int | None
    encoder_version_id: int | None
    space_id: int | None


@dataclass(frozen=True)
class NeighborAgreement:
    """How similar the old and the new space are, on a sample of images.

    ``overlap`` is the mean share, 0 to 1, of an image's nearest neighbors in the old space that are also its nearest
    neighbors in the new one. It is None if no image could be compared.
    """

    images: int
    overlap: float | None


@dataclass(frozen=True)
class MissingResults:
    """Numbers of images, and of texts in ``catalog.text_queries``, that the targets have not processed yet."""

    images: int
    texts: int


def read_live_models(connection: Connection) -> LiveModels:
    """Return the live version of each kind and the live space."""
    classifier, encoder = (read_live_model(connection, kind) for kind in ("classifier", "encoder"))
    return LiveModels(
        classifier.model_version_id if classifier else None,
        encoder.model_version_id if encoder else None,
        find_live_space(connection),
    )


def find_switches(live: LiveModels, targets: RunModels) -> tuple[Switch, ...]:
    """Return the switches from the live models to the targets, except to a first space: publishing makes it live."""
    switches = []
    if targets.classifier_version_id is not None and live.classifier_version_id != targets.classifier_version_id:
        switches.append(Switch("classifier", targets.classifier_version_id, live.classifier_version_id))
    if live.space_id not in {None, targets.space_id}:
        switches.append(Switch("encoder", targets.encoder_version_id, live.encoder_version_id))
    return tuple(switches)


def apply_rollbacks(connection: Connection, targets: RunModels, live: LiveModels) -> RunModels:
    """Replace the target of each kind whose champion is already live, for example after a rollback during the retag.

    A rollback starts no retag of its own, and must not prevent this one from switching the other kind.
    """
    classifier, encoder = (read_champion(connection, kind) for kind in ("classifier", "encoder"))
    if classifier and classifier.model_version_id == live.classifier_version_id:
        targets = replace(targets, classifier_version_id=classifier.model_version_id)
    if encoder and encoder.model_version_id == live.encoder_version_id and live.space_id is not None:
        targets = replace(targets, encoder_version_id=encoder.model_version_id, space_id=live.space_id)
    return targets


def is_superseded(connection: Connection, targets: RunModels) -> bool:
    """Return whether a target of a retag is no longer the champion."""
    champions = (read_champion(connection, kind) for kind in ("classifier", "encoder"))
    wanted = (targets.classifier_version_id, targets.encoder_version_id)
    return tuple(champion and champion.model_version_id for champion in champions) != wanted


def find_missing_results(
    connection: Connection, targets: RunModels, switches: tuple[Switch, ...]
) -> MissingResults | None:
    """Return what the targets have not processed, or None if they can go live. Exact only under `lock_for_switch`."""
    images = count_unprocessed(connection, targets.classifier_version_id, targets.space_id)
    has_new_encoder = any(switch.kind == "encoder" for switch in switches)
    texts = count_missing_texts(connection, targets.encoder_version_id) if has_new_encoder else 0
    return MissingResults(images, texts) if images or texts else None


def switch_models(
    connection: Connection,
    targets: RunModels,
    live: LiveModels,
    switches: tuple[Switch, ...],
    agreement: NeighborAgreement | None,
    failed_share_limit: float,
) -> None:
    """Switch in the caller's transaction, which must hold the locks of `lock_for_switch`.

    Raises:
        RefusedError: more images would lose their result than the limit allows.
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
            reference = count_catalog_predictions(connection, switch.model_version_id)
            upsert_drift_reference(connection, switch.model_version_id, reference, "catalog")
        else:
            assert live.space_id is not None
            losses = count_lost_vectors(connection, live.space_id, targets.space_id)
            _check_losses(switch, losses, failed_share_limit)
            report = asdict(losses) | ({"neighbor_agreement": asdict(agreement)} if agreement else {})
            make_space_live(connection, targets.space_id, report)


def _check_losses(switch: Switch, losses: Losses, limit: float) -> None:
    if losses.lost > limit * losses.processed:
        raise RefusedError(
            f"{switch.kind} {switch.model_version_id} does not go live: {losses.lost} of {losses.processed} images "
            f"with results of {switch.kind} {switch.replaced_version_id} failed with it, more than the {limit:.1%} of "
            "CATALOG_FAILED_SHARE_LIMIT: see the view catalog.item_failure_summary"
        )


def embed_stored_texts(connections: Connections, encoder_version_id: int) -> None:
    """Embed every stored text that an encoder has not embedded yet. Load the encoder only if there is such a text.

    If a call is killed, the next one continues.

    Raises:
        RefusedError: the checkpoint is not the one that was registered.
    """
    with connections.engine.connect() as connection:
        missing = count_missing_texts(connection, encoder_version_id)
    if not missing:
        return
    log.info("embedding %d stored texts with encoder %d", missing, encoder_version_id)
    embedder = load_text_embedder(connections, encoder_version_id)
    while True:
        with connections.engine.begin() as connection:
            texts = list_missing_texts(connection, encoder_version_id, TEXT_BATCH_SIZE)
            if not texts:
                return
            insert_text_vectors(connection, encoder_version_id, texts, embedder.embed(texts))
