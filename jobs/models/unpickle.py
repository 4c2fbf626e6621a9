"""Convert pickled weights to safetensors in a confined process.

    python -m jobs.models.unpickle PARENT_PROCESS SECONDS SOURCE TARGET [SOURCE TARGET ...]

It prints a JSON list with one entry per source: the dtype, shape and hash of every tensor. The process has no network,
opens no other files, and its memory and CPU time are limited.
"""

import ctypes
import hashlib
import io
import json
import os
import re
import resource
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38


def leave_network() -> None:
    """Enter a network namespace without interfaces, if the kernel and the container allow it.

    This requires a user namespace, which also drops all capabilities, including the one to raise hard limits. The
    process must have a single thread.
    """
    libc = ctypes.CDLL(None)
    libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def end_with(parent: int) -> None:
    """Kill this process when its parent ends, or exit now if the parent has already ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that started this one has ended")


def confine(seconds: int, more_memory_bytes: int, file_bytes: int) -> None:
    """Limit CPU time, additional memory and the size of files, and forbid new file descriptors.

    Without new descriptors, the process cannot create sockets or open files. Open descriptors keep working.
    """
    memory_bytes = _read_private_memory() + more_memory_bytes
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    if _has_network() or _can_raise_limits():
        sys.exit("the process cannot be isolated from the network. Run the job as a user other than root")


def _read_private_memory() -> int:
    """Return the bytes that already count against ``RLIMIT_DATA``."""
    status = Path("/proc/self/status").read_bytes()
    return int(status.partition(b"VmData:")[2].split()[0]) * 1024


def _has_network() -> bool:
    try:
        socket.socket().close()
    except OSError:
        return False
    return True


def _can_raise_limits() -> bool:
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    except (ValueError, OSError):
        return False
    return True


MEMORY_MARGIN_BYTES = 512 * 2**20
REASON = re.compile(
    r"(?:WeightsUnpickler error: |(?=Trying to load ))(.+?)(?: by default\b|\. Please |\.?$)", re.MULTILINE
)


def main() -> None:
    """Convert the files in the arguments. Any error ends the process with one line on standard error."""
    # Must come first, because importing torch starts threads.
    leave_network()
    parent, seconds, *paths = sys.argv[1:]
    end_with(int(parent))
    _import_lazy_modules()
    with ExitStack() as stack:
        pairs = [
            (stack.enter_context(Path(source).open("rb")), stack.enter_context(Path(target).open("xb")))
            for source, target in zip(paths[::2], paths[1::2], strict=True)
        ]
        # Twice the size, because non-contiguous tensors are copied and tensors that share memory are written per name.
        bound = 2 * max(Path(source).stat().st_size for source in paths[::2]) + MEMORY_MARGIN_BYTES
        confine(int(seconds), more_memory_bytes=bound, file_bytes=bound)
        try:
            reports = [_convert(source, target) for source, target in pairs]
        except Exception as error:  # noqa: BLE001 - any exception of torch is caused by the file
            sys.exit(_describe(error))
    print(json.dumps(reports))  # noqa: T201


def _import_lazy_modules() -> None:
    """Load a tensor in both torch formats, because modules that are imported on first use would open files later."""
    import torch

    for is_zip in (True, False):
        buffer = io.BytesIO()
        torch.save({"weight": torch.nn.Parameter(torch.zeros(1))}, buffer, _use_new_zipfile_serialization=is_zip)
        torch.load(io.BytesIO(buffer.getvalue()), map_location="cpu", weights_only=True)


def _convert(source: BinaryIO, target: BinaryIO) -> dict[str, dict[str, Any]]:
    import torch

    weights = torch.load(source, map_location="cpu", weights_only=True)
    dtypes = _name_dtypes()
    if not isinstance(weights, dict):
        raise TypeError(f"it contains a {type(weights).__name__} instead of named tensors")
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise TypeError(f"the entry {name!r} is a {type(tensor).__name__}, not a tensor")
        if tensor.dtype not in dtypes or tensor.layout is not torch.strided:
            raise TypeError(f"safetensors does not support {name}: {tensor.dtype} in the layout {tensor.layout}")
    return _write_safetensors(weights, target)


def _name_dtypes() -> dict[Any, str]:
    """Return the safetensors name of each supported dtype."""
    import torch

    floats = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    integers = {torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"}
    return floats | integers | {torch.bool: "BOOL"}


def _write_safetensors(tensors: dict[str, Any], target: BinaryIO) -> dict[str, dict[str, Any]]:
    """Write tensors one by one. The safetensors library would open the target by name or need twice the memory.

    Tensors with the largest elements come first, so each tensor starts at a multiple of its element size.
    """
    import torch

    dtypes = _name_dtypes()
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": dtypes[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    target.write(len(text).to_bytes(8, "little") + text)
    report = {}
    for name in names:
        content = tensors[name].detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        target.write(content)
        kind = {key: header[name][key] for key in ("dtype", "shape")}
        report[name] = kind | {"sha256": hashlib.sha256(content).hexdigest()}
    return report


def _describe(error: Exception) -> str:
    """Return the error in one line, without torch's advice to load the file unsafely."""
    found = REASON.search(str(error))
    return found[1] if found else next(iter(str(error).strip().splitlines()), type(error).__name__)


if __name__ == "__main__":
    main()
