"""Clients of the query service in a process of their own, each on a connection that it keeps.

    python -m benchmarks.serving.serve_load URL PATH CLIENTS SECONDS FOLDER

The photos of the folder, or texts for ``/embed-text``, are asked over and over without a pause. Prints JSON: the
milliseconds of each answer, failures by status, and how often each model version answered.
"""

import http.client
import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 30.0
NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Load:
    """What all clients saw together."""

    seconds: float
    milliseconds: list[float]
    failures: dict[str, int]
    versions: dict[str, int]


def main() -> None:
    """Ask, and print what came of it."""
    url, path, clients, seconds, folder = sys.argv[1:]
    print(json.dumps(asdict(ask_without_pause(url, path, int(clients), float(seconds), Path(folder)))))


def ask_without_pause(url: str, path: str, clients: int, seconds: float, folder: Path) -> Load:
    """Each client asks the next question as soon as the last is answered."""
    bodies = _make_bodies(path, folder)
    milliseconds: list[float] = []
    failures: Counter[str] = Counter()
    versions: Counter[str] = Counter()
    started = time.perf_counter()

    def ask(client: int) -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_SECONDS)
        number = client * len(bodies) // clients
        while time.perf_counter() - started < seconds:
            asked = time.perf_counter()
            try:
                connection.request("POST", path, bodies[number % len(bodies)])
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException):
                failures[NO_ANSWER] += 1
                connection.close()
                continue
            if response.status == http.client.OK:
                milliseconds.append(1000 * (time.perf_counter() - asked))
                versions[str(json.loads(content)["model_version_id"])] += 1
            else:
                failures[str(response.status)] += 1
            number += 1
        connection.close()

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(ask, range(clients)))
    return Load(time.perf_counter() - started, milliseconds, dict(failures), dict(versions))


def _make_bodies(path: str, folder: Path) -> list[bytes]:
    if path == "/embed-text":
        return [json.dumps({"text": f"red striped dress number {number}"}).encode() for number in range(200)]
    return [photo.read_bytes() for photo in sorted(folder.iterdir())]


if __name__ == "__main__":
    main()
