"""What a candidate would change in the live catalog."""

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
from jobs.retrain.evaluate.evaluation_files import MAX_THUMBNAILS, Flip
from jobs.retrain.evaluate.evaluation_record import BlastRadius
from jobs.retrain.evaluate.scores import ClassifierAnswers
from jobs.retrain.evaluate.served_model import ServedModel
from jobs.storage.uri import S3Uri

log = logging.getLogger(__name__)

SAMPLE_IMAGES = 500
LEAST_SHARE_READ = 0.5
"""Of the sample; fewer photos say nothing of the catalog, and the gate fails without a value."""


@dataclass(frozen=True)
class CatalogChange:
    """How many images of a sample change, and which, those first of which the candidate is surest."""

    blast_radius: BlastRadius
    flips: tuple[Flip, ...]


@dataclass(frozen=True)
class _LivePhoto:
    """A photo as the bucket has it: resized for the candidate, and small for people."""

    tag: LiveTag
    pixels: torch.Tensor
    thumbnail: str


def measure_blast_radius(
    connections: Connections, candidate: ServedModel, images: int = SAMPLE_IMAGES, progress: Progress = SILENT
) -> CatalogChange | None:
    """Ask the candidate for a sample of the catalog; None where no image has a tag, or it answers no numbers, or so
    few photos can be read that they say nothing of the catalog.

    Images that vanished from the bucket or were replaced since their tag are left out.
    """
    with connections.engine.connect() as connection:
        tags = sample_live_tags(connection, images)
    with ThreadPoolExecutor(connections.settings.compute.read_threads) as pool:
        read = pool.map(partial(_load_photo, connections, candidate), tags)
        loaded = list(progress.track("reading photos of the catalog", read, len(tags)))
    photos = [photo for photo in loaded if photo is not None]
    if len(photos) < LEAST_SHARE_READ * len(tags):
        log.warning("of a sample of %d photos of the catalog only %d can be read", len(tags), len(photos))
        return None
    if not photos:
        return None
    probabilities = candidate.predict(torch.stack([photo.pixels for photo in photos]), progress)
    if not np.isfinite(probabilities).all():
        return None
    flips = _find_flips(photos, ClassifierAnswers(probabilities, candidate.categories))
    return CatalogChange(BlastRadius(len(photos), len(flips)), flips)


def _load_photo(connections: Connections, candidate: ServedModel, tag: LiveTag) -> _LivePhoto | None:
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
    return _LivePhoto(tag, candidate.geometry.apply(decoded.pixels), make_thumbnail(decoded.pixels))


def _find_flips(photos: Sequence[_LivePhoto], answers: ClassifierAnswers) -> tuple[Flip, ...]:
    flips = [
        Flip(
            image_id=photo.tag.image_id,
            object_key=photo.tag.object_key,
            product_id=photo.tag.product_id,
            old_category=photo.tag.category,
            old_confidence=photo.tag.confidence,
            new_category=category,
            new_confidence=float(confidence),
            thumbnail=photo.thumbnail,
        )
        for photo, category, confidence in zip(photos, answers.best, answers.confidence, strict=True)
        if category is not None and category != photo.tag.category
    ]
    ranked = sorted(flips, key=lambda flip: (-flip.new_confidence, flip.image_id))
    return tuple(flip if place < MAX_THUMBNAILS else replace(flip, thumbnail=None) for place, flip in enumerate(ranked))
