"""The process that reads pickled weights.

    python -m jobs.models.unpickle PARENT_PROCESS SECONDS SOURCE TARGET [SOURCE TARGET ...]

It writes each source as safetensors and prints a JSON list, one entry for each source, with the dtype, shape and hash
of every tensor that it read. It has no network, opens no further files, and its memory and time are bounded.
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
    """Enter a network namespace without interfaces, where the kernel and the container allow it.

    The user namespace that this takes also drops every capability, among them that of raising a hard limit. Only a
    process with a single thread may call this.
    """
    libc = ctypes.CDLL(None)
    libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def end_with(parent: int) -> None:
    """End this process when the one that started it ends, or at once if that has ended already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that started this one has ended")


def confine(seconds: int, more_memory_bytes: int, file_bytes: int) -> None:
    """Bound CPU time, memory beyond what is in use, and the size of files; allow no new file descriptor.

    A process without new descriptors can make no socket and open no file. It goes on with those that are open.
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
        sys.exit("its process cannot be kept from the network: run the job as another user than root")


def _read_private_memory() -> int:
    """The bytes that count against ``RLIMIT_DATA`` already."""
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
    """Convert what the arguments name; any fault ends the process with one line on standard error."""
    # First of all: importing torch starts threads.
    leave_network()
    parent, seconds, *paths = sys.argv[1:]
    end_with(int(parent))
    _import_lazy_modules()
    with ExitStack() as stack:
        pairs = [
            (stack.enter_context(Path(source).open("rb")), stack.enter_context(Path(target).open("xb")))
            for source, target in zip(paths[::2], paths[1::2], strict=True)
        ]
        # A tensor that is not contiguous is copied, and tensors that share their memory are written for each name.
        bound = 2 * max(Path(source).stat().st_size for source in paths[::2]) + MEMORY_MARGIN_BYTES
        confine(int(seconds), more_memory_bytes=bound, file_bytes=bound)
        try:
            reports = [_convert(source, target) for source, target in pairs]
        except Exception as error:  # noqa: BLE001 - whatever a file makes torch raise is a fault of that file
            sys.exit(_describe(error))
    print(json.dumps(reports))  # noqa: T201


def _import_lazy_modules() -> None:
    """Read a tensor in both formats of torch, since modules that are imported on first use are files to open."""
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
        raise TypeError(f"it holds a {type(weights).__name__} instead of tensors by their names")
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise TypeError(f"the entry {name!r} is a {type(tensor).__name__} and not a tensor")
        if tensor.dtype not in dtypes or tensor.layout is not torch.strided:
            raise TypeError(f"safetensors cannot hold {name}, which is {tensor.dtype} in the layout {tensor.layout}")
    return _write_safetensors(weights, target)


def _name_dtypes() -> dict[Any, str]:
    """The names that safetensors gives to the dtypes of weights."""
    import torch

    floats = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    integers = {torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"}
    return floats | integers | {torch.bool: "BOOL"}


def _write_safetensors(tensors: dict[str, Any], target: BinaryIO) -> dict[str, dict[str, Any]]:
    """Write the tensors one by one: the library would open the target by its name, or hold all of it in memory twice.

    The largest elements come first, so that each tensor starts at a multiple of the size of its elements.
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
    """One line, without the advice of torch to read the file unprotected."""
    found = REASON.search(str(error))
    return found[1] if found else next(iter(str(error).strip().splitlines()), type(error).__name__)


if __name__ == "__main__":
    main()
