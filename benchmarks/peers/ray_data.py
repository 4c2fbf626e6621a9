"""Run Ray Data: `read_images`, then `map_batches` on an actor with both models. `measurement` defines what is timed.

Each data set starts its own actor. No image is read before the actor is ready, and the actor reports this time.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.measurement import BATCH_SIZE, Prediction, TimedPredictions, Work, measure_peer, read_clock

ACTOR_START_SECONDS = 120


class Actor:
    """Runs both models on all cores. By default, Ray limits an actor to one thread; reading needs little CPU."""

    def __init__(self, classifier: Path, encoder: Path, dtype: str, threads: int) -> None:
        import torch

        from benchmarks.peers.two_models import TwoModels, TwoProcessors

        torch.set_num_threads(threads)
        self.processors = TwoProcessors.load(classifier, encoder)
        self.models = TwoModels.load(classifier, encoder, dtype)
        self.ready = read_clock()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        predictions = self.models.predict(self.processors.prepare(batch["image"]))
        return {
            "path": batch["path"],
            "category": [prediction.category for prediction in predictions],
            "confidence": [prediction.confidence for prediction in predictions],
            "vector": [prediction.vector for prediction in predictions],
            "ready": [self.ready] * len(predictions),
        }


def tag(work: Work) -> TimedPredictions:
    """Start Ray on this machine, predict, and stop it."""
    # Without this variable, Ray leaves a token in the home folder.
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex()
    import ray

    # In the system's temporary folder, because the paths of sockets must be short.
    folder = tempfile.mkdtemp(prefix="ray-")
    try:
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
            runtime_env={"env_vars": {"PYTHONPATH": str(Path.cwd())}},
        )
        # Do not read any images before the actor is ready.
        ray.data.DataContext.get_current().wait_for_min_actors_s = ACTOR_START_SECONDS
        _predict(work, work.warm_up)
        return _predict(work, work.images)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _predict(work: Work, images: Sequence[Path]) -> TimedPredictions:
    import ray

    cores = len(os.sched_getaffinity(0))
    rows = (
        ray.data.read_images([str(image) for image in images], mode="RGB", include_paths=True)
        .map_batches(
            Actor,
            fn_constructor_args=(work.classifier, work.encoder, work.dtype, cores),
            batch_size=BATCH_SIZE,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        .take_all()
    )
    predictions = {Path(row["path"]): Prediction(row["category"], row["confidence"], row["vector"]) for row in rows}
    return TimedPredictions(predictions, read_clock() - max(row["ready"] for row in rows))


if __name__ == "__main__":
    measure_peer(tag, ["ray", "torch", "transformers", "pyarrow", "pillow"])
