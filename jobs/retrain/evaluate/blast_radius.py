"""Measure which categories a candidate would change in the live catalog."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from jobs.connections import Connections
from jobs.database.images import LiveTag, sample_live_tags
from jobs.failures import ReadReason
from jobs.images.decode import MIN_SIDE_PIXELS, DecodedImage, DecodeLimits, decode_image
from jobs.images.thumbnails import make_thumbnail
from jobs.progress import SILENT, Progress
from jobs.retrain.evaluate.evaluation_record import MAX_THUMBNAILS, BlastRadius, Flip
from jobs.retrain.evaluate.scores import ClassifierPredictions
from jobs.retrain.evaluate.served_model import ServedModel
from jobs.storage.locations import S3Uri

log = logging.getLogger(__name__)

SAMPLE_IMAGES = 500
MIN_SHARE_READ = 0.5
"""If a smaller share of the sample can be read, the blast radius is unknown, and its gate fails."""


@dataclass(frozen=True)
class CatalogChange:
    """The number of images that would change their category, and a list of them, sorted by falling confidence."""

    blast_radius: BlastRadius
    flips: tuple[Flip, ...]


@dataclass(frozen=True)
class _LiveImage:
    """An image from the bucket: resized for the candidate, and as a thumbnail."""

    tag: LiveTag
    pixels: torch.Tensor
    thumbnail: str


def measure_blast_radius(
    connections: Connections, candidate: ServedModel, images: int = SAMPLE_IMAGES, progress: Progress = SILENT
) -> CatalogChange | None:
    """Compare the candidate's predictions with the live tags on a sample of the catalog.

    Images that were deleted or replaced after they were tagged are left out. Returns None if no image has a tag, if
    less than half of the sample can be read, or if a prediction contains NaN.
    """
    with connections.engine.connect() as connection:
        tags = sample_live_tags(connection, images)
    with ThreadPoolExecutor(connections.settings.compute.read_threads) as pool:
        read = pool.map(partial(_load_image, connections, candidate), tags)
        loaded = list(progress.track("reading images of the catalog", read, len(tags)))
    readable = [image for image in loaded if image is not None]
    if len(readable) < MIN_SHARE_READ * len(tags):
        log.warning("only %d of %d sampled catalog images can be read", len(readable), len(tags))
        return None
    if not readable:
        return None
    probabilities = candidate.predict_in_batches(
        readable, lambda batch: torch.stack([image.pixels for image in batch]), progress
    )
    if not np.isfinite(probabilities).all():
        return None
    flips = _find_flips(readable, ClassifierPredictions(probabilities, candidate.categories))
    return CatalogChange(BlastRadius(len(readable), len(flips)), flips)


def _load_image(connections: Connections, candidate: ServedModel, tag: LiveTag) -> _LiveImage | None:
    settings = connections.settings
    content = connections.store.read_unchanged(
        S3Uri(tag.bucket, tag.object_key), tag.etag, settings.images.max_object_bytes
    )
    if isinstance(content, ReadReason):
        return None
    limits = DecodeLimits(settings.images.max_pixels, MIN_SIDE_PIXELS, target_side=2 * candidate.geometry.resize_to)
    decoded = decode_image(content, limits)
    if not isinstance(decoded, DecodedImage):
        return None
    return _LiveImage(tag, candidate.geometry.apply(decoded.pixels), make_thumbnail(decoded.pixels))


def _find_flips(images: Sequence[_LiveImage], predictions: ClassifierPredictions) -> tuple[Flip, ...]:
    flips = [
        Flip(
            image_id=image.tag.image_id,
            object_key=image.tag.object_key,
            product_id=image.tag.product_id,
            old_category=image.tag.category,
            old_confidence=image.tag.confidence,
            new_category=category,
            new_confidence=float(confidence),
            thumbnail=image.thumbnail,
        )
        for image, category, confidence in zip(images, predictions.best, predictions.confidence, strict=True)
        if category is not None and category != image.tag.category
    ]
    ranked = sorted(flips, key=lambda flip: (-flip.new_confidence, flip.image_id))
    return tuple(flip if place < MAX_THUMBNAILS else replace(flip, thumbnail=None) for place, flip in enumerate(ranked))
