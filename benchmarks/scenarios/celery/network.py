"""Simulate machines by network namespaces: each has an address of its own on a bridge, a host name, and a folder.

Everything happens in a network and mount namespace of this process, so the kernel removes all links and namespaces when
its last process ends, also after SIGKILL.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from jobs.local.services import stop_processes

HUB_ADDRESS = "10.77.0.1"
SUBNET = "10.77.0.0/24"
_BRIDGE = "hub"
_FIRST_NUMBER = 10
_ENTERED_VARIABLE = "NETWORK_IS_OWN"
_COMMAND_SECONDS = 30
_KILL_SECONDS = 5.0
_PRIVATE_FOLDER = 'mount --bind "$1" /mnt && mount -t tmpfs tmpfs "$2" && mkdir "$1" && mount --bind /mnt "$1"'
"""Hide the folders of all other machines."""


def find_missing_tools(*programs: str) -> str | None:
    """Return why no machines can be simulated here, or None."""
    if missing := [name for name in ("ip", "unshare", *programs) if shutil.which(name) is None]:
        return f"not installed: {', '.join(missing)}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False)
    return f"no network namespaces: {tried.stderr.strip()}" if tried.returncode else None


def enter_own_network(module: str) -> None:
    """Start this program again in a network and mount namespace of its own, under the same pid."""
    if _ENTERED_VARIABLE not in os.environ:
        os.environ[_ENTERED_VARIABLE] = "1"
        command = ["unshare", "--net", "--mount", sys.executable, "-m", module, *sys.argv[1:]]
        os.execvp(command[0], command)


@dataclass(frozen=True)
class Machine:
    """A simulated machine."""

    name: str
    address: str
    folder: Path

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Start a program, which sees no other machine's folder. Its output is in ``output.log``."""
        script = f'{_PRIVATE_FOLDER} && hostname "$3" && shift 3 && exec "$@"'
        own = (str(self.folder), str(self.folder.parent), self.name)
        inside = ("unshare", "--uts", "sh", "-c", script, "sh", *own, *command)
        with (self.folder / "output.log").open("ab") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, *inside],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def list_processes(self) -> list[psutil.Process]:
        """Return all processes of the machine."""
        processes = []
        for pid in _run("ip", "netns", "pids", self.name).split():
            with suppress(psutil.NoSuchProcess):
                processes.append(psutil.Process(int(pid)))
        return processes

    def kill(self) -> None:
        """End all processes at once, as a crash of the machine does."""
        # Repeated, because a process may fork while the list is read.
        deadline = time.monotonic() + _KILL_SECONDS
        while (processes := self.list_processes()) and time.monotonic() < deadline:
            stop_processes(processes, signal.SIGKILL, _KILL_SECONDS)

    def cut_off(self) -> None:
        """Take the link down. Packets are lost in both directions."""
        _run("ip", "link", "set", _name_link(self.name), "down")

    def reconnect(self) -> None:
        """Bring the link up again."""
        _run("ip", "link", "set", _name_link(self.name), "up")


@dataclass
class Network:
    """A bridge, which the calling process reaches as `HUB_ADDRESS`, and its machines."""

    folder: Path
    machines: list[Machine]

    def add_machine(self, prefix: str) -> Machine:
        """Add a machine with a new name and address, and an empty folder."""
        number = len(self.machines) + 1
        machine = Machine(f"{prefix}-{number}", f"10.77.0.{_FIRST_NUMBER + number}", self.folder / f"{prefix}-{number}")
        machine.folder.mkdir(parents=True)
        link = _name_link(machine.name)
        _run("ip", "netns", "add", machine.name)
        self.machines.append(machine)
        _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", machine.name)
        _run("ip", "link", "set", link, "master", _BRIDGE, "up")
        _run("ip", "-n", machine.name, "address", "add", f"{machine.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run("ip", "-n", machine.name, "link", "set", device, "up")
        return machine


@contextmanager
def open_network(folder: Path) -> Iterator[Network]:
    """Create the bridge. At the end, kill the processes of all machines and remove the machines.

    Call `enter_own_network` first. Otherwise, the links would be those of the host.
    """
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", _BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{HUB_ADDRESS}/24", "dev", _BRIDGE)
    _run("ip", "link", "set", _BRIDGE, "up")
    # The names of namespaces are files here, which would outlive them on the host.
    Path("/run/netns").mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
    network = Network(folder, [])
    try:
        yield network
    finally:
        for machine in network.machines:
            machine.kill()
            _run("ip", "netns", "delete", machine.name)
        _run("ip", "link", "delete", _BRIDGE)


def _name_link(machine: str) -> str:
    return f"to-{machine}"


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMMAND_SECONDS).stdout
