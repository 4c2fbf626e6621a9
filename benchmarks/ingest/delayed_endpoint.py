"""A relay before a real endpoint that answers late, in a process of its own.

It passes bytes on as they are, so that signatures stay valid, and holds the beginning of each request back.
"""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import psutil

from jobs.local.ports import LOOPBACK
from jobs.settings import PROJECT_ROOT

PART_BYTES = 1 << 16
METHODS = (b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE ")


@dataclass(frozen=True)
class Delays:
    """Each request is held back for ``seconds``, but a share of the GETs, drawn by the seed, for ``slow_seconds``."""

    seconds: float = 0.0
    slow_seconds: float = 0.0
    slow_share: float = 0.0
    seed: int = 0


SLOW_BUCKET = Delays(seconds=0.020, slow_seconds=0.200, slow_share=0.02)


@dataclass(frozen=True)
class DelayedEndpoint:
    """Where the relay listens, and its process."""

    url: str
    process: psutil.Process

    def read_cpu_seconds(self) -> float:
        """What it has used so far, its start included."""
        times = self.process.cpu_times()
        return times.user + times.system


@contextmanager
def delay_endpoint(url: str, delays: Delays) -> Iterator[DelayedEndpoint]:
    """Relay to the endpoint of a URL, over connections that stay open as long as the client's."""
    # Not multiprocessing, which would import the module that was started, and torch with it.
    command = [sys.executable, "-m", "benchmarks.ingest.delayed_endpoint", url, json.dumps(asdict(delays))]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield DelayedEndpoint(f"http://{LOOPBACK}:{port}", psutil.Process(process.pid))
        finally:
            process.terminate()


async def _listen(url: str, delays: Delays) -> None:
    target, draw = urlsplit(url), random.Random(delays.seed)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_endpoint, to_endpoint = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(_pass_requests(reader, to_endpoint, delays, draw), _pass_answers(from_endpoint, writer))

    server = await asyncio.start_server(relay, LOOPBACK, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _pass_requests(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delays: Delays, draw: random.Random
) -> None:
    while part := await reader.read(PART_BYTES):
        if delays.seconds and part.startswith(METHODS):
            is_slow = part.startswith(b"GET ") and draw.random() < delays.slow_share
            await asyncio.sleep(delays.slow_seconds if is_slow else delays.seconds)
        writer.write(part)
        await writer.drain()
    writer.close()


async def _pass_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(PART_BYTES):
        writer.write(part)
        await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(_listen(sys.argv[1], Delays(**json.loads(sys.argv[2]))))
