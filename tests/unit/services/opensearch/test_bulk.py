"""Tests of bulk writes: sizes of requests, verdicts, retries and order."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from services.opensearch.bulk import BulkRun, Write, WriteOutcome, judge_item


def writes(count: int, size: int = 10) -> list[Write]:
    return [Write("i", str(n), n + 1, {"text": "x" * size}) for n in range(count)]


def sent_ids(body: bytes | None) -> list[str]:
    assert body is not None
    return [orjson.loads(line)["index"]["_id"] for line in body.splitlines()[::2]]


def answer(statuses: list[int], kind: str = "boom") -> dict[str, Any]:
    return {
        "items": [
            {"index": {"status": status, "_index": "g2"} | ({"error": {"type": kind}} if status >= 300 else {})}
            for status in statuses
        ]
    }


def test_requests_are_limited_by_bytes_and_contain_at_least_one_write() -> None:
    run = BulkRun(writes(5, 100), max_bytes=450)
    groups = []
    while not run.done:
        call = run.next_call()
        groups.append(sent_ids(call.body))
        run.answered(answer([201] * len(groups[-1])))
    assert groups == [["0", "1"], ["2", "3"], ["4"]]
    assert len(sent_ids(BulkRun(writes(2, 1000), 10).next_call().body)) == 1


def test_each_item_gets_its_own_verdict() -> None:
    run = BulkRun(writes(4), 10_000)
    run.next_call()
    wait = run.answered(answer([201, 409, 400, 429], "mapper_parsing_exception"))
    assert wait >= 0
    assert not run.done
    assert sent_ids(run.next_call().body) == ["3"]
    run.answered(answer([200]))
    assert [verdict.outcome for verdict in run.give_up()] == [
        WriteOutcome.STORED, WriteOutcome.SUPERSEDED, WriteOutcome.REFUSED, WriteOutcome.STORED,
    ]  # fmt: skip
    assert run.give_up()[2].reason == "mapper_parsing_exception"
    assert [verdict.physical for verdict in run.give_up()] == ["g2", "", "", "g2"], "where the alias led it"


def test_a_blocked_write_is_retried() -> None:
    run = BulkRun(writes(1), 10_000)
    run.next_call()
    run.answered(answer([403], "cluster_block_exception"))
    assert not run.done
    (verdict,) = run.give_up()
    assert (verdict.outcome, verdict.reason) == (WriteOutcome.NOT_STORED, "cluster_block_exception")


def test_a_failed_request_is_retried_whole_and_in_order() -> None:
    run = BulkRun(writes(3), 10_000)
    first = run.next_call().body
    run.failed("opensearch_unavailable")
    assert run.next_call().body == first


def test_writes_without_a_verdict_at_the_deadline_are_not_stored() -> None:
    run = BulkRun(writes(2), 10_000)
    run.next_call()
    run.failed("opensearch_unavailable")
    assert [(v.outcome, v.reason) for v in run.give_up()] == [(WriteOutcome.NOT_STORED, "opensearch_unavailable")] * 2


def test_retry_delays_grow_up_to_a_limit() -> None:
    run = BulkRun(writes(1), 10_000)
    waits = []
    for _ in range(200):
        run.next_call()
        waits.append(run.failed("opensearch_unavailable"))
    assert max(waits) <= 5.0
    assert max(waits[6:]) > 0.2


def test_the_reason_never_contains_the_document() -> None:
    verdict = judge_item(400, {"type": "mapper_parsing_exception", "reason": "failed to parse: SECRET"})
    assert verdict is not None
    assert "SECRET" not in verdict.reason


@given(st.lists(st.sampled_from([200, 201, 409, 400, 429, 503]), max_size=30), st.integers(1, 2000))
def test_every_write_gets_one_verdict(statuses: list[int], max_bytes: int) -> None:
    run = BulkRun(writes(len(statuses)), max_bytes)
    first_time: set[str] = set()
    while not run.done:
        ids = sent_ids(run.next_call().body)
        run.answered(answer([statuses[int(i)] if i not in first_time else 201 for i in ids]))
        first_time |= set(ids)
    expected = {409: WriteOutcome.SUPERSEDED, 400: WriteOutcome.REFUSED}
    assert [v.outcome for v in run.give_up()] == [expected.get(status, WriteOutcome.STORED) for status in statuses]
