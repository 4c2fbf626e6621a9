"""Where the forward pass runs and in which precision."""

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import cast

import torch

from jobs.errors import PermanentError
from jobs.models.production import Precision

PRECISIONS: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_streams = threading.local()


@dataclass(frozen=True)
class Device:
    """A torch device and the dtype of weights and activations on it."""

    torch_device: torch.device
    dtype: torch.dtype

    @property
    def is_cuda(self) -> bool:
        """Whether batches have to be copied to a GPU."""
        return self.torch_device.type == "cuda"

    @property
    def precision(self) -> Precision:
        """The name of the dtype."""
        return next(name for name, dtype in PRECISIONS.items() if dtype is self.dtype)

    def in_precision(self, precision: Precision) -> "Device":
        """The same device, computing in another precision."""
        return replace(self, dtype=PRECISIONS[precision])

    @property
    def batch_size(self) -> int:
        """Images in a forward pass, unless the settings name another number.

        A GPU wants many; on a CPU the activations of few stay in its caches, and the process stays small.
        """
        return 64 if self.is_cuda else 16


def choose_device(device: str, precision: str, index: int = 0) -> Device:
    """Resolve ``auto``: a GPU when there is one, 16 bits where the processor computes in them.

    ``index`` spreads tasks over several GPUs: it is taken modulo their number.

    Raises:
        PermanentError: the setting names what this machine has not got.
    """
    if device not in {"auto", "cpu", "cuda"}:
        raise PermanentError(f"CATALOG_DEVICE={device}: must be auto, cpu or cuda")
    if precision not in {"auto", "int8", *PRECISIONS}:
        raise PermanentError(f"CATALOG_PRECISION={precision}: must be auto, int8, {', '.join(PRECISIONS)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise PermanentError("CATALOG_DEVICE=cuda, but torch sees no GPU: check the driver, or set it to auto")
    name = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    # Torch has no int8 of ours: a production artifact of OpenVINO has.
    dtype = _native_dtype(name) if precision in {"auto", "int8"} else PRECISIONS[cast(Precision, precision)]
    if name == "cpu":
        return Device(torch.device("cpu"), dtype)
    return Device(torch.device("cuda", index % torch.cuda.device_count()), dtype)


def prepare_passes(device: Device) -> int:
    """The number of batches to predict at a time; on a CPU passes have a single thread from here on.

    For a GPU two: one is copied while the other is computed. On a CPU one for each core: threads inside one pass
    would wait for each other whenever decoding takes a core.
    """
    if device.is_cuda:
        return 2
    torch.set_num_threads(1)
    return len(os.sched_getaffinity(0))


def use_own_stream(device: Device) -> AbstractContextManager[object]:
    """On a GPU, a stream of this thread's own: one batch is copied while that of another thread is computed."""
    if not device.is_cuda:
        return nullcontext()
    streams: dict[torch.device, torch.cuda.Stream] = _streams.__dict__.setdefault("by_device", {})
    stream = streams.get(device.torch_device) or torch.cuda.Stream(device.torch_device)  # type: ignore[no-untyped-call]
    streams[device.torch_device] = stream
    return torch.cuda.stream(stream)


def _native_dtype(device: str) -> torch.dtype:
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    capabilities = torch.cpu.get_capabilities()
    return torch.bfloat16 if capabilities.get("avx512_bf16") or capabilities.get("bf16") else torch.float32
