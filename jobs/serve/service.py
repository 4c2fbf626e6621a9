"""Texts and photos become answers of the models that are live when they arrive."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from jobs.images.decode_pool import DecodePool
from jobs.search.by_text import find_text_fault
from jobs.serve.client import Classification, EmbeddedQuery
from jobs.serve.follower import FollowedModel, LiveModelFollower
from jobs.serve.metrics import ServiceMetrics
from jobs.serve.micro_batcher import MicroBatcher
from jobs.serve.photo_decoder import PhotoDecoder
from jobs.serve.requests import NotNowError, UnfitQuestionError
from jobs.serve.served_models import ServedClassifier, ServedEncoder
from jobs.settings import Settings


@dataclass(frozen=True)
class ServiceHealth:
    """The versions that answer, None before the first, and what keeps newer ones from it.

    The service is ready when it has loaded all that is live. That may be an encoder alone, but no classifier alone.
    """

    classifier: int | None
    encoder: int | None
    trouble: tuple[str, ...]
    is_ready: bool


class QueryService:
    """Methods raise RequestRefusedError where there is no answer, and JobError where a model cannot compute."""

    def __init__(self, follower: LiveModelFollower, pool: DecodePool, settings: Settings) -> None:
        self.metrics = ServiceMetrics()
        self._follower = follower
        self._decoder = PhotoDecoder(pool, settings)
        sizes = self.metrics.batch_sizes
        self._texts = MicroBatcher[str, EmbeddedQuery]("embed-text", sizes.labels("embed_text").observe)
        self._images = MicroBatcher[np.ndarray, EmbeddedQuery]("embed-image", sizes.labels("embed_image").observe)
        self._tags = MicroBatcher[np.ndarray, Classification]("classify", sizes.labels("classify").observe)
        self.metrics.follow_version("classifier", lambda: self.describe_health().classifier or 0)
        self.metrics.follow_version("encoder", lambda: self.describe_health().encoder or 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for part in (self._decoder, self._texts, self._images, self._tags):
            part.close()

    async def embed_text(self, query_text: str) -> EmbeddedQuery:
        """The vector of a text, by the encoder of the live space."""
        if (fault := find_text_fault(query_text)) is not None:
            raise UnfitQuestionError("unfit_text", fault)
        return await self._texts.ask(self._require_encoder().texts, query_text)

    async def embed_image(self, content: bytes) -> EmbeddedQuery:
        """The vector of a photo, by the encoder of the live space."""
        tower = self._require_encoder().images
        pixels = await self._decoder.prepare(content, tower.geometry, self._find_largest_side())
        return await self._images.ask(tower, pixels)

    async def classify(self, content: bytes) -> Classification:
        """The tag of a photo, by the live classifier."""
        classifier = self._require_classifier()
        pixels = await self._decoder.prepare(content, classifier.geometry, self._find_largest_side())
        return await self._tags.ask(classifier, pixels)

    def describe_health(self) -> ServiceHealth:
        """What answers now."""
        follower = self._follower
        classifier, encoder = follower.classifier.served, follower.encoder.served
        # A catalog without labels has no classifier, and nothing is wrong with it.
        needs_classifier = encoder is None or follower.classifier.is_live
        troubled = (follower.classifier, follower.encoder) if needs_classifier else (follower.encoder,)
        return ServiceHealth(
            classifier.model_version_id if classifier else None,
            encoder.live.model_version_id if encoder else None,
            self._list_trouble(*troubled),
            is_ready=encoder is not None and (classifier is not None or not needs_classifier),
        )

    def _require_classifier(self) -> ServedClassifier:
        followed = self._follower.classifier
        if followed.served is None:
            raise NotNowError("no_live_model", "; ".join(self._list_trouble(followed)))
        return followed.served

    def _require_encoder(self) -> ServedEncoder:
        followed = self._follower.encoder
        if followed.served is None:
            raise NotNowError("no_live_model", "; ".join(self._list_trouble(followed)))
        return followed.served

    def _list_trouble(self, *followed: FollowedModel[Any, Any]) -> tuple[str, ...]:
        words = (self._follower.database_trouble, *(model.trouble for model in followed))
        return tuple(word for word in words if word)

    def _find_largest_side(self) -> int:
        follower = self._follower
        sides = [follower.classifier.served.geometry.resize_to] if follower.classifier.served else []
        sides += [follower.encoder.served.images.geometry.resize_to] if follower.encoder.served else []
        return max(sides)
