"""Making a base the first champion encoder of a catalog that has no labels to train or judge one."""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sqlalchemy import Connection

from jobs.connections import Connections
from jobs.database.model_coverage import PromotionReport, report_champion
from jobs.database.model_versions import NewModelVersion, insert_model_version, read_champion
from jobs.database.promotions import NewPromotion, insert_promotion, lock_promotions, read_latest_promotion
from jobs.errors import RefusedError
from jobs.models.checkpoint import require_numbers, resolve_base
from jobs.models.device import choose_device
from jobs.models.encoder import load_text_encoder, load_towers
from jobs.models.image_model import ModelBuild, write_build
from jobs.models.preprocessing import Preprocessing
from jobs.models.registry import fetch_checkpoint, upload_checkpoint
from jobs.models.torch_model import describe_checkpoint
from jobs.retrain.evaluate.evaluation_record import EvaluationMetrics, Serving
from jobs.retrain.evaluate.served_model import load_served_model
from jobs.retrain.evaluate.serving import measure_serving
from jobs.retrain.gates.findings import Evidence, Gate
from jobs.retrain.gates.gate_policy import GatePolicy
from jobs.retrain.gates.serving_gates import decide_failures, decide_memory
from jobs.retrain.optimize.convert import convert_unless_torch, save_graph
from jobs.retrain.train.context import write_encoder
from jobs.scratch import open_scratch
from jobs.settings import Settings

log = logging.getLogger(__name__)

PHOTOS = 8
"""Of noise, for checks that need no photo of the shop."""
PHOTO_SIDE = 320
LENGTH_ERROR = 1e-3
"""By so much the length of a vector may differ from 1."""
GATES: tuple[Gate, ...] = (decide_failures, decide_memory)
"""Those of an encoder's gates that need no labels and do not depend on how fast the machine is."""


@dataclass(frozen=True)
class AdoptionReport:
    """The first champion of its kind: from which base, why without gates, and how it is served on this machine."""

    base: str
    reason: str
    engine: str
    precision: str
    images_per_second: float | None
    peak_memory_bytes: int | None
    promotion: PromotionReport


def adopt_encoder(connections: Connections, base: str | None, adopted_by: str, policy: GatePolicy) -> AdoptionReport:
    """Register a base as it is and promote it; without a ``base`` that of the settings. A second call changes nothing.

    It is served in float32, since nothing tells what a faster precision would cost. A refusal leaves nothing in the
    catalog; what it may leave in the artifacts is named by its hash, and is used when the same base is adopted again.

    Raises:
        RefusedError: another encoder is the champion already, the base is no whole encoder, or this machine
            cannot serve it.
        RetryableError: database or bucket away.
    """
    settings = connections.settings
    base = base or settings.training.encoder_base
    with connections.engine.connect() as connection:
        _refuse_other_champion(connection, base)
    folder = resolve_base(base, "CATALOG_ENCODER_BASE", settings.locations.model_cache)
    with open_scratch() as scratch:
        artifact = scratch / "artifact"
        production = _build(folder, artifact, settings)
        serving = _check(base, artifact, settings, policy, scratch)
        uploaded = upload_checkpoint(connections.store, connections.artifacts, artifact, "encoder")
        reason = (
            f"{_describe_adoption(base)} the catalog had no champion encoder, and without labels "
            f"there is no test set; it loads, gives unit vectors, and is served by {production.describe()}"
        )
        with connections.engine.begin() as connection:
            lock_promotions(connection)
            is_new = not _refuse_other_champion(connection, base, uploaded)
            if is_new:
                version = insert_model_version(connection, uploaded)
                log.info("reading encoder %d back from the bucket", version.model_version_id)
                # Into the cache, since the next run on this machine loads it from there.
                fetch_checkpoint(connections.store, version, settings.locations.model_cache)
                promotion = NewPromotion("encoder", version.model_version_id, None, None, adopted_by, reason)
                insert_promotion(connection, promotion)
            report = report_champion(connection, "encoder", is_new=is_new)
    log.info("encoder %d is the champion: %s", report.model_version_id, reason)
    return AdoptionReport(
        base=base,
        reason=reason,
        engine=production.engine,
        precision=production.precision,
        images_per_second=serving.images_per_second,
        peak_memory_bytes=serving.peak_memory_bytes,
        promotion=report,
    )


def _describe_adoption(base: str) -> str:
    """Begin the reason of a promotion, by which the adoption of a base is recognised later."""
    return f"adopted as it is from {base}, without gates:"


def _refuse_other_champion(connection: Connection, base: str, uploaded: NewModelVersion | None = None) -> bool:
    """Tell whether this base is the champion already, and refuse if another encoder is.

    Before its weights are known, the ``base`` alone is compared.

    Raises:
        RefusedError: another encoder is the champion.
    """
    champion, promotion = read_champion(connection, "encoder"), read_latest_promotion(connection, "encoder")
    if champion is None or promotion is None:
        return False
    is_same = promotion.reason.startswith(_describe_adoption(base))
    if not is_same or (uploaded and uploaded.weights_sha256 != champion.weights_sha256):
        raise RefusedError(
            f"encoder {champion.model_version_id} is the champion already, and only the first is adopted without "
            "gates: import labels with texts and run `python -m jobs retrain --kinds encoder`; with "
            "`--encoder-epochs 0` it takes a base as it is"
        )
    return True


def _build(base: Path, artifact: Path, settings: Settings) -> ModelBuild:
    """Write what is served: the checkpoint and, where there is no GPU, its graph of OpenVINO."""
    # First, since its errors name the fault.
    Preprocessing.from_checkpoint(base)
    towers = load_towers(base, torch.float32)
    require_numbers(towers, base)
    write_encoder(towers, base, artifact)
    production = describe_checkpoint(artifact, "encoder")
    graph = convert_unless_torch(
        artifact, "encoder", choose_device(settings.compute.device, "fp32"), settings.compute.engine
    )
    if graph:
        save_graph(graph, artifact)
        production = replace(production, engine="openvino")
    write_build(artifact, production)
    return production


def _check(base: str, artifact: Path, settings: Settings, policy: GatePolicy, scratch: Path) -> Serving:
    """Check all that needs no labels.

    Raises:
        RefusedError: a vector is not a unit vector, or a gate on serving fails; the message says which.
    """
    exact = choose_device(settings.compute.device, "fp32")
    photos = _make_photos()
    model = load_served_model(artifact, "encoder", exact)
    pixels = torch.stack([model.geometry.apply(photo) for photo in photos])
    _require_unit_vectors(base, "photos", model.predict(pixels))
    _require_unit_vectors(base, "texts", load_text_encoder(artifact, exact).embed(["a photo of a red dress", "hat"]))
    folder = scratch / "photos"
    folder.mkdir()
    serving = measure_serving(artifact, "encoder", [_encode(photo) for photo in photos], settings, folder)
    evidence = Evidence(EvaluationMetrics(serving=serving), has_champion=False, has_tagged_catalog=False)
    findings = [decide(evidence, policy) for decide in GATES]
    faults = [finding.sentence for finding in findings if finding.verdict == "failed"]
    if faults:
        raise RefusedError(f"{base} cannot be adopted: {'; '.join(faults)}")
    return serving


def _require_unit_vectors(base: str, subject: str, vectors: np.ndarray) -> None:
    # A comparison with NaN is false.
    if not (np.abs(np.linalg.norm(vectors, axis=1) - 1) < LENGTH_ERROR).all():
        raise RefusedError(f"{base} cannot be adopted: it gives {subject} vectors that are not of unit length")


def _make_photos() -> Sequence[np.ndarray]:
    """Uint8 RGB pixels [side, side, 3] of coloured noise."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (PHOTO_SIDE, PHOTO_SIDE, 3), dtype=np.uint8) for _ in range(PHOTOS)]


def _encode(photo: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG")
    return buffer.getvalue()
