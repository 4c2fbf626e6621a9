"""Measure a GPU and the stages that feed it: forward pass, prediction and decoding, without bucket and database.

    python -m benchmarks.ingest.gpu [--seconds 5] [--batches 64 256] [--decode-processes 16] [--decoders cpu gpu]

It also runs on a CPU, but the figures are then meaningless. The JPEGs are generated and in memory.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from benchmarks.images import make_jpegs
from benchmarks.models import write_checkpoints
from benchmarks.results import format_share, publish
from jobs.images.decode import Decode, DecodeFailure, DecodeLimits, PreparedImage, prepare_image
from jobs.images.decode_pool import DecodePool
from jobs.ingest.pipeline import StageTimer, map_ahead, run_in
from jobs.models.engine import EngineSettings
from jobs.models.predictor import ModelInputs, Predictor, load_predictor, rank_categories
from jobs.models.torch_model import TorchModel

WARM_UP_SECONDS = 1.0
IMAGES = 512


def main() -> None:
    """Measure each batch size and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--decode-processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--decoders", nargs="+", choices=["cpu", "gpu"], default=["cpu"])
    arguments = parser.parse_args()
    contents = make_jpegs(IMAGES)
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, DecodePool(arguments.decode_processes) as pool:
        checkpoints = write_checkpoints(Path(folder))
        predictor = load_predictor(checkpoints.classifier, checkpoints.encoder, EngineSettings("auto", "bf16"))
        for batch in arguments.batches:
            row: dict[str, str | float | None] = {
                "batch": batch,
                "forward pass": round(_measure_forward(predictor, batch, arguments.seconds)),
                "predicting threads": round(_measure_predict(predictor, batch, arguments.seconds)),
            }
            for name in arguments.decoders:
                decoder = {"cpu": "processes", "gpu": "GPU"}[name]
                decode = _choose_decoder(name, predictor, pool)
                speed, waited = _feed(predictor, decode, contents, batch, arguments.seconds)
                row[f"decode by {decoder}"] = round(_measure_decode(decode, contents, batch, arguments.seconds))
                row[f"both stages, {decoder}"] = round(speed)
                row[f"waiting for decoded images, {decoder}"] = format_share(waited)
            print(f"  {row}", flush=True)
            rows.append(row)
    device = f"one {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "no GPU"
    publish(
        "On a GPU",
        "Images per second on JPEGs of 400 x 533 in memory, without bucket and database: ResNet-18 and a CLIP ViT-B/32 "
        f"in bf16 on {device}, {arguments.seconds:.0f} s per figure, one run.",
        rows,
        packages=["torch", "transformers", "pillow"],
    )


def _choose_decoder(name: str, predictor: Predictor, pool: DecodePool) -> Decode:
    limits = DecodeLimits(100_000_000, 8, target_side=2 * predictor.largest_side)
    on_cpu = partial(pool.decode, partial(prepare_image, limits=limits, geometries=predictor.geometries))
    if name == "cpu":
        return on_cpu
    from jobs.ingest.decode_on_gpu import GpuDecoder, require_gpu

    return GpuDecoder(require_gpu("auto", 0), limits, predictor.geometries, on_cpu).decode


def _measure_forward(predictor: Predictor, batch: int, seconds: float) -> float:
    """Return the images per second of both models together. The pixels are on the device; batches run one at a time."""
    rates = []
    for model in (predictor.classifier, predictor.encoder):
        assert isinstance(model, TorchModel)
        side = model.geometry.crop_to
        pixels = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, device=model.device.torch_device)
        rates.append(_rate(partial(model.forward, pixels), batch, seconds))
    return 1 / sum(1 / rate for rate in rates)


def _rate(forward: Callable[[], object], batch: int, seconds: float) -> float:
    _repeat(forward, WARM_UP_SECONDS)
    started = time.perf_counter()
    count = _repeat(forward, seconds)
    return count * batch / (time.perf_counter() - started)


def _repeat(work: Callable[[], object], seconds: float) -> int:
    """Repeat for some time and return how often. Synchronize after every tenth call to keep the GPU's queue short."""
    deadline = time.perf_counter() + seconds
    for count in itertools.count(1):
        work()
        if count % 10 == 0 or not torch.cuda.is_available():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if time.perf_counter() > deadline:
                return count
    raise AssertionError


def _measure_predict(predictor: Predictor, batch: int, seconds: float) -> float:
    """Return the images per second of the predicting threads, for resized images in memory."""
    side_pixels = [torch.randint(0, 256, (g.crop_to, g.crop_to, 3), dtype=torch.uint8) for g in predictor.geometries]
    inputs = [tuple(pixels.numpy() for pixels in side_pixels)] * batch
    with ThreadPoolExecutor(predictor.passes) as pool:
        for duration in (WARM_UP_SECONDS, seconds):
            started = time.perf_counter()
            batches = _repeat_until(started + duration, inputs)
            predict = run_in(pool, partial(_predict, predictor))
            images = sum(map_ahead(predict, batches, predictor.passes + 1, lambda future: future.result()))
            rate = images / (time.perf_counter() - started)
    return rate


def _repeat_until(deadline: float, inputs: Sequence[ModelInputs]) -> Iterator[Sequence[ModelInputs]]:
    while time.perf_counter() < deadline:
        yield inputs


def _predict(predictor: Predictor, inputs: Sequence[ModelInputs]) -> int:
    """Predict, and rank the categories as the pipeline does. Return the number of images."""
    predictions = predictor.predict(inputs, tag=True, embed=True)
    assert predictions.probabilities is not None
    for row in predictions.probabilities:
        rank_categories(row, predictor.categories)
    return len(inputs)


def _measure_decode(decode: Decode, contents: Sequence[bytes], batch: int, seconds: float) -> float:
    """Return the images decoded per second, two batches at a time as in the pipeline."""
    with ThreadPoolExecutor(2) as stage:
        for duration in (WARM_UP_SECONDS, seconds):
            started = time.perf_counter()
            batches = _cut(contents, batch, started + duration)
            decoded = map_ahead(run_in(stage, decode), batches, 3, lambda future: future.result())
            images = sum(len(_require(inputs)) for inputs in decoded)
            rate = images / (time.perf_counter() - started)
    return rate


def _feed(
    predictor: Predictor, decode: Decode, contents: Sequence[bytes], batch: int, seconds: float
) -> tuple[float, float]:
    """Run both stages like `ShardPipeline`. Return images per second and the share of time spent waiting for images."""
    timer = StageTimer()
    with ExitStack() as stack:
        decoders = stack.enter_context(ThreadPoolExecutor(2))
        predictors = stack.enter_context(ThreadPoolExecutor(predictor.passes))
        for duration in (WARM_UP_SECONDS, seconds):
            timer.take()
            started = time.perf_counter()
            batches = _cut(contents, batch, started + duration)
            decoded = map_ahead(run_in(decoders, decode), batches, 3, timer.result_from("decode"))
            predict = run_in(predictors, partial(_predict, predictor))
            predicted = map_ahead(predict, map(_require, decoded), predictor.passes + 1, timer.result_from("forward"))
            images = sum(predicted)
            elapsed = time.perf_counter() - started
    return images / elapsed, timer.take()["decode"] / elapsed


def _cut(contents: Sequence[bytes], batch: int, deadline: float) -> Iterator[Sequence[bytes]]:
    endless = itertools.cycle(contents)
    while time.perf_counter() < deadline:
        yield list(itertools.islice(endless, batch))


def _require(inputs: Sequence[PreparedImage | DecodeFailure]) -> list[ModelInputs]:
    return [image.inputs for image in inputs if isinstance(image, PreparedImage)]


if __name__ == "__main__":
    main()
