"""Cost of request bodies by shape: how long other requests wait, and the memory that the API takes.

    python -m benchmarks body_shapes --json benchmarks/results/body_shapes.json

Each body goes to a new API process, several times. Meanwhile another connection asks `/healthz` every two milliseconds.
Its longest wait is the longest time for which the body blocked the event loop, with the time that the machine took from
the process. The shortest of these waits is reported, because other load on the machine only adds to them. `times` is
the peak of the process's memory beyond its memory before, over the size of the body. It includes a few megabytes that
any first request takes: `a search` is a small one.

Bodies of documents have the given sizes. All others have at most 1 MiB, the limit of the service.
"""

import argparse
import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import orjson
import psutil
import uvloop

from benchmarks.measuring import make_parser, run_benchmark
from benchmarks.service import LoopbackConnection, open_service, run_process
from services.settings import Settings

_MIB: Final = 1024**2
_CHECK_SECONDS: Final = 0.002
_LONG_SECONDS: Final = 10.0
_SMALL_VALUES: Final = 29_000  # below the limit of a small body
INDEX_PATH: Final = "/v1/indexes/shapes"
_TALK_INDEX: Final = "/v1/indexes/talk"
_JSON: Final = "application/json"
_LINES: Final = "application/x-ndjson"

# Path, media type, and the body of about so many bytes. A path begins with `PUT ` if its method is not POST.
BodyShape = tuple[str, str, Callable[[int], bytes]]


def _repeat(begin: bytes, item: bytes, end: bytes) -> Callable[[int], bytes]:
    return lambda size: begin + item * max(1, (size - len(begin) - len(end)) // len(item)) + end


def _number(begin: bytes, item: bytes, end: bytes) -> Callable[[int], bytes]:
    """Return a body of items that contain their number, so that no two are the same."""

    def make(size: int) -> bytes:
        return begin + b"".join(item % number for number in range(size // (len(item) + 4))) + end

    return make


def _members(value: Any, *path: str) -> Callable[[int], bytes]:
    """Return a small body with as many values as it may have at the place `path`."""

    def make(size: int) -> bytes:
        body: Any = value(_SMALL_VALUES)
        for name in reversed(path):
            body = {name: body}
        return orjson.dumps({"query": "x"} | body if isinstance(body, dict) else body)

    return make


_DOCUMENTS: Final = f"{INDEX_PATH}/documents"
_TALK: Final = f"{_TALK_INDEX}/documents"
_RULES: Final = f"{INDEX_PATH}/curation"
_WEBVTT: Final = b'[{"id":"a","kind":"talk","transcript":{"type":"text/vtt","text":"WEBVTT\\n\\n'
_CUE: Final = b"00:00:01.000 --> 00:00:02.000\\n"
DOCUMENT_SHAPES: Final[Mapping[str, BodyShape]] = {
    "zeros": (_DOCUMENTS, _JSON, _repeat(b"[", b"0,", b"0]")),
    "empty arrays": (_DOCUMENTS, _JSON, _repeat(b"[", b"[],", b"0]")),
    "objects of one member": (_DOCUMENTS, _JSON, _repeat(b"[", b'{"a":0},', b"0]")),
    "short strings": (_DOCUMENTS, _JSON, _repeat(b"[", b'"a",', b"0]")),
    "one item of many values": (_DOCUMENTS, _JSON, _repeat(b'[{"id":"a","text":[', b"{},", b"0]}]")),
    "one item of many escapes": (_DOCUMENTS, _JSON, _repeat(b'[{"id":"a","text":"', b'\\"', b'"}]')),
    "one item of many members": (_DOCUMENTS, _JSON, _number(b'[{"id":"a","text":"a"', b',"%d":0', b"}]")),
    "spaces": (_DOCUMENTS, _JSON, _repeat(b"[", b" ", b"]")),
    "an error at the end": (_DOCUMENTS, _JSON, _repeat(b"[", b"[],", b"")),
    "deep nesting": (_DOCUMENTS, _JSON, _repeat(b"[", b"[" * 500 + b"]" * 500 + b",", b"0]")),
    "short lines": (_DOCUMENTS, _LINES, _repeat(b"", b"x\n", b"")),
    "empty lines": (_DOCUMENTS, _LINES, _repeat(b"", b"\n", b"")),
    "small documents, lines": (_DOCUMENTS, _LINES, _number(b"", b'{"id":"%d","text":"a"}\n', b"")),
    "small documents, array": (_DOCUMENTS, _JSON, _number(b"[", b'{"id":"%d","text":"a"},', b'{"id":"z","text":"a"}]')),
    "talk of many values": (_TALK, _JSON, _repeat(b'[{"id":"a","kind":"talk","segments":[', b'{"a":0},', b"0]}]")),
    "talk of short segments": (
        _TALK, _JSON,
        _repeat(b'[{"id":"a","kind":"talk","segments":[', b'{"start":1.5,"end":2,"speaker":"a","text":"a"},',
                b'{"start":2,"text":"a"}]}]'),
    ),
    "talk of segments": (
        _TALK, _JSON,
        _repeat(b'[{"id":"a","kind":"talk","segments":[',
                b'{"start":123.45,"end":125.99,"text":"%s"},' % (b"word " * 9), b'{"start":2,"text":"a"}]}]'),
    ),
    "talk of cues": (_TALK, _JSON, _repeat(_WEBVTT, _CUE + b"word " * 9 + b"\\n\\n", b'"}}]')),
    "talk of one cue": (_TALK, _JSON, _repeat(_WEBVTT + _CUE, b"word <i>", b'"}}]')),
    "talk of notes": (_TALK, _JSON, _repeat(_WEBVTT, b"NOTE x\\n\\n", b'"}}]')),
    "talk of one line": (_TALK, _JSON, _repeat(b'[{"id":"a","kind":"talk","text":"', b"word ", b'"}]')),
    "talk of lines": (_TALK, _JSON, _repeat(b'[{"id":"a","kind":"talk","text":"', b"Ann: word\\n", b'"}]')),
    "talk of JSON in a string": (
        _TALK, _JSON,
        _repeat(b'[{"id":"a","kind":"talk","transcript":{"type":"application/json","text":"[', b"[],", b'0]"}}]'),
    ),
    "one talk": (
        f"PUT {_TALK}/a", _JSON,
        _repeat(b'{"kind":"talk","segments":[', b'{"text":"aaa bbb ccc ddd eee"},', b'{"start":2,"text":"a"}]}'),
    ),
    "one document": (f"PUT {_DOCUMENTS}/a", _JSON, _repeat(b'{"text":"', b",[{", b'"}')),
}  # fmt: skip
SMALL_SHAPES: Final[Mapping[str, BodyShape]] = {
    "a search": (f"{INDEX_PATH}/search", _JSON, lambda size: b'{"query":"x"}'),
    "search: examples": (f"{INDEX_PATH}/search", _JSON, _members(lambda n: [0] * n, "like")),
    "search: unknown members": (f"{INDEX_PATH}/search", _JSON, _members(lambda n: {f"m{i}": 0 for i in range(n)})),
    "search: facets": (f"{INDEX_PATH}/search", _JSON, _members(lambda n: {f"f{i}": {} for i in range(n)}, "facets")),
    "search: filter": (
        f"{INDEX_PATH}/search", _JSON, _members(lambda n: [{"a": i} for i in range(n)], "filter", "and"),
    ),
    "search: values of a filter": (f"{INDEX_PATH}/search", _JSON, _members(lambda n: [0] * n, "filter", "a", "in")),
    "search: turns": (f"{INDEX_PATH}/search", _JSON, _members(lambda n: ["a"] * n, "context", "turns")),
    "search: nesting": (
        f"{INDEX_PATH}/search", _JSON,
        lambda size: b'{"query":"x","filter":' + b'{"not":' * 100_000 + b"0" + b"}" * 100_001,
    ),
    "several indexes": ("/v1/search", _JSON, _members(lambda n: [f"i{i}" for i in range(n)], "indexes")),
    "frequent queries": (
        f"{INDEX_PATH}/queries", _JSON, lambda size: orjson.dumps({"queries": [{"query": 0}] * _SMALL_VALUES}),
    ),
    "dead letters": (
        f"{INDEX_PATH}/dead-letters/retry", _JSON, lambda size: orjson.dumps({"ids": [0] * _SMALL_VALUES}),
    ),
    "declaration": (
        "PUT /v1/indexes/other", _JSON,
        lambda size: orjson.dumps({"fields": {f"f{i}": "x" for i in range(_SMALL_VALUES)}}),
    ),
    "key": ("/v1/keys", _JSON, lambda size: orjson.dumps({"name": "x", "indexes": [0] * _SMALL_VALUES})),
    "batch: searches": ("/v1/search/batch", _JSON, lambda size: orjson.dumps({"searches": [0] * _SMALL_VALUES})),
    "batch: members": (
        "/v1/search/batch", _JSON,
        lambda size: orjson.dumps({"searches": [{"index": "shapes", "like": [0] * 480} for _ in range(60)]}),
    ),
    "rules: synonyms": (
        f"{_RULES}/dry-run", _JSON,
        lambda size: orjson.dumps({"queries": ["x"], "rules": {"synonyms": [{"a": 0}] * _SMALL_VALUES}}),
    ),
    "rules: words": (
        f"{_RULES}/dry-run", _JSON,
        lambda size: orjson.dumps({"queries": ["x"], "rules": {"synonyms": [{"words": [0] * 20}] * 1400}}),
    ),
    "rules: replaced": (
        f"PUT {_RULES}", _JSON,
        lambda size: orjson.dumps({"rules": {"results": [{"query": "x", "hide": ["d"] * 400}] * 70}}),
    ),
}  # fmt: skip


def body_shapes(argv: list[str] | None = None) -> None:
    """Measure the longest wait of other requests, and the memory, by the shape of a body."""
    parser = make_parser("body_shapes", body_shapes.__doc__)
    parser.add_argument("--mib", type=float, nargs="+", default=[0.38, 2, 8], help="sizes of bodies of documents")
    parser.add_argument("--repeats", type=int, default=3, help="how often each body is sent")
    parser.add_argument("--only", help="measure the shapes with this text in their names")
    run_benchmark("body_shapes", parser, measure_shapes, argv)


def measure_shapes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of each body by the name of its shape and its size."""
    figures: dict[str, Any] = {}
    with open_service() as settings:
        for name, shape, size in _choose_shapes(arguments):
            with run_process(settings, "api") as api:
                figures[name] = uvloop.run(measure_body(settings, api.pid, shape, size, arguments.repeats))
            print(f"{name:42} {figures[name]}", flush=True)
    return figures


def _choose_shapes(arguments: argparse.Namespace) -> Iterator[tuple[str, BodyShape, int]]:
    only = arguments.only or ""
    for name, shape in SMALL_SHAPES.items():
        if only in name:
            yield name, shape, _MIB
    for mib in arguments.mib:
        for name, shape in DOCUMENT_SHAPES.items():
            if only in name:
                yield f"{name}, {mib:g} MiB", shape, int(mib * _MIB)


async def measure_body(settings: Settings, pid: int, shape: BodyShape, size: int, repeats: int) -> dict[str, Any]:
    """Send one body `repeats` times to the process `pid`, or once if that takes long.

    Return the size in bytes, the status, the shortest of the longest waits, the memory and the answer.
    """
    path, media_type, make = shape
    body = make(size)
    await create_shape_indexes(settings)
    quiet = asyncio.create_task(_longest_wait(settings))
    await asyncio.sleep(1)
    quiet.cancel()
    before = psutil.Process(pid).memory_info().rss
    _reset_peak(pid)
    waits = []
    for _ in range(repeats):
        waiting = asyncio.create_task(_longest_wait(settings))
        await asyncio.sleep(0.05)
        began = perf_counter()
        status, answer = await _send(settings, path, media_type, body)
        seconds = perf_counter() - began
        await asyncio.sleep(0.05)
        waiting.cancel()
        waits.append(await waiting)
        if seconds > _LONG_SECONDS:
            break
    peak = _peak_bytes(pid)
    return {
        "bytes": len(body),
        "status": status,
        "seconds": round(seconds, 2),
        "longest_wait_ms": round(min(waits) * 1000, 1),
        "longest_wait_before_ms": round(await quiet * 1000, 1),
        "peak_mib": round((peak - before) / _MIB, 1),
        "times": round((peak - before) / len(body), 1),
        "answer_kib": round(answer / 1024, 1),
    }


async def create_shape_indexes(settings: Settings) -> None:
    """Create the indexes that the bodies are sent to, and ask for a first search."""
    async with LoopbackConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:
        await connection.send("PUT", INDEX_PATH, orjson.dumps({"fields": {"a": "number"}}))
        await connection.send("PUT", _TALK_INDEX, orjson.dumps({"talk": {}}))
        await connection.send("POST", f"{INDEX_PATH}/search", b'{"query":"x"}')


async def _send(settings: Settings, path: str, media_type: str, body: bytes) -> tuple[int, int]:
    """Send a body. Return the status and the bytes of the answer."""
    reader, writer = await asyncio.open_connection(settings.api_host, settings.api_port)
    method, _, path = path.rpartition(" ")
    head = f"{method or 'POST'} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {media_type}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(answer.partition(b"content-length:")[2].split(b"\r\n")[0])
    await reader.readexactly(length)
    writer.close()
    return int(answer.split(b" ", 2)[1]), length


async def _longest_wait(settings: Settings) -> float:
    """Ask for the health of the process until cancelled. Return the longest wait in seconds."""
    reader, writer = await asyncio.open_connection(settings.api_host, settings.api_port)
    longest = 0.0
    began = perf_counter()
    try:
        while True:
            began = perf_counter()
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"}")
            longest = max(longest, perf_counter() - began)
            await asyncio.sleep(_CHECK_SECONDS)
    except asyncio.CancelledError:
        return max(longest, 0.0)
    finally:
        writer.close()


def _reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def _peak_bytes(pid: int) -> int:
    """Return the peak of the memory of a process since the last reset."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
