"""Cost of access control: API keys, OpenSearch credentials, and idle connections.

    python -m benchmarks key_check --json benchmarks/results/key_check.json
    python -m benchmarks opensearch_access --json benchmarks/results/opensearch_access.json
    python -m benchmarks connections --json benchmarks/results/connections.json

`key_check` and `opensearch_access` give microseconds of the code alone, the best of five rounds (docs/decisions/0200,
0205). `connections` holds thousands of connections to a real API process: half of the clients send the start of a
header and stop, half send nothing. Its figures are the API's memory before the connections, with them, and after the
time limit for a header; the latency of other clients' health checks meanwhile; and the number of connections that are
left.
"""

import argparse
import asyncio
import resource
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
import uvloop
from botocore.credentials import Credentials
from starlette.types import Message, Receive, Scope, Send

from benchmarks.measuring import make_parser, run_benchmark
from benchmarks.service import open_service, run_process
from query_api.access.gate import AuthenticationMiddleware
from query_api.access.key_ring import KeyRing
from query_api.access.rate_limit import RateLimiter
from services.access.api_keys import ApiKey, KeySecret, digest_key, generate_key
from services.access.document_level_security import DocumentLevelSecurity
from services.access.principals import RateLimits
from services.encoders.manifest import WindowSettings
from services.filters.tree import OneOf
from services.index_spec import EncoderIdentity, Generation, IndexNames, IndexSpec
from services.opensearch.client import AsyncSearchClient, Call
from services.opensearch.key_records import StoredKey
from services.opensearch.queries import SearchPlan, build_search_body, lexical_query, msearch_call
from services.opensearch.transport import AwsSignatureAuth, BasicAuth, RequestAuth
from services.settings import Settings
from services.tls import SecretFile
from services.web.http_auth import AllowedHosts

MAX_KEYS = 10_000
SIGNED_URL = "https://127.0.0.1:9200/_msearch?max_concurrent_searches=2&filter_path=responses"
BODY_BYTES = {"2 KB, a search": 2000, "4 MiB, a bulk request": 4 * 1024**2}
_CONCURRENT_CONNECTIONS = 200
_HEALTH_CHECKS = 20
_LETTERS = str.maketrans("0123456789", "abcdefghij")


def key_check(argv: list[str] | None = None) -> None:
    """Measure the time that a key, its rate limit and its filter add to a request."""
    parser = make_parser("key_check", key_check.__doc__)
    parser.add_argument("--times", type=int, default=20_000, help="requests per round")
    run_benchmark("key_check", parser, measure_keys, argv)


def measure_keys(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return microseconds per request, by gate and key."""
    gates = asyncio.run(_measure_gates(arguments.times))
    rows = gates | {"the filter of a key, hybrid": asyncio.run(_measure_filtered_search(arguments.times))}
    for name, value in rows.items():
        print(f"{name:>28}: {value} µs")
    return {"microseconds": rows}


async def _measure_gates(times: int) -> dict[str, float]:
    settings = Settings()
    search = AsyncSearchClient(settings)
    limiter = RateLimiter("redis://127.0.0.1:1/0", "bench", RateLimits())
    ring = KeyRing(search, IndexNames("bench"))
    plain, limited = generate_key("a" * 16), generate_key("b" * 16)
    ring.update(_make_key(n, generate_key(f"{n:016d}".translate(_LETTERS)), None) for n in range(MAX_KEYS))
    ring.update([_make_key(0, plain, None), _make_key(1, limited, 1e9)])
    ring._read_at, ring._tried_at = perf_counter(), float("inf")  # no reload during the measurement

    def make_call(gate: Callable[..., Awaitable[None]], key: str | None) -> Callable[[], Awaitable[None]]:
        return lambda: gate(_make_scope(key), _receive, _send)

    hosts = AllowedHosts("", any_by_default=True)
    opened, closed = (
        AuthenticationMiddleware(_empty_app, mode, ring, (generate_key("c" * 16),), limiter, hosts=hosts)
        for mode in ("open", "keys")
    )
    results = {
        "no gate": await _time_microseconds(make_call(_empty_app, plain), times),
        "open": await _time_microseconds(make_call(opened, plain), times),
        "a key of 10,000": await _time_microseconds(make_call(closed, plain), times),
        "a key with a limit": await _time_microseconds(make_call(closed, limited), times),
    }
    await limiter.close()
    await ring.close()
    await search.close()
    return results


async def _measure_filtered_search(times: int) -> float:
    """Return the microseconds that confine a hybrid search of forty pieces to a key's filter."""
    generation = Generation(
        index="a", number=1, physical="p-a.g000001", spec=IndexSpec.model_validate({"fields": {"tenant": "keyword"}}),
        encoder=EncoderIdentity(name="e", fingerprint="f"), window=WindowSettings(pieces=100, overlap=10),
        created_at="now",
    )  # fmt: skip
    features = [{"rank_feature": {"field": f"sparse.{n}", "boost": 1.5, "linear": {}}} for n in range(40)]
    bodies = [
        build_search_body({"bool": {"should": features}}, 100, False, 5),
        build_search_body(lexical_query("a few words"), 100, False, 5),
    ]
    call: Call = msearch_call([SearchPlan(generation.physical, body) for body in bodies], 5)

    async def confine() -> None:
        security = DocumentLevelSecurity()
        security.admit(generation, OneOf("tenant", ("a",)))
        security.filter_answer(call, security.filter_call(call))

    return await _time_microseconds(confine, times)


async def _time_microseconds(call: Callable[[], Awaitable[None]], times: int) -> float:
    best = float("inf")
    for _ in range(5):
        started = perf_counter()
        for _ in range(times):
            await call()
        best = min(best, (perf_counter() - started) / times)
    return round(best * 1e6, 2)


def _make_key(number: int, text: str, limit: float | None) -> StoredKey:
    key_id = text.split("_")[1]
    key = ApiKey(key_id, "k", ("search",), ("a", "b-*"), None, 0, (KeySecret(digest_key(text), 0),), rate=limit)
    return StoredKey(key, number, 1)


def _make_scope(key: str | None) -> Scope:
    headers = [(b"host", b"x"), (b"content-type", b"application/json"), (b"accept", b"*/*")]
    if key is not None:
        headers.append((b"authorization", f"Bearer {key}".encode()))
    return {"type": "http", "path": "/v1/indexes/a/search", "query_string": b"", "headers": headers, "client": ("c", 1)}


async def _empty_app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def _receive() -> Message:
    return {"type": "http.disconnect"}


async def _send(message: Message) -> None:
    return None


def opensearch_access(argv: list[str] | None = None) -> None:
    """Measure the time that user, password file and Amazon's signature add to a request to OpenSearch."""
    parser = make_parser("opensearch_access", opensearch_access.__doc__)
    parser.add_argument("--times", type=int, default=5000, help="requests per round")
    run_benchmark("opensearch_access", parser, measure_access, argv)


def measure_access(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return microseconds by kind of credentials and size of the body."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "password"
        file.write_text("password")
        kinds: dict[str, RequestAuth] = {
            "user and password": BasicAuth("user", "password"),
            "password file": BasicAuth("user", SecretFile("OPENSEARCH_PASSWORD_FILE", file)),
            "signature for Amazon": AwsSignatureAuth(Credentials("key", "secret", "token"), "eu-central-1"),
        }
        rows = {
            kind: {
                label: header_microseconds(access, b"x" * size, arguments.times if size < 1e6 else 50)
                for label, size in BODY_BYTES.items()
            }
            for kind, access in kinds.items()
        }
    for kind, row in rows.items():
        print(f"{kind:>22}: {row}")
    return {"microseconds": rows}


def header_microseconds(access: RequestAuth, body: bytes, times: int) -> float:
    """Return the microseconds of a request's headers."""
    best = float("inf")
    for _ in range(5):
        started = perf_counter()
        for _ in range(times):
            access.headers("POST", SIGNED_URL, body)
        best = min(best, (perf_counter() - started) / times)
    return round(best * 1e6, 2)


def connections(argv: list[str] | None = None) -> None:
    """Measure the API's memory with ten thousand silent or slow connections."""
    parser = make_parser("connections", connections.__doc__)
    parser.add_argument("--connections", type=int, default=9500, help="below SPARSEWELL_MAX_CONNECTIONS")
    run_benchmark("connections", parser, measure_connections, argv)


def measure_connections(arguments: argparse.Namespace) -> dict[str, Any]:
    """Raise the limit of open files and measure one run."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * arguments.connections + 1024), hard))
    with open_service() as settings, run_process(settings, "api") as api:
        figures = uvloop.run(measure_idle(settings, api.pid, arguments.connections))
    print(figures)
    return figures


async def measure_idle(settings: Settings, pid: int, count: int) -> dict[str, Any]:
    """Return memory, latency of health checks and open connections before, with and after the idle connections."""
    process = psutil.Process(pid)

    def mib() -> float:
        return round(process.memory_info().rss / 1024**2, 1)

    def connections() -> int:
        return sum(connection.status == psutil.CONN_ESTABLISHED for connection in process.net_connections("tcp"))

    await _time_health_checks(settings)
    memory_before, latency_before = mib(), await _time_health_checks(settings)
    held = await _hold_connections(settings, count)
    latency_with, memory_with = await _time_health_checks(settings), mib()
    largest = connections()
    await asyncio.sleep(settings.head_seconds + 2)
    left, memory_after = connections(), mib()
    for _, writer in held:
        writer.transport.abort()
    return {
        "connections": count,
        "mib": {"before": memory_before, "open": memory_with, "after the timeout": memory_after},
        "kib_a_connection": round((memory_with - memory_before) * 1024 / count, 2),
        "health_check_ms": {
            "before": round(latency_before[_HEALTH_CHECKS // 2], 2),
            "open": round(latency_with[_HEALTH_CHECKS // 2], 2),
        },
        "held": {"maximum": largest, "after the timeout": left},
    }


async def _hold_connections(settings: Settings, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    opened = []
    for first in range(0, count, _CONCURRENT_CONNECTIONS):
        batch = range(min(_CONCURRENT_CONNECTIONS, count - first))
        opening = [asyncio.open_connection(settings.api_host, settings.api_port) for _ in batch]
        for number, (reader, writer) in enumerate(await asyncio.gather(*opening)):
            if number % 2:
                writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ")
            opened.append((reader, writer))
    return opened


async def _time_health_checks(settings: Settings) -> list[float]:
    """Return the sorted milliseconds of health checks, each on a new connection."""
    durations = []
    for _ in range(_HEALTH_CHECKS):
        started = perf_counter()
        reader, writer = await asyncio.open_connection(settings.api_host, settings.api_port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        if not (await reader.read()).startswith(b"HTTP/1.1 200"):
            raise RuntimeError("a health check failed")
        durations.append((perf_counter() - started) * 1000)
        writer.close()
    return sorted(durations)
