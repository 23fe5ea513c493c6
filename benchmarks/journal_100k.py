"""Does the API's memory stay flat while 100,000 documents of 1 KB are journalled, and how many a second are they?

    python -m benchmarks.journal_100k --json benchmarks/results/journal_100k.json

A real API process, NDJSON streams over a few connections, no worker: each acknowledged document is on disk (translog
fsync) and its message in Redis. Meanwhile the resident memory of the process is read ten times a second. Its slope is
that of the second half of the run, when every pool and cache has its size.
"""

import argparse
import asyncio
import random
from collections.abc import Sequence
from statistics import linear_regression
from time import perf_counter
from typing import Any

import orjson
import psutil
import uvloop

from benchmarks.loopback import KeptConnection
from benchmarks.record import command_line, run
from benchmarks.service import opensearch_version, running, service_settings
from benchmarks.stdlib_index import stdlib_documents
from services.settings import Settings

Samples = list[tuple[float, float]]
_SAMPLE_SECONDS = 0.1
_SHOWN = 60


def line(number: int, size: int, words: Sequence[str], chance: random.Random) -> bytes:
    """One document of exactly `size` bytes, line break included, of words that texts have."""
    empty = len(orjson.dumps({"id": f"d{number:07d}", "text": ""})) + 1
    text = ""
    while len(text) < size - empty:
        text += chance.choice(words) + " "
    return orjson.dumps({"id": f"d{number:07d}", "text": text[: size - empty - 1] + "."}) + b"\n"


async def journal(settings: Settings, streams: list[bytes], connections: int) -> int:
    """Sends the streams over as many connections; documents that were accepted."""
    waiting = iter(streams)
    accepted = 0

    async def sender() -> None:
        nonlocal accepted
        async with KeptConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:
            for body in waiting:
                answer = await connection.send("POST", "/v1/indexes/docs/documents", body, "application/x-ndjson")
                if "stopped" in answer or not answer["queued"]:
                    raise RuntimeError(f"a stream was not taken whole: {answer.get('stopped')}")
                accepted += len(answer["accepted"])

    await asyncio.gather(*(sender() for _ in range(connections)))
    return accepted


async def watch(process: psutil.Process, samples: Samples) -> None:
    """Seconds and MiB of resident memory, until it is cancelled."""
    begun = perf_counter()
    while True:
        samples.append((perf_counter() - begun, process.memory_info().rss / 1024**2))
        await asyncio.sleep(_SAMPLE_SECONDS)


async def measured(settings: Settings, streams: list[bytes], connections: int, api: int) -> tuple[int, float, Samples]:
    """Documents, seconds and samples of one run into a new index."""
    samples: Samples = []
    async with KeptConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:
        await connection.send("PUT", "/v1/indexes/docs", b"{}")
    watching = asyncio.create_task(watch(psutil.Process(api), samples))
    await asyncio.sleep(5 * _SAMPLE_SECONDS)
    begun = perf_counter()
    accepted = await journal(settings, streams, connections)
    seconds = perf_counter() - begun
    watching.cancel()
    return accepted, seconds, samples


def memory(samples: Samples, documents: int, seconds: float) -> dict[str, Any]:
    """MiB at the start, at most and at the end; the slope of the second half, a minute and 10,000 documents."""
    later = [sample for sample in samples if sample[0] >= samples[-1][0] / 2]
    slope = linear_regression([at for at, _ in later], [size for _, size in later]).slope
    step = max(1, len(samples) // _SHOWN)
    return {
        "start": round(samples[0][1], 1),
        "max": round(max(size for _, size in samples), 1),
        "end": round(samples[-1][1], 1),
        "slope_a_minute": round(slope * 60, 2),
        "slope_for_10000_documents": round(slope * seconds / documents * 10_000, 3),
        "over_time": [[round(at, 1), round(size, 1)] for at, size in samples[::step]],
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Documents a second, and the memory of the process that took them."""
    chance = random.Random(1)
    words = sorted({word for one in stdlib_documents(500) for word in one.text.split() if word.isalpha()})
    lines = [line(number, given.bytes, words, chance) for number in range(given.documents)]
    streams = [b"".join(lines[at : at + given.stream]) for at in range(0, len(lines), given.stream)]
    del lines
    with service_settings() as settings, running(settings, "api") as api:
        accepted, seconds, samples = uvloop.run(measured(settings, streams, given.connections, api.pid))
        version = opensearch_version(settings)
    if accepted != given.documents:
        raise RuntimeError(f"{accepted} of {given.documents} documents were accepted")
    found = memory(samples, accepted, seconds)
    print(f"{accepted:,} documents, {accepted / seconds:,.0f} a second; MiB of the API: {found | {'over_time': '...'}}")
    return {
        "opensearch": version,
        "documents": accepted,
        "megabytes": round(sum(map(len, streams)) / 1e6, 1),
        "seconds": round(seconds, 2),
        "documents_a_second": round(accepted / seconds, 1),
        "rss_mib": found,
    }


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("journal_100k", __doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=1024, help="of one document as JSON")
    parser.add_argument("--stream", type=int, default=5000, help="documents of one NDJSON request")
    parser.add_argument("--connections", type=int, default=4)
    run("journal_100k", parser, measure, arguments)


if __name__ == "__main__":
    main()
