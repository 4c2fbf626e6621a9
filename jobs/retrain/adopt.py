"""Adopt a base as the first champion encoder of a catalog that has no labels for training or evaluation."""

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sqlalchemy import Connection

from jobs.connections import Connections
from jobs.database.model_builds import insert_builds
from jobs.database.model_coverage import PromotionReport, report_champion
from jobs.database.model_versions import (
    ModelVersion,
    NewModelVersion,
    insert_model_version,
    read_champion,
    store_text_uri,
)
from jobs.database.promotions import NewPromotion, insert_promotion, lock_promotions, read_latest_promotion
from jobs.errors import RefusedError
from jobs.models.checkpoint import require_numbers, resolve_base
from jobs.models.device import choose_device
from jobs.models.encoder import load_text_encoder, load_towers
from jobs.models.image_model import ModelBuild
from jobs.models.preprocessing import Preprocessing
from jobs.models.registry import fetch_checkpoint, upload_build, upload_checkpoint
from jobs.models.torch_model import describe_checkpoint
from jobs.progress import show_progress
from jobs.retrain.evaluate.evaluation_record import EvaluationMetrics, ServingMetrics
from jobs.retrain.evaluate.served_model import ServedVersion, load_served_model
from jobs.retrain.evaluate.serving import measure_serving
from jobs.retrain.gates.findings import Evidence, Gate
from jobs.retrain.gates.gate_policy import GatePolicy
from jobs.retrain.gates.serving_gates import decide_failures, decide_memory
from jobs.retrain.optimize.optimize import describe_build, store_text
from jobs.retrain.optimize.options import open_options
from jobs.retrain.train.context import write_encoder
from jobs.scratch import open_scratch
from jobs.settings import Settings

log = logging.getLogger(__name__)

IMAGES = 8
"""Number of random noise images, for checks that do not need images of the shop."""
IMAGE_SIDE = 320
LENGTH_TOLERANCE = 1e-3
"""Maximum difference between the length of a vector and 1."""
GATES: tuple[Gate, ...] = (decide_failures, decide_memory)
"""The encoder gates that need no labels and do not depend on the speed of the machine."""


@dataclass(frozen=True)
class AdoptionReport:
    """The adopted champion, the reason stored with its promotion, and how this machine serves it."""

    base: str
    reason: str
    engine: str
    precision: str
    images_per_second: float | None
    peak_memory_bytes: int | None
    promotion: PromotionReport


def adopt_encoder(connections: Connections, base: str | None, adopted_by: str, policy: GatePolicy) -> AdoptionReport:
    """Register a base unchanged and promote it. If ``base`` is None, use the encoder base from the settings.

    A repeated call changes nothing. The encoder is served in float32, because the accuracy lost to a faster precision
    cannot be measured without labels. A refused base leaves no row in the catalog. Its uploaded artifacts, if any, are
    named by their hash and reused when the same base is adopted again.

    Raises:
        RefusedError: another encoder is already the champion, the base lacks a part of an encoder, or this machine
            cannot serve it.
        RetryableError: the database or the bucket is unavailable.
    """
    settings = connections.settings
    base = base or settings.training.encoder_base
    with connections.engine.connect() as connection:
        _refuse_other_champion(connection, base)
    with show_progress("adopt") as progress, open_scratch() as scratch:
        progress.report("reading the base")
        folder = resolve_base(base, "CATALOG_ENCODER_BASE", settings.locations.model_cache)
        served, build = _build(folder, settings, scratch)
        progress.report("measuring how the encoder is served")
        serving = _check(base, served, settings, policy, scratch)
        progress.report("uploading the checkpoint")
        uploaded = upload_checkpoint(connections.store, connections.artifacts, served.checkpoint, "encoder")
        build_uri = str(upload_build(connections.store, connections.artifacts, served.build))
        reason = (
            f"{_describe_adoption(base)} the catalog had no champion encoder, and without labels "
            f"there is no test set; it loads, gives unit vectors, and is served by {build.describe()}"
        )
        text_uri = store_text(connections, "encoder", served.checkpoint, scratch / "text")
        device = choose_device(settings.compute.device, "fp32")

        def register(connection: Connection) -> ModelVersion:
            version = insert_model_version(connection, uploaded)
            insert_builds(connection, [describe_build(version.model_version_id, build, device, build_uri)])
            if text_uri:
                store_text_uri(connection, version.model_version_id, text_uri)
            return version

        report = _promote(connections, base, uploaded, register, adopted_by, reason)
    log.info("encoder %d is the champion: %s", report.model_version_id, reason)
    return AdoptionReport(
        base=base,
        reason=reason,
        engine=build.engine,
        precision=build.precision,
        images_per_second=serving.images_per_second,
        peak_memory_bytes=serving.peak_memory_bytes,
        promotion=report,
    )


def _promote(
    connections: Connections,
    base: str,
    uploaded: NewModelVersion,
    register: Callable[[Connection], ModelVersion],
    adopted_by: str,
    reason: str,
) -> PromotionReport:
    """Register and promote the uploaded base, unless it is the champion already."""
    with connections.engine.begin() as connection:
        lock_promotions(connection)
        is_new = not _refuse_other_champion(connection, base, uploaded)
        if is_new:
            version = register(connection)
            log.info("reading encoder %d back from the bucket", version.model_version_id)
            # This also fills the local cache for the next run on this machine.
            fetch_checkpoint(connections.store, version, connections.settings.locations.model_cache)
            promotion = NewPromotion("encoder", version.model_version_id, None, None, adopted_by, reason)
            insert_promotion(connection, promotion)
        return report_champion(connection, "encoder", is_new=is_new)


def _describe_adoption(base: str) -> str:
    """Return the prefix of the promotion's reason. Later calls recognize the adopted base by it."""
    return f"adopted unchanged from {base}, without gates:"


def _refuse_other_champion(connection: Connection, base: str, uploaded: NewModelVersion | None = None) -> bool:
    """Return whether this base is the champion, and refuse if another encoder is.

    Without ``uploaded``, compare only the name of the base.

    Raises:
        RefusedError: another encoder is the champion.
    """
    champion, promotion = read_champion(connection, "encoder"), read_latest_promotion(connection, "encoder")
    if champion is None or promotion is None:
        return False
    is_same = promotion.reason.startswith(_describe_adoption(base))
    if not is_same or (uploaded and uploaded.weights_sha256 != champion.weights_sha256):
        raise RefusedError(
            f"encoder {champion.model_version_id} is already the champion, and only the first one is adopted without "
            "gates: import labels with texts and run `catalog retrain --kinds encoder`. Add "
            "`--encoder-epochs 0` to evaluate a base without training"
        )
    return True


def _build(base: Path, settings: Settings, scratch: Path) -> tuple[ServedVersion, ModelBuild]:
    """Write the checkpoint, and its build in float32 for this machine."""
    # Check this first, because its error messages are more specific.
    Preprocessing.from_checkpoint(base)
    towers = load_towers(base, torch.float32)
    require_numbers(towers, base)
    served = ServedVersion(scratch / "checkpoint", scratch / "build")
    write_encoder(towers, base, served.checkpoint)
    build = describe_checkpoint(served.checkpoint, "encoder")
    *_, option = open_options(served.checkpoint, build, settings.compute).list_floats()
    option.make(served.build)
    return served, option.build


def _check(base: str, served: ServedVersion, settings: Settings, policy: GatePolicy, scratch: Path) -> ServingMetrics:
    """Check everything that needs no labels, and return the serving measurements.

    Raises:
        RefusedError: a vector is not a unit vector, or a serving gate fails.
    """
    exact = choose_device(settings.compute.device, "fp32")
    images = _make_images()
    model = load_served_model(served.build, "encoder", exact)
    pixels = torch.stack([model.geometry.apply(image) for image in images])
    _require_unit_vectors(base, "images", model.predict(pixels))
    texts = load_text_encoder(served.checkpoint, exact).embed(["an image of a red dress", "hat"])
    _require_unit_vectors(base, "texts", texts)
    folder = scratch / "images"
    folder.mkdir()
    serving = measure_serving(served.build, "encoder", [_encode(image) for image in images], settings, folder)
    evidence = Evidence(EvaluationMetrics(serving=serving), has_champion=False, has_tagged_catalog=False)
    findings = [decide(evidence, policy) for decide in GATES]
    failed = [finding.sentence for finding in findings if finding.verdict == "failed"]
    if failed:
        raise RefusedError(f"{base} cannot be adopted: {'; '.join(failed)}")
    return serving


def _require_unit_vectors(base: str, subject: str, vectors: np.ndarray) -> None:
    # Negated, so NaN fails: comparisons with NaN are false.
    if not (np.abs(np.linalg.norm(vectors, axis=1) - 1) < LENGTH_TOLERANCE).all():
        raise RefusedError(f"{base} cannot be adopted: its vectors of {subject} do not have unit length")


def _make_images() -> Sequence[np.ndarray]:
    """Return uint8 RGB pixels [side, side, 3] of color noise."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8) for _ in range(IMAGES)]


def _encode(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG")
    return buffer.getvalue()
