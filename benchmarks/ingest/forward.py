"""Measure the bare forward pass of two models on prepared images, which is the upper limit of a pipeline's speed.

    python -m benchmarks.ingest.forward CLASSIFIER ENCODER SECONDS

Uses the engine and precision stored in the model folders, and as many concurrent passes as the tagging job.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jobs.models.engine import EngineSettings
from jobs.models.predictor import load_predictor

WARM_UP_SECONDS = 1.0


def measure_forward(classifier: Path, encoder: Path, seconds: float) -> float:
    """Return the images per second that both models process together."""
    predictor = load_predictor(classifier, encoder, EngineSettings("auto", "auto"))
    random = np.random.default_rng(0)
    image = tuple(
        random.integers(0, 256, (geometry.crop_to, geometry.crop_to, 3), dtype=np.uint8)
        for geometry in predictor.geometries
    )

    def forward_until(deadline: float) -> int:
        images = 0
        while time.perf_counter() < deadline:
            predictor.predict([image] * predictor.batch_size, tag=True, embed=True)
            images += predictor.batch_size
        return images

    with ThreadPoolExecutor(predictor.passes) as pool:
        list(pool.map(forward_until, [time.perf_counter() + WARM_UP_SECONDS] * predictor.passes))
        started = time.perf_counter()
        images = sum(pool.map(forward_until, [started + seconds] * predictor.passes))
        return images / (time.perf_counter() - started)


if __name__ == "__main__":
    classifier, encoder, seconds = sys.argv[1:4]
    print(json.dumps(measure_forward(Path(classifier), Path(encoder), float(seconds))))
