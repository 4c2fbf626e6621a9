"""The live models: load them, warm them up and run queries through them."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from jobs.connections import Connections
from jobs.database.model_versions import LiveEncoder, read_model_version
from jobs.images.geometry import Geometry
from jobs.models.builds import fetch_build
from jobs.models.engine import EngineSettings, load_image_model
from jobs.models.image_model import ImageModel
from jobs.models.predictor import rank_categories
from jobs.search.encoders import load_text_embedder
from jobs.serve.client import Classification, EmbeddedQuery, RankedCategory
from jobs.serve.metrics import ServiceMetrics

log = logging.getLogger(__name__)

TEXT_BATCH_SIZE = 8
GRAPH_BATCH_SIZE = 1
"""An OpenVINO graph has a fixed batch size and takes as long for one image as for a full batch. Batches of one give
about the same throughput as batches of eight, at an eighth of the latency (docs/decisions/query-service.md)."""

Query = TypeVar("Query")
Result = TypeVar("Result")


class BatchRunner(Generic[Query, Result]):
    """Run queries through one model, with one thread for each pass that it can compute in parallel.

    A query starts at once if a pass is free. Waiting queries share the next pass, up to ``batch_size`` of them.
    Threads and model are freed with the last reference to the runner.
    """

    def __init__(
        self,
        predict: Callable[[Sequence[Query]], Sequence[Result]],
        passes: int,
        batch_size: int,
        observe_batch: Callable[[int], object],
    ) -> None:
        self._predict = predict
        self._batch_size = batch_size
        self._observe_batch = observe_batch
        self._waiting: deque[tuple[Query, Future[Result]]] = deque()
        self._threads = ThreadPoolExecutor(passes, "predict")

    async def run(self, query: Query) -> Result:
        """Return the result of a query, or raise the error that the model raises for its batch.

        A query that is cancelled before its pass starts is not computed.
        """
        future = Future[Result]()
        self._waiting.append((query, future))
        self._threads.submit(self._run_pass)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Finish the waiting queries and stop the threads."""
        self._threads.shutdown()

    def _run_pass(self) -> None:
        """Run the waiting queries, if any. Each query submits a pass, but an earlier pass may already have taken it."""
        batch: list[tuple[Query, Future[Result]]] = []
        try:
            while len(batch) < self._batch_size:
                query, future = self._waiting.popleft()
                if future.set_running_or_notify_cancel():
                    batch.append((query, future))
        except IndexError:
            if not batch:
                return
        self._observe_batch(len(batch))
        try:
            results = self._predict([query for query, _ in batch])
        except Exception as error:  # noqa: BLE001 - raised again in each request of the batch
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)


@dataclass(frozen=True)
class ServedClassifier:
    """A loaded classifier. Its runner takes uint8 pixels [side, side, 3]."""

    model_version_id: int
    geometry: Geometry
    images: BatchRunner[np.ndarray, Classification]

    def close(self) -> None:
        """End its threads."""
        self.images.close()


@dataclass(frozen=True)
class ServedEncoder:
    """Both towers of a loaded encoder. The runner of the image tower takes uint8 pixels [side, side, 3]."""

    live: LiveEncoder
    geometry: Geometry
    images: BatchRunner[np.ndarray, EmbeddedQuery]
    texts: BatchRunner[str, EmbeddedQuery]

    def close(self) -> None:
        """End its threads."""
        self.images.close()
        self.texts.close()


def load_served_classifier(
    connections: Connections, model_version_id: int, metrics: ServiceMetrics
) -> ServedClassifier:
    """Load a classifier and warm it up with a first pass, which takes longer than later ones.

    Raises:
        PermanentError: the checkpoint differs from the registered one, or this machine cannot run it.
        RetryableError: the database or the bucket is unavailable.
    """
    model = _load_image_model(connections, model_version_id)

    def classify(images: Sequence[np.ndarray]) -> list[Classification]:
        return [_classify(row) for row in model.predict(np.stack(images))]

    def _classify(probabilities: np.ndarray) -> Classification:
        top_3 = tuple(RankedCategory(*ranked) for ranked in rank_categories(probabilities, model.categories))
        return Classification(model_version_id, top_3[0].category, top_3[0].confidence, top_3)

    classify([_make_blank_image(model.geometry)])
    log.info("serving classifier %d (%s)", model_version_id, model.description)
    runner = _make_image_runner(model, classify, metrics.batch_sizes.labels("classify").observe)
    return ServedClassifier(model_version_id, model.geometry, runner)


def load_served_encoder(connections: Connections, live: LiveEncoder, metrics: ServiceMetrics) -> ServedEncoder:
    """Load both towers of an encoder and warm them up. Raises the same errors as `load_served_classifier`."""
    # Importing torch takes seconds. Imported here, so the service can already report its health.
    from jobs.models.device import choose_device, prepare_passes

    model = _load_image_model(connections, live.model_version_id)
    embedder = load_text_embedder(connections, live.model_version_id)

    def embed_images(images: Sequence[np.ndarray]) -> list[EmbeddedQuery]:
        return label_vectors(model.predict(np.stack(images)))

    def embed_texts(texts: Sequence[str]) -> list[EmbeddedQuery]:
        return label_vectors(embedder.embed(texts))

    def label_vectors(vectors: np.ndarray) -> list[EmbeddedQuery]:
        return [EmbeddedQuery(live.model_version_id, live.space_id, tuple(vector.tolist())) for vector in vectors]

    embed_images([_make_blank_image(model.geometry)])
    embed_texts(["warm-up"])
    log.info("serving encoder %d of space %d (%s)", live.model_version_id, live.space_id, model.description)
    text_passes = prepare_passes(choose_device(connections.settings.compute.device, "fp32"))
    sizes = metrics.batch_sizes
    return ServedEncoder(
        live,
        model.geometry,
        _make_image_runner(model, embed_images, sizes.labels("embed_image").observe),
        BatchRunner(embed_texts, text_passes, TEXT_BATCH_SIZE, sizes.labels("embed_text").observe),
    )


def _load_image_model(connections: Connections, model_version_id: int) -> ImageModel:
    settings = connections.settings
    with connections.engine.connect() as connection:
        version = read_model_version(connection, model_version_id)
    _, folder = fetch_build(connections, version)
    how = EngineSettings(settings.compute.device, settings.compute.precision, pass_size=GRAPH_BATCH_SIZE)
    return load_image_model(folder, version.kind, how)


def _make_image_runner(
    model: ImageModel,
    predict: Callable[[Sequence[np.ndarray]], Sequence[Result]],
    observe_batch: Callable[[int], object],
) -> BatchRunner[np.ndarray, Result]:
    """Make a runner with half the batch size of the nightly run, where nobody waits for a single image."""
    return BatchRunner(predict, model.passes, max(1, model.batch_size // 2), observe_batch)


def _make_blank_image(geometry: Geometry) -> np.ndarray:
    return np.zeros((geometry.crop_to, geometry.crop_to, 3), dtype=np.uint8)
