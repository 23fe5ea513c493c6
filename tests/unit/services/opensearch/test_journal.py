"""Tests of the check for lost answers."""

from typing import Any

import orjson

from services.opensearch.bulk import Verdict, Write, WriteOutcome
from services.opensearch.journal import LostAnswerCheck

STORED = Verdict(WriteOutcome.STORED, physical="g1")
SUPERSEDED = Verdict(WriteOutcome.SUPERSEDED)


def write(name: str, version: int = 1, job: str = "ours") -> Write:
    return Write("books", name, version, {"version": version, "job": job, "text": "A text."})


def answer(*stored: Write, physical: str = "g2") -> dict[str, Any]:
    docs = [
        {"_id": write.id, "_version": write.version, "_source": write.source, "_index": physical, "found": True}
        for write in stored
    ]
    return {"docs": [*docs, {"_id": "gone", "found": False}]}


def test_nothing_is_read_when_no_write_was_superseded() -> None:
    refused = Verdict(WriteOutcome.REFUSED, "mapper_parsing_exception")
    assert LostAnswerCheck("books", [write("a"), write("b")], [STORED, refused]).call() is None


def test_only_superseded_writes_are_read() -> None:
    call = LostAnswerCheck("books", [write("a"), write("b")], [STORED, SUPERSEDED]).call()
    assert call is not None
    assert (call.path, orjson.loads(call.body or b"")) == ("/books/_mget", {"ids": ["b"]})


def test_a_superseded_write_that_is_stored_counts_as_stored() -> None:
    writes = [write("a"), write("b"), write("c"), write("d")]
    check = LostAnswerCheck("books", writes, [STORED, SUPERSEDED, SUPERSEDED, SUPERSEDED])
    found = answer(write("b"), write("c", job="another"), write("d", version=2))
    assert check.resolve(found) == [
        STORED,
        Verdict(WriteOutcome.STORED, physical="g2"),
        SUPERSEDED,
        SUPERSEDED,
    ]
