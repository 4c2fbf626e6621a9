"""A GPU and what feeds it: the forward pass, the stages that predict and decode, without bucket and database.

    python -m benchmarks.ingest.gpu [--seconds 5] [--batches 64 256] [--decode-processes 16] [--decoders cpu gpu]

Runs on a CPU, too, where the figures say nothing. Photos are made up and lie in memory as JPEGs.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from benchmarks.machine import describe_machine
from benchmarks.made_up_photos import make_jpegs
from benchmarks.materials import Checkpoints, write_checkpoints
from jobs.images.decode import Decode, DecodeFailure, DecodeLimits, PreparedImage, prepare_image
from jobs.images.decode_pool import DecodePool
from jobs.ingest.pipeline import StageTimer, map_ahead, run_in
from jobs.models.image_model import EngineSettings
from jobs.models.predictor import ModelInputs, Predictor, load_predictor, rank_categories
from jobs.models.torch_model import TorchModel

WARM_UP_SECONDS = 1.0
PHOTOS = 512


def main() -> None:
    """Print one line of JSON for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--decode-processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--decoders", nargs="+", choices=["cpu", "gpu"], default=["cpu"])
    arguments = parser.parse_args()
    contents = make_jpegs(PHOTOS)
    _print("machine", describe_machine("torch", "transformers", "pillow") | {"gpu": _name_gpu()})
    _print("bytes of a photo", round(sum(map(len, contents)) / len(contents)))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, DecodePool(arguments.decode_processes) as pool:
        checkpoints = write_checkpoints(Path(folder))
        predictor = _load(checkpoints)
        for batch in arguments.batches:
            _print(f"bare forward, batches of {batch}", _measure_bare(predictor, batch, arguments.seconds))
            _print(f"predict, batches of {batch}", _measure_predict(predictor, batch, arguments.seconds))
        for name, batch in itertools.product(arguments.decoders, arguments.batches):
            decode = _choose_decoder(name, predictor, pool)
            _print(f"decode by {name}, batches of {batch}", _measure_decode(decode, contents, batch, arguments.seconds))
            _print(f"fed by {name}, batches of {batch}", _feed(predictor, decode, contents, batch, arguments.seconds))


def _load(checkpoints: Checkpoints) -> Predictor:
    return load_predictor(checkpoints.classifier, checkpoints.encoder, EngineSettings("auto", "bf16"))


def _choose_decoder(name: str, predictor: Predictor, pool: DecodePool) -> Decode:
    limits = DecodeLimits(100_000_000, 8, target_side=2 * predictor.largest_side)
    on_cpu = partial(pool.decode, partial(prepare_image, limits=limits, geometries=predictor.geometries))
    if name == "cpu":
        return on_cpu
    from jobs.ingest.decode_on_gpu import GpuDecoder, require_gpu

    return GpuDecoder(require_gpu("auto", 0), limits, predictor.geometries, on_cpu).decode


def _measure_bare(predictor: Predictor, batch: int, seconds: float) -> dict[str, float]:
    """Images per second of each model and of both, on pixels that lie on the device, one batch after the other."""
    models = {"classifier": predictor.classifier, "encoder": predictor.encoder}
    rates = {}
    for name, model in models.items():
        assert isinstance(model, TorchModel)
        side = model.geometry.crop_to
        pixels = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, device=model.device.torch_device)
        rates[name] = _rate(partial(model.forward, pixels), batch, seconds)
    return rates | {"both": 1 / sum(1 / rate for rate in rates.values())}


def _rate(forward: Callable[[], object], batch: int, seconds: float) -> float:
    _repeat(forward, WARM_UP_SECONDS)
    started = time.perf_counter()
    count = _repeat(forward, seconds)
    return count * batch / (time.perf_counter() - started)


def _repeat(work: Callable[[], object], seconds: float) -> int:
    """How often it was done; a GPU is waited for at every tenth, so that little is queued."""
    deadline = time.perf_counter() + seconds
    for count in itertools.count(1):
        work()
        if count % 10 == 0 or not torch.cuda.is_available():
            _synchronise()
            if time.perf_counter() > deadline:
                return count
    raise AssertionError


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _measure_predict(predictor: Predictor, batch: int, seconds: float) -> float:
    """Images per second of the threads that predict, on resized photos in memory."""
    side_pixels = [torch.randint(0, 256, (g.crop_to, g.crop_to, 3), dtype=torch.uint8) for g in predictor.geometries]
    photos = [tuple(pixels.numpy() for pixels in side_pixels)] * batch
    with ThreadPoolExecutor(predictor.passes) as pool:
        for duration in (WARM_UP_SECONDS, seconds):
            started = time.perf_counter()
            batches = _repeat_until(started + duration, photos)
            predict = run_in(pool, partial(_answer, predictor))
            images = sum(map_ahead(predict, batches, predictor.passes + 1, lambda future: future.result()))
            rate = images / (time.perf_counter() - started)
    return rate


def _repeat_until(deadline: float, photos: Sequence[ModelInputs]) -> Iterator[Sequence[ModelInputs]]:
    while time.perf_counter() < deadline:
        yield photos


def _answer(predictor: Predictor, photos: Sequence[ModelInputs]) -> int:
    """Images answered, ranked as the pipeline ranks them."""
    answers = predictor.predict(photos, tag=True, embed=True)
    assert answers.probabilities is not None
    for row in answers.probabilities:
        rank_categories(row, predictor.categories)
    return len(photos)


def _measure_decode(decode: Decode, contents: Sequence[bytes], batch: int, seconds: float) -> float:
    """Images per second of two batches at a time, as in the pipeline."""
    with ThreadPoolExecutor(2) as stage:
        for duration in (WARM_UP_SECONDS, seconds):
            started = time.perf_counter()
            batches = _cut(contents, batch, started + duration)
            decoded = map_ahead(run_in(stage, decode), batches, 3, lambda future: future.result())
            images = sum(len(_require(photos)) for photos in decoded)
            rate = images / (time.perf_counter() - started)
    return rate


def _feed(
    predictor: Predictor, decode: Decode, contents: Sequence[bytes], batch: int, seconds: float
) -> dict[str, object]:
    """Both stages as `ShardPipeline` joins them: images per second, and the share of time that each was waited for."""
    timer = StageTimer()
    with ExitStack() as stack:
        decoders = stack.enter_context(ThreadPoolExecutor(2))
        predictors = stack.enter_context(ThreadPoolExecutor(predictor.passes))
        for duration in (WARM_UP_SECONDS, seconds):
            timer.take()
            started = time.perf_counter()
            batches = _cut(contents, batch, started + duration)
            decoded = map_ahead(run_in(decoders, decode), batches, 3, timer.result_from("decode"))
            answer = run_in(predictors, partial(_answer, predictor))
            answered = map_ahead(answer, map(_require, decoded), predictor.passes + 1, timer.result_from("forward"))
            images = sum(answered)
            elapsed = time.perf_counter() - started
    waited = {name: round(value / elapsed, 3) for name, value in timer.take().items() if value}
    return {"images/s": images / elapsed, "waited for": waited}


def _cut(contents: Sequence[bytes], batch: int, deadline: float) -> Iterator[Sequence[bytes]]:
    endless = itertools.cycle(contents)
    while time.perf_counter() < deadline:
        yield list(itertools.islice(endless, batch))


def _require(photos: Sequence[PreparedImage | DecodeFailure]) -> list[ModelInputs]:
    return [photo.inputs for photo in photos if isinstance(photo, PreparedImage)]


def _name_gpu() -> str | None:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _print(name: str, figure: object) -> None:
    print(json.dumps({name: figure}), flush=True)


if __name__ == "__main__":
    main()
