"""Intake: documents per second that the API acknowledges, and the cost of parsing a transcript.

    python -m benchmarks ingest_throughput --json benchmarks/results/ingest_throughput.json
    python -m benchmarks talk_intake --json benchmarks/results/talk_intake.json

`ingest_throughput`: one client sends NDJSON with 500 documents a request. An acknowledged document is on disk (translog
fsync) and its message in Redis; no worker runs. `talk_intake`: ten hours of synthetic talk in 50,000 segments, one
every 0.72 s, in each format; `plain text` is a paragraph without a full stop. It needs no server.
"""

import argparse
import tracemalloc
from collections.abc import Callable
from functools import partial
from time import perf_counter, process_time
from typing import Any

import orjson
import uvloop

from benchmarks.measuring import make_parser, run_benchmark
from benchmarks.service import LoopbackConnection, open_service, read_opensearch_version, run_process
from benchmarks.stdlib import STDLIB_SPEC, read_stdlib_documents
from services.documents.document import Document, parse_document_bytes
from services.index_spec import IndexSpec
from services.settings import Settings

TALK_SPEC = IndexSpec.model_validate({"talk": {}})
_SECONDS_PER_SEGMENT = 0.72


def ingest_throughput(argv: list[str] | None = None) -> None:
    """Measure the documents per second that POST /documents acknowledges."""
    parser = make_parser("ingest_throughput", ingest_throughput.__doc__)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    run_benchmark("ingest_throughput", parser, measure_documents, argv)


def measure_documents(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the median of the rounds, and all rounds."""
    documents = read_stdlib_documents(arguments.documents)
    with open_service() as settings, run_process(settings, "api"):
        rounds = uvloop.run(ingest_rounds(settings, documents, arguments.batch, arguments.rounds))
        version = read_opensearch_version(settings)
    rounds.sort(key=lambda row: row["documents_a_second"])
    return {
        "opensearch": version,
        "documents": len(documents),
        "median": {name: round(value, 2) for name, value in rounds[len(rounds) // 2].items()},
        "rounds": [{name: round(value, 2) for name, value in row.items()} for row in rounds],
    }


async def ingest_rounds(
    settings: Settings, documents: list[Document], batch: int, rounds: int
) -> list[dict[str, float]]:
    """Return documents and bytes per second of each round into a new index; the first round is not counted."""
    lines = [
        orjson.dumps({"id": doc.id, "title": doc.title, "text": doc.text, "metadata": doc.metadata}) + b"\n"
        for doc in documents
    ]
    bodies = [b"".join(lines[at : at + batch]) for at in range(0, len(lines), batch)]
    results = []
    async with LoopbackConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:
        for number in range(rounds + 1):
            path = f"/v1/indexes/round{number}"
            await connection.send("PUT", path, orjson.dumps({"fields": STDLIB_SPEC.fields}))
            started = perf_counter()
            accepted = 0
            for body in bodies:
                answer = await connection.send("POST", f"{path}/documents", body, "application/x-ndjson")
                accepted += len(answer["accepted"])
            seconds = perf_counter() - started
            if accepted != len(documents):
                raise RuntimeError(f"{accepted} of {len(documents)} documents were accepted")
            if number:
                megabytes = sum(map(len, bodies)) / 1e6
                results.append({"documents_a_second": accepted / seconds, "megabytes_a_second": megabytes / seconds})
                print(f"round {number}: {accepted / seconds:,.0f} documents a second", flush=True)
    return results


def talk_intake(argv: list[str] | None = None) -> None:
    """Measure time and memory to parse a transcript of 50,000 segments, by format."""
    parser = make_parser("talk_intake", talk_intake.__doc__)
    parser.add_argument("--segments", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    run_benchmark("talk_intake", parser, measure_talk, argv)


def measure_talk(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return processor seconds (the best round), peak memory and the size of the result, by format."""
    rows = {}
    for name, members in make_transcripts(arguments.segments).items():
        raw = orjson.dumps({"id": "t", "kind": "talk", **members})
        read = partial(parse_document_bytes, raw, TALK_SPEC)
        document = read()
        assert document.talk is not None  # noqa: S101 (for the types)
        rows[name] = {
            "bytes": len(raw),
            "segments": len(document.talk.segments),
            "stored_bytes": len(orjson.dumps(document.talk.segments.pack())),
            "seconds": round(min(_processor_seconds(read) for _ in range(arguments.rounds)), 3),
            "peak_mb": round(_peak_bytes(read) / 1e6, 1),
        }
        print(f"{name:>12}: {rows[name]['seconds']:.2f} s, {rows[name]['peak_mb']:.0f} MB at most")
    return {"forms": rows}


def make_transcripts(segments: int) -> dict[str, dict[str, Any]]:
    """Return the members of a talk in each format."""
    rows = [
        (i * _SECONDS_PER_SEGMENT, i * _SECONDS_PER_SEGMENT + 0.7, f"S{i // 20 % 5}", f"w{i} and so")
        for i in range(segments)
    ]
    cues = [(_format_clock(start), _format_clock(end), speaker, text) for start, end, speaker, text in rows]
    podcasting = {
        "version": "1.0.0",
        "segments": [{"startTime": s, "endTime": e, "speaker": who, "body": t} for s, e, who, t in rows],
    }
    srt = (f"{i}\n{s.replace('.', ',')} --> {e.replace('.', ',')}\n{t}\n" for i, (s, e, _, t) in enumerate(cues, 1))
    return {
        "segments": {"segments": [{"start": s, "end": e, "speaker": who, "text": t} for s, e, who, t in rows]},
        "podcasting": {"transcript": {"type": "application/json", "text": orjson.dumps(podcasting).decode()}},
        "webvtt": {
            "transcript": {
                "type": "text/vtt",
                "text": "WEBVTT\n\n" + "\n".join(f"{s} --> {e}\n<v {who}>{t}\n" for s, e, who, t in cues),
            }
        },
        "subrip": {"transcript": {"type": "application/x-subrip", "text": "\n".join(srt)}},
        "plain text": {"text": "so and then " * (segments * 5 // 3)},
    }


def _format_clock(seconds: float) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def _processor_seconds(read: Callable[[], object]) -> float:
    started = process_time()
    read()
    return process_time() - started


def _peak_bytes(read: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
