"""Tests of the check for lost answers and of the count of the backlog."""

from typing import Any

import orjson
import pytest

from services.errors import BackendUnavailable
from services.index_spec import IndexNames
from services.opensearch.bulk import Verdict, Write, WriteOutcome
from services.opensearch.journal import BacklogCounts, LostAnswerCheck, backlog_call, read_backlog

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


def test_a_backlog_of_more_than_a_thousand_generations_is_whole() -> None:
    body = orjson.loads(backlog_call(IndexNames("p"), 5).body or b"")
    size = body["aggs"]["generations"]["terms"]["size"]
    assert 20_000 <= size <= 65_535 // 2, "OpenSearch answers 65,535 buckets, two a generation"
    buckets = [
        {"key": f"p-{n}.g000001", "doc_count": 2, "pending": {"doc_count": 1, "oldest": {"value": 5.0}}}
        for n in range(2500)
    ]
    generations: dict[str, Any] = {"buckets": buckets, "sum_other_doc_count": 0}
    answer = {"aggregations": {"generations": generations}}
    assert set(read_backlog(answer).values()) == {BacklogCounts(pending=1, dead=1, oldest=5)}
    assert len(read_backlog(answer)) == 2500
    generations["sum_other_doc_count"] = 1
    with pytest.raises(BackendUnavailable, match="too_many_generations"):
        read_backlog(answer)
