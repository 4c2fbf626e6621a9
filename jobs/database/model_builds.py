"""Queries on ``model_builds``: how each class of device runs a model version."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, text

from jobs.database.records import read_records, text_with_json

DeviceClass = Literal["cpu", "cuda"]
EngineName = Literal["torch", "openvino"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
BUILD_HOURS = 2
"""Maximum time to make the builds of a version. A CLIP takes minutes."""
FASTEST_FIRST: tuple[Precision, ...] = ("int8", "bf16", "fp16", "fp32")


@dataclass(frozen=True)
class NewBuild:
    """A build to register. A rejected one has no artifact, but the criteria of the fidelity gate that it failed."""

    model_version_id: int
    device_class: DeviceClass
    engine: EngineName
    precision: Precision
    artifact_uri: str | None
    fidelity: dict[str, Any] | None
    losses: Sequence[str]
    machine: str


@dataclass(frozen=True)
class RegisteredBuild:
    """A build of a version. ``fidelity`` is None if it was not compared with float32."""

    build_id: int
    model_version_id: int
    device_class: DeviceClass
    engine: EngineName
    precision: Precision
    artifact_uri: str | None
    fidelity: dict[str, Any] | None
    losses: tuple[str, ...]
    machine: str

    def describe(self) -> str:
        """Return engine, precision and device as text."""
        return f"{self.engine} {self.precision} on {self.device_class}"


@dataclass(frozen=True)
class BuildChoice:
    """Which builds a process may use. Without ``engine`` it may use any, without ``precision`` the fastest."""

    device_class: DeviceClass
    engine: EngineName | None = None
    precision: Precision | None = None

    def matches(self, build: "RegisteredBuild | NewBuild") -> bool:
        """Return whether a build is one of those, admitted or not."""
        return (
            self.device_class == build.device_class
            and self.engine in {None, build.engine}
            and self.precision in {None, build.precision}
        )


def choose_build(builds: Sequence[RegisteredBuild], choice: BuildChoice) -> RegisteredBuild | None:
    """Return the fastest admitted build that a process may use.

    If the requested build was rejected, take the next slower precision, then another engine. None means that the
    requested build was never made.
    """
    if not any(map(choice.matches, builds)):
        return None
    own = [one for one in builds if one.device_class == choice.device_class]
    first = FASTEST_FIRST.index(choice.precision) if choice.precision else 0
    admitted = [one for one in own if one.artifact_uri and one.precision in FASTEST_FIRST[first:]]

    def rank(build: RegisteredBuild) -> tuple[bool, int, str]:
        return choice.engine not in {None, build.engine}, FASTEST_FIRST.index(build.precision), build.engine

    return min(admitted, key=rank, default=None)


def insert_builds(connection: Connection, builds: Sequence[NewBuild]) -> None:
    """Register builds. One that is registered already gets the new artifact and figures."""
    statement = """
        INSERT INTO catalog.model_builds (model_version_id, device_class, engine, precision, artifact_uri,
            fidelity, losses, machine)
        VALUES (:model_version_id, :device_class, :engine, :precision, :artifact_uri, :fidelity, :losses, :machine)
        ON CONFLICT (model_version_id, device_class, engine, precision) DO UPDATE
        SET artifact_uri = excluded.artifact_uri, fidelity = excluded.fidelity, losses = excluded.losses,
            machine = excluded.machine, created_at = now()
    """
    for build in builds:
        connection.execute(text_with_json(statement, "fidelity"), {**vars(build), "losses": list(build.losses)})


def list_builds(connection: Connection, model_version_id: int) -> tuple[RegisteredBuild, ...]:
    """List the builds of a version, rejected ones included."""
    statement = text("""
        SELECT * FROM catalog.model_builds WHERE model_version_id = :version ORDER BY device_class, build_id
    """)
    return tuple(read_records(connection.execute(statement, {"version": model_version_id}), RegisteredBuild))


def lock_builds(connection: Connection, model_version_id: int) -> None:
    """Block other processes that make builds of a version until the connection closes. Wait as long as it may take."""
    connection.execute(text("SELECT set_config('lock_timeout', :limit, false)"), {"limit": f"{BUILD_HOURS}h"})
    key = {"key": f"builds of {model_version_id}"}
    connection.execute(text("SELECT pg_advisory_lock(hashtextextended(:key, 0))"), key)
