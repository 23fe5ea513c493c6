"""What do ten thousand connections cost the API that send nothing, or a head without an end?

    python -m benchmarks.connections --json benchmarks/results/connections.json

A real API process. Half of the clients send the beginning of a head and no more, half nothing. Told are its resident
memory before, with all of them, and once their time for a head is over; how long a health check of somebody else
takes meanwhile; and how many are held still at the end.
"""

import argparse
import asyncio
import resource
from time import perf_counter
from typing import Any

import psutil
import uvloop

from benchmarks.record import command_line, run
from benchmarks.service import running, service_settings
from services.settings import Settings

_TOGETHER = 200
_CHECKS = 20


async def _held(settings: Settings, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    kept = []
    for first in range(0, count, _TOGETHER):
        some = range(min(_TOGETHER, count - first))
        opening = [asyncio.open_connection(settings.api_host, settings.api_port) for _ in some]
        for number, (reader, writer) in enumerate(await asyncio.gather(*opening)):
            if number % 2:
                writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ")
            kept.append((reader, writer))
    return kept


async def _answered(settings: Settings) -> list[float]:
    """Milliseconds of a health check, each on a connection of its own."""
    took = []
    for _ in range(_CHECKS):
        begun = perf_counter()
        reader, writer = await asyncio.open_connection(settings.api_host, settings.api_port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        if not (await reader.read()).startswith(b"HTTP/1.1 200"):
            raise RuntimeError("a health check was not answered")
        took.append((perf_counter() - begun) * 1000)
        writer.close()
    return sorted(took)


async def measure(settings: Settings, pid: int, count: int) -> dict[str, Any]:
    """The figures."""
    process = psutil.Process(pid)

    def mib() -> float:
        return round(process.memory_info().rss / 1024**2, 1)

    def connections() -> int:
        return sum(one.status == psutil.CONN_ESTABLISHED for one in process.net_connections("tcp"))

    await _answered(settings)
    before, quiet = mib(), await _answered(settings)
    kept = await _held(settings, count)
    busy, held = await _answered(settings), mib()
    most = connections()
    await asyncio.sleep(settings.head_seconds + 2)
    left, after = connections(), mib()
    for _, writer in kept:
        writer.transport.abort()
    return {
        "connections": count,
        "mib": {"before": before, "with them": held, "after their time": after},
        "kib_a_connection": round((held - before) * 1024 / count, 2),
        "health_check_ms": {"before": round(quiet[_CHECKS // 2], 2), "with them": round(busy[_CHECKS // 2], 2)},
        "held": {"at most": most, "after their time": left},
    }


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """One run."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * given.connections + 1024), hard))
    with service_settings() as settings, running(settings, "api") as api:
        figures = uvloop.run(measure(settings, api.pid, given.connections))
    print(figures)
    return figures


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("connections", __doc__)
    parser.add_argument("--connections", type=int, default=9500, help="below SPARSEWELL_MAX_CONNECTIONS")
    run("connections", parser, measured, arguments)


if __name__ == "__main__":
    main()
