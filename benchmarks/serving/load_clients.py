"""Load the query service with clients in a separate process, each with one persistent connection.

    python -m benchmarks.serving.load_clients URL PATH CLIENTS SECONDS FOLDER

Sends the images of the folder, or texts for ``/embed-text``, repeatedly without a pause. Prints JSON: the milliseconds
of each response, failures by status, and the responses of each model version.
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
NO_RESPONSE = "no response"


@dataclass(frozen=True)
class Load:
    """The figures of all clients together."""

    seconds: float
    milliseconds: list[float]
    failures: dict[str, int]
    versions: dict[str, int]


def main() -> None:
    """Load the service and print the figures."""
    url, path, clients, seconds, folder = sys.argv[1:]
    print(json.dumps(asdict(send_without_pause(url, path, int(clients), float(seconds), Path(folder)))))


def send_without_pause(url: str, path: str, clients: int, seconds: float, folder: Path) -> Load:
    """Let each client send its next request as soon as it has a response."""
    bodies = _make_bodies(path, folder)
    milliseconds: list[float] = []
    failures: Counter[str] = Counter()
    versions: Counter[str] = Counter()
    started = time.perf_counter()

    def send(client: int) -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_SECONDS)
        number = client * len(bodies) // clients
        while time.perf_counter() - started < seconds:
            sent = time.perf_counter()
            try:
                connection.request("POST", path, bodies[number % len(bodies)])
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException):
                failures[NO_RESPONSE] += 1
                connection.close()
                continue
            if response.status == http.client.OK:
                milliseconds.append(1000 * (time.perf_counter() - sent))
                versions[str(json.loads(content)["model_version_id"])] += 1
            else:
                failures[str(response.status)] += 1
            number += 1
        connection.close()

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(send, range(clients)))
    return Load(time.perf_counter() - started, milliseconds, dict(failures), dict(versions))


def _make_bodies(path: str, folder: Path) -> list[bytes]:
    if path == "/embed-text":
        return [json.dumps({"text": f"red striped dress number {number}"}).encode() for number in range(200)]
    return [image.read_bytes() for image in sorted(folder.iterdir())]


if __name__ == "__main__":
    main()
