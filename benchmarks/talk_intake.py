"""How long does it take to read a transcript when it comes in, and how much memory? At 50,000 segments.

    python -m benchmarks.talk_intake --json benchmarks/results/talk_intake.json

Ten hours of made-up talk, a segment each .72 s; `plain text` is one paragraph without a full stop. Needs no server.
"""

import argparse
import tracemalloc
from collections.abc import Callable
from functools import partial
from time import process_time
from typing import Any

import orjson

from benchmarks.record import command_line, run
from services.documents import parse_document_bytes
from services.index_spec import IndexSpec

SPEC = IndexSpec.model_validate({"talk": {}})
_EVERY = 0.72


def transcripts(segments: int) -> dict[str, dict[str, Any]]:
    """The members of a talk in each form."""
    rows = [(i * _EVERY, i * _EVERY + 0.7, f"S{i // 20 % 5}", f"w{i} and so") for i in range(segments)]
    cues = [(_clock(start), _clock(end), who, said) for start, end, who, said in rows]
    podcasting = {
        "version": "1.0.0",
        "segments": [{"startTime": s, "endTime": e, "speaker": who, "body": said} for s, e, who, said in rows],
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


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a processor (the best of some rounds), peak memory, and what comes of it, by form."""
    rows = {}
    for name, members in transcripts(given.segments).items():
        raw = orjson.dumps({"id": "t", "kind": "talk", **members})
        read = partial(parse_document_bytes, raw, SPEC)
        document = read()
        assert document.talk is not None  # noqa: S101 (for the types)
        rows[name] = {
            "bytes": len(raw),
            "segments": len(document.talk.segments),
            "stored_bytes": len(orjson.dumps(document.talk.segments.pack())),
            "seconds": round(min(_seconds(read) for _ in range(given.rounds)), 3),
            "peak_mb": round(_peak(read) / 1e6, 1),
        }
        print(f"{name:>12}: {rows[name]['seconds']:.2f} s, {rows[name]['peak_mb']:.0f} MB at most")
    return {"forms": rows}


def _seconds(read: Callable[[], object]) -> float:
    begun = process_time()
    read()
    return process_time() - begun


def _peak(read: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _clock(seconds: float) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("talk_intake", __doc__)
    parser.add_argument("--segments", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    run("talk_intake", parser, measure, arguments)


if __name__ == "__main__":
    main()
