"""Take from this process what it does not need to turn the bytes of one file into those of another."""

import ctypes
import os
import resource
import signal
import socket
import sys
from pathlib import Path

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
