"""What was tried to serve a model faster, as it lies in its artifact and counts in its checksum."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from jobs.errors import PermanentError
from jobs.evaluation.evaluation_record import Fidelity, Served
from jobs.models.production import EngineName, Precision, Production, read_production

FIDELITY_FILE = "fidelity.json"


@dataclass(frozen=True)
class Attempt:
    """One way to serve the model: what it costs, and which criteria of the fidelity gate it missed.

    ``int8_share`` and ``float_blocks`` are those of its `Production`.
    """

    engine: EngineName
    precision: Precision
    fidelity: Fidelity
    losses: tuple[str, ...]
    int8_share: float | None = None
    float_blocks: tuple[str, ...] = ()

    def is_of(self, production: Production) -> bool:
        """Whether this is the way in which a folder is served."""
        way = production.engine, production.precision, production.float_blocks
        return (self.engine, self.precision, self.float_blocks) == way


def write_attempts(folder: Path, attempts: Sequence[Attempt]) -> None:
    """Store what was tried with an artifact, in that order."""
    (folder / FIDELITY_FILE).write_bytes(TypeAdapter(list[Attempt]).dump_json(list(attempts), indent=1))


def read_served(folder: Path) -> Served | None:
    """How an artifact is served and what that costs; None where no precision was chosen for it.

    Raises:
        PermanentError: a file of the artifact has another form.
    """
    production = read_production(folder)
    if production is None:
        return None
    file = folder / FIDELITY_FILE
    try:
        attempts = TypeAdapter(list[Attempt]).validate_json(file.read_bytes()) if file.is_file() else []
    except ValidationError as error:
        raise PermanentError(f"{file} has another form ({error.errors()[0]['msg']})") from None
    costs = [attempt.fidelity for attempt in attempts if attempt.is_of(production)]
    return Served(production.engine, production.precision, costs[0] if costs else None)
