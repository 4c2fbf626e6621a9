"""Relay requests to an S3 endpoint with delays, in a separate process.

The relay delays the start of each request. It forwards all bytes unchanged to keep signatures valid.
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

from jobs.local.ports import LOOPBACK
from jobs.settings import PROJECT_ROOT

PART_BYTES = 1 << 16
METHODS = (b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE ")


@dataclass(frozen=True)
class Delays:
    """Delays in seconds: of each request, and of ``slow_share`` of the GETs, which are chosen randomly."""

    seconds: float = 0.0
    slow_seconds: float = 0.0
    slow_share: float = 0.0
    seed: int = 0


NO_DELAYS = Delays()
SLOW_BUCKET = Delays(seconds=0.020, slow_seconds=0.200, slow_share=0.02)


@contextmanager
def run_delay_relay(url: str, delays: Delays) -> Iterator[str]:
    """Run a relay to the endpoint at ``url``; yield the relay's URL."""
    # Not multiprocessing, because it would import the main module and therefore torch.
    command = [sys.executable, "-m", "benchmarks.ingest.delay_relay", url, json.dumps(asdict(delays))]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield f"http://{LOOPBACK}:{int(process.stdout.readline())}"
        finally:
            process.terminate()


async def _listen(url: str, delays: Delays) -> None:
    target, chance = urlsplit(url), random.Random(delays.seed)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_endpoint, to_endpoint = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(
            _forward(reader, to_endpoint, delays, chance), _forward(from_endpoint, writer, NO_DELAYS, chance)
        )

    server = await asyncio.start_server(relay, LOOPBACK, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _forward(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    delays: Delays,
    chance: random.Random,
) -> None:
    while part := await reader.read(PART_BYTES):
        if delays.seconds and part.startswith(METHODS):
            is_slow = part.startswith(b"GET ") and chance.random() < delays.slow_share
            await asyncio.sleep(delays.slow_seconds if is_slow else delays.seconds)
        writer.write(part)
        await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(_listen(sys.argv[1], Delays(**json.loads(sys.argv[2]))))
