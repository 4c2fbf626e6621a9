"""Files that only their owner can read."""

import os
from pathlib import Path


def write_private_file(path: Path, text: str) -> None:
    """Replace ``path`` in one step, so that nobody ever sees half of it, readable by its owner only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def open_private_log(path: Path) -> int:
    """A descriptor for appending to ``path``, readable by its owner only; the caller closes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
