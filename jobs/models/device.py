"""Choose the device and precision of the forward pass."""

import threading
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import cast

import torch

from jobs.cores import count_cores
from jobs.database.model_builds import Precision
from jobs.errors import ConfigurationError
from jobs.models.image_model import choose_float

PRECISIONS: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CPU_FEATURES: dict[Precision, frozenset[str]] = {
    "bf16": frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    "fp16": frozenset({"avx512_fp16", "amx_fp16"}),
}
"""Instruction sets, as torch names them, that support a precision natively. One of them suffices."""

_streams = threading.local()


@dataclass(frozen=True)
class Device:
    """A torch device and the dtype of weights and activations on it."""

    torch_device: torch.device
    dtype: torch.dtype

    @property
    def is_cuda(self) -> bool:
        """Whether this is a GPU. Batches must then be copied to it."""
        return self.torch_device.type == "cuda"

    @property
    def precision(self) -> Precision:
        """Name of the dtype."""
        return next(name for name, dtype in PRECISIONS.items() if dtype is self.dtype)

    def describe(self) -> str:
        """Return the name of the GPU."""
        return torch.cuda.get_device_name(self.torch_device)

    def in_precision(self, precision: Precision) -> "Device":
        """Return the same device with another precision."""
        return replace(self, dtype=PRECISIONS[precision])

    @property
    def batch_size(self) -> int:
        """Default number of images in a forward pass.

        A GPU needs many to be busy. On a CPU, the activations of a small batch fit into the caches and take less
        memory.
        """
        return 64 if self.is_cuda else 16


def choose_device(device: str, precision: str, index: int = 0) -> Device:
    """Resolve ``auto`` to a GPU if there is one, and to 16 bits if the hardware supports them natively.

    A CPU without native support for the precision uses float32. ``index``, modulo the number of GPUs, selects one of
    them, so tasks are distributed over all.

    Raises:
        ConfigurationError: the value is invalid, or this machine has no GPU.
    """
    if device not in {"auto", "cpu", "cuda"}:
        raise ConfigurationError(f"CATALOG_DEVICE={device}: must be auto, cpu or cuda")
    if precision not in {"auto", "int8", *PRECISIONS}:
        raise ConfigurationError(f"CATALOG_PRECISION={precision}: must be auto, int8, {', '.join(PRECISIONS)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("CATALOG_DEVICE=cuda, but torch finds no GPU. Check the driver, or set it to auto")
    name = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if name == "cpu":
        native = list_native_precisions(torch.cpu.get_capabilities(), list_onednn_precisions())
        return Device(torch.device("cpu"), PRECISIONS[choose_cpu_precision(precision, native)])
    # Only OpenVINO builds have int8.
    dtype = _native_gpu_dtype() if precision in {"auto", "int8"} else PRECISIONS[cast(Precision, precision)]
    return Device(torch.device("cuda", index % torch.cuda.device_count()), dtype)


def list_native_precisions(features: Mapping[str, object], onednn: Collection[Precision]) -> tuple[Precision, ...]:
    """Return the 16-bit precisions for which the CPU has instructions that torch uses.

    ``features`` are the features of the processor, ``onednn`` the precisions that the kernel library may use.
    """
    return tuple(
        precision
        for precision, names in CPU_FEATURES.items()
        if precision in onednn and any(features.get(name) for name in names)
    )


def choose_cpu_precision(precision: str, native: Collection[Precision]) -> Precision:
    """Return the precision that a CPU uses if ``precision`` is requested."""
    if precision in {"auto", "int8"}:
        return "bf16" if "bf16" in native else "fp32"
    return choose_float(cast(Precision, precision), native)


def list_onednn_precisions() -> tuple[Precision, ...]:
    """Return the 16-bit precisions of oneDNN. Unlike the CPU features, they respect ONEDNN_MAX_CPU_ISA."""
    supported: dict[Precision, bool] = {
        "bf16": torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        "fp16": torch.ops.mkldnn._is_mkldnn_fp16_supported(),
    }
    return tuple(precision for precision, is_supported in supported.items() if is_supported)


def prepare_passes(device: Device) -> int:
    """Return the number of batches to run concurrently. On a CPU, also limit torch to one thread per pass.

    On a GPU it is two: one is copied while the other is computed. On a CPU it is one per core: several threads in one
    pass would wait for each other whenever decoding uses a core.
    """
    if device.is_cuda:
        return 2
    torch.set_num_threads(1)
    return count_cores()


def use_own_stream(device: Device) -> AbstractContextManager[object]:
    """Use one CUDA stream per thread. A batch can then be copied while another thread's batch is computed."""
    if not device.is_cuda:
        return nullcontext()
    streams: dict[torch.device, torch.cuda.Stream] = _streams.__dict__.setdefault("by_device", {})
    stream = streams.get(device.torch_device) or torch.cuda.Stream(device.torch_device)  # type: ignore[no-untyped-call]
    streams[device.torch_device] = stream
    return torch.cuda.stream(stream)


def _native_gpu_dtype() -> torch.dtype:
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
