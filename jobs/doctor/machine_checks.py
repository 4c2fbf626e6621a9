"""Check the query service, the disk and the clock."""

import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sqlalchemy import text

from jobs.connections import Connections
from jobs.database.engine import translate_database_errors
from jobs.doctor.checks import Finding
from jobs.errors import ConfigurationError, PermanentError
from jobs.serve.client import QueryClient, QueryRefusedError
from jobs.settings import ServingSettings
from jobs.units import format_size

QUERY_TIMEOUT_SECONDS = 5.0
MIN_FREE_BYTES = 1_000_000_000
"""Below this, a run cannot fetch new models."""
LOW_FREE_BYTES = 5_000_000_000
"""Below this, a training may not fit: checkpoints of each epoch, and 20 kB for each image."""
MAX_CLOCK_SECONDS = 300.0
"""S3 refuses requests whose time differs by more than 15 minutes, and tokens of Airflow expire earlier or later."""
LOW_CLOCK_SECONDS = 5.0


def check_query_service(serving: ServingSettings) -> Finding:
    """Check that the query service has models and accepts the token."""
    url = serving.query_service_url
    with QueryClient(url, serving.query_token, timeout_seconds=QUERY_TIMEOUT_SECONDS) as client:
        # The service checks the token first, and then refuses an empty text without a model.
        with suppress(QueryRefusedError):
            client.embed_text("")
        health = client.read_health()
    if health.trouble:
        return Finding(f"{url} serves older models: {health.trouble}", "warning")
    classifier = f"classifier {health.classifier} and " if health.classifier else ""
    return Finding(f"{url} serves {classifier}encoder {health.encoder}")


def check_disk(cache: Path) -> Finding:
    """Check that the model cache and the temporary folder can be written to and have space."""
    folders = {"CATALOG_MODEL_CACHE": cache, "TMPDIR": Path(tempfile.gettempdir())}
    free = {}
    for variable, folder in folders.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                free[folder] = shutil.disk_usage(folder).free
        except OSError as error:
            raise ConfigurationError(
                f"{folder} cannot be written ({error.strerror}): give the user of the job the right, or set {variable}"
            ) from None
    fullest = min(free, key=lambda folder: free[folder])
    sentence = f"{format_size(free[fullest])} free in {fullest}"
    if free[fullest] < MIN_FREE_BYTES:
        raise PermanentError(f"{sentence}, but a run needs {format_size(MIN_FREE_BYTES)}: free space on its disk")
    if free[fullest] < LOW_FREE_BYTES:
        return Finding(f"{sentence}, which may not be enough for a training: free space on its disk", "warning")
    return Finding(sentence)


def check_clock(connections: Connections) -> Finding:
    """Compare the clock of this machine with those of the database and the bucket."""
    others = {}
    with (
        translate_database_errors(connections.settings.locations.database_url),
        connections.engine.connect() as connection,
    ):
        connection.execute(text("SELECT 1"))
        others["the database"] = (
            time.time(),
            float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()),
        )
    before = time.time()
    if sent_at := connections.store.read_clock(connections.source):
        others["the bucket"] = (before + time.time()) / 2, sent_at.timestamp() + 0.5
    return compare_clocks({name: other - own for name, (own, other) in others.items()})


def compare_clocks(ahead_seconds: Mapping[str, float]) -> Finding:
    """Judge by how many seconds other clocks are ahead of this machine's.

    Raises:
        ConfigurationError: one differs by so much that requests are refused.
    """
    worst = max(ahead_seconds, key=lambda name: abs(ahead_seconds[name]))
    difference = ahead_seconds[worst]
    sentence = f"{worst} is {abs(difference):.1f} s {'ahead of' if difference > 0 else 'behind'} this machine"
    cure = "set the clocks, for example with chrony or systemd-timesyncd"
    if abs(difference) > MAX_CLOCK_SECONDS:
        raise ConfigurationError(f"{sentence}: {cure}")
    if abs(difference) > LOW_CLOCK_SECONDS:
        return Finding(f"{sentence}, so times in reports are wrong: {cure}", "warning")
    return Finding(f"at most {abs(difference):.1f} s from those of {' and '.join(ahead_seconds)}")
