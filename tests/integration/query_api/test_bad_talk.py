"""Faulty transcripts over the API and the queue: refused with a code, or repaired with a note in the document."""

from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

from indexer.ingest_task import run_ingest
from indexer.runtime import Runtime, WorkerSettings
from services.settings import Settings

TIMED = [{"start": 10 * i, "end": 10 * i + 9, "text": f"word{i} is said."} for i in range(6)]
MENDED: dict[str, tuple[set[str], dict[str, Any]]] = {
    "overlapping": ({"overlapping_segments"}, {"segments": [*TIMED, {"start": 58, "end": 70, "text": "over"}]}),
    "unordered": ({"unordered_segments"}, {"segments": TIMED[::-1]}),
    "missing-ends": ({"missing_ends"}, {"segments": [{"start": i, "text": f"word{i}"} for i in range(5)]}),
    "beyond-duration": ({"beyond_duration"}, {"segments": TIMED, "duration": 30}),
    "no-full-stop": ({"long_segments"}, {"segments": [{"start": 0, "end": 36_000, "text": "so and then " * 2_000}]}),
    "two-languages": (set(), {"segments": [{"text": "Guten Morgen, wie geht es?"}, {"text": "早上好。"}]}),
    "contradicting": (
        {"chapters_beyond_end", "unordered_chapters", "chapters_without_text", "untitled_chapters"},
        {
            "segments": TIMED,
            "chapters": [
                {"startTime": 30, "title": "Half"}, {"startTime": 0, "title": ""}, {"startTime": 31, "title": "Same"},
                {"startTime": 500, "title": "Never"},
            ],
        },
    ),
}  # fmt: skip
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "empty": ("empty_transcript", {"transcript": {"type": "text/vtt", "text": "WEBVTT\n"}}),
    "wrong-type": ("unknown_transcript_type", {"transcript": {"type": "audio/mpeg", "text": "x"}}),
    "other-content": ("bad_transcript", {"transcript": {"type": "application/json", "text": "WEBVTT\n"}}),
    "untimed-chapters": ("chapters_without_times", {"text": "a", "chapters": [{"startTime": 5, "title": "A"}]}),
    "no-number": ("bad_time", {"segments": [{"start": -1, "text": "a"}]}),
    "many": ("too_many_segments", {"segments": [{"text": "x" * 60}] * 100_001}),
}
DOCUMENTS = [
    {"id": name, "kind": "talk", **members}
    for name, (_, members) in (*MENDED.items(), *REFUSED.items())
]  # fmt: skip
Refusals = list[tuple[str, str]]


def by_api(api: httpx.Client, _settings: Settings) -> Refusals:
    lines = b"\n".join(orjson.dumps(one) for one in DOCUMENTS)
    answer = api.post("/v1/indexes/talks/documents", content=lines, headers={"content-type": "application/x-ndjson"})
    assert answer.status_code == 202, answer.text
    return [(one["id"], one["code"]) for one in answer.json()["rejected"]]


def by_queue(api: httpx.Client, settings: Settings) -> Refusals:
    runtime = Runtime(settings, WorkerSettings())
    message = {"contract": "sparsewell.ingest.v1", "index": "talks", "job": "j", "documents": DOCUMENTS}
    run_ingest(runtime, message, "m", redelivered=False)
    runtime.search.close()
    return [(one["id"], one["code"]) for one in api.get("/v1/jobs/j").json()["rejections"]]


@pytest.mark.parametrize("door", [by_api, by_queue])
def test_bad_talk_is_refused_or_mended_and_said(
    api: httpx.Client, settings: Settings, door: Callable[[httpx.Client, Settings], Refusals]
) -> None:
    assert api.put("/v1/indexes/talks", json={"talk": {}}).status_code == 201
    assert door(api, settings) == [(name, code) for name, (code, _) in REFUSED.items()]
    for name, (codes, _) in MENDED.items():
        shown = api.get(f"/v1/indexes/talks/documents/{name}").json()
        assert {one["code"] for one in shown.get("talk_repairs", ())} == codes, name
