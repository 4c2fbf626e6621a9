"""Run queries through the live models."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np

from jobs.errors import RetryableError
from jobs.failures import DecodeReason
from jobs.images.decode import MIN_SIDE_PIXELS, DecodeFailure, DecodeLimits, prepare_image
from jobs.images.decode_pool import DecodePool
from jobs.images.geometry import Geometry
from jobs.search.by_text import find_text_problem
from jobs.serve.client import Classification, EmbeddedQuery
from jobs.serve.follower import FollowedModel, LiveModelFollower, Served
from jobs.serve.metrics import ServiceMetrics
from jobs.serve.requests import InvalidQueryError, UnavailableError
from jobs.settings import Settings


@dataclass(frozen=True)
class ServiceHealth:
    """The versions that serve requests (None until the first is loaded), and the problems with newer ones.

    The service is ready when it has loaded every live model. It needs a live encoder, but not a live classifier.
    """

    classifier: int | None
    encoder: int | None
    problems: tuple[str, ...]
    is_ready: bool


class QueryService:
    """Runs the queries. Methods raise RequestRefusedError if there is no result, and JobError if the model fails."""

    def __init__(
        self, follower: LiveModelFollower, pool: DecodePool, metrics: ServiceMetrics, settings: Settings
    ) -> None:
        self.metrics = metrics
        self._follower = follower
        self._pool = pool
        self._settings = settings
        # Two per decoding process, so the next image is already there while a result is being returned.
        self._decode_threads = ThreadPoolExecutor(2 * settings.compute.decode_processes, "decode")
        metrics.follow_version("classifier", lambda: self.describe_health().classifier or 0)
        metrics.follow_version("encoder", lambda: self.describe_health().encoder or 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._decode_threads.shutdown()
        self._follower.classifier.close()
        self._follower.encoder.close()

    async def embed_text(self, query_text: str) -> EmbeddedQuery:
        """Return the vector of a text in the live space."""
        if (problem := find_text_problem(query_text)) is not None:
            raise InvalidQueryError("unfit_text", problem)
        return await self._require(self._follower.encoder).texts.run(query_text)

    async def embed_image(self, content: bytes) -> EmbeddedQuery:
        """Return the vector of an image in the live space."""
        encoder = self._require(self._follower.encoder)
        return await encoder.images.run(await self._decode(content, encoder.geometry))

    async def classify(self, content: bytes) -> Classification:
        """Classify an image with the live classifier."""
        classifier = self._require(self._follower.classifier)
        return await classifier.images.run(await self._decode(content, classifier.geometry))

    def describe_health(self) -> ServiceHealth:
        """Describe what is loaded now."""
        follower = self._follower
        classifier, encoder = follower.classifier.served, follower.encoder.served
        # A catalog without labels has no classifier, which is not a problem.
        needs_classifier = encoder is None or follower.classifier.is_live
        followed = (follower.classifier, follower.encoder) if needs_classifier else (follower.encoder,)
        return ServiceHealth(
            classifier.model_version_id if classifier else None,
            encoder.live.model_version_id if encoder else None,
            self._list_problems(*followed),
            is_ready=encoder is not None and (classifier is not None or not needs_classifier),
        )

    def _require(self, followed: FollowedModel[Any, Served]) -> Served:
        if followed.served is None:
            raise UnavailableError("no_live_model", "; ".join(self._list_problems(followed)))
        return followed.served

    def _list_problems(self, *followed: FollowedModel[Any, Any]) -> tuple[str, ...]:
        problems = (self._follower.database_problem, *(model.problem for model in followed))
        return tuple(problem for problem in problems if problem)

    async def _decode(self, content: bytes, geometry: Geometry) -> np.ndarray:
        """Decode an image to uint8 pixels [side, side, 3] in a separate process, with the limits of the nightly run."""
        settings, served = self._settings, (self._follower.classifier.served, self._follower.encoder.served)
        # Like the nightly run, shrink while decoding to twice the largest resize target of all models.
        target_side = 2 * max(one.geometry.resize_to for one in served if one)
        limits = DecodeLimits(settings.images.max_pixels, MIN_SIDE_PIXELS, target_side=target_side)
        decode = partial(prepare_image, limits=limits, geometries=(geometry,))
        work = asyncio.get_running_loop().run_in_executor(self._decode_threads, self._pool.decode, decode, [content])
        try:
            (prepared,) = await work
        except RetryableError as error:
            raise UnavailableError(DecodeReason.DECODER_LOST, str(error)) from None
        if isinstance(prepared, DecodeFailure):
            refused = UnavailableError if prepared.reason is DecodeReason.DECODER_LOST else InvalidQueryError
            raise refused(prepared.reason, prepared.detail)
        pixels: np.ndarray = prepared.inputs[0]
        return pixels
