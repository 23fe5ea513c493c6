"""The parts of `sparsewell load` that need no service."""

import json
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.api_client import read_json_response
from cli.loading.checkpoint import LoadCheckpoint, checkpoint_name
from cli.loading.destinations import (
    MAX_QUEUE_BYTES,
    MAX_WAITING_MESSAGES,
    batch_idempotency_key,
    group_contiguous,
    is_full,
    parse_batch,
)
from cli.loading.load import parse_fields
from cli.loading.source import Refusal, SourceBatch, SourcePosition
from services.errors import BackendUnavailable, ConfigurationError, Conflict, InvalidInput, NotFound, Overloaded


def test_lines_that_are_no_documents_never_reach_the_queue() -> None:
    batch = SourceBatch(
        [(1, b'{"id":"1"}'), (3, b"{bad"), (4, b"[1]"), (5, b'{"id":"2"}'), (6, b'{"id":"3"}')], SourcePosition()
    )
    documents, refusals = parse_batch(batch)
    assert [number for number, _ in documents] == [1, 5, 6]
    assert [(refusal.line, refusal.code) for refusal in refusals] == [(3, "invalid_json"), (4, "not_an_object")]
    assert [[number for number, _ in group] for group in group_contiguous(documents)] == [[1], [5, 6]]


@given(st.sets(st.integers(1, 60)))
def test_contiguous_groups_have_no_gaps_and_lose_nothing(numbers: set[int]) -> None:
    groups = list(group_contiguous([(number, {}) for number in sorted(numbers)]))
    assert [number for group in groups for number, _ in group] == sorted(numbers)
    for group in groups:
        assert [number for number, _ in group] == list(range(group[0][0], group[0][0] + len(group)))
    for before, after in pairwise(groups):
        assert after[0][0] > before[-1][0] + 1


def test_a_checkpoint_round_trips(tmp_path: Path) -> None:
    record = LoadCheckpoint(tmp_path / "r.json", "c", SourcePosition(1, 7, 99), [0, 40], ["j1"], 7, 5)
    record.refuse([Refusal(3, "x", "missing_text", "A document needs a `text`.", "a.csv")])
    record.save()
    assert LoadCheckpoint.open(record.path, "other") == record  # the caller notices the other content
    record.forget()
    assert not LoadCheckpoint.open(record.path, "c").resumed


@pytest.mark.parametrize("content", ["", "{", "[]", '{"place": 3}'])
def test_a_damaged_checkpoint_starts_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content)
    assert not LoadCheckpoint.open(tmp_path / "r.json", "c").resumed


class Killed(BaseException):
    """Represent the end of the process by a signal."""


def killed(*_: object) -> None:
    raise Killed


def test_saved_refusals_are_kept_and_those_of_a_killed_load_are_not(tmp_path: Path) -> None:
    record = LoadCheckpoint(tmp_path / "r.json", "c")
    for _ in range(3):
        record.refuse([Refusal(i, None, "x", "y") for i in range(600, 0, -1)])
        record.save()
    assert record.rejected == 1800
    assert [one.line for one in record.refusals()] == sorted(list(range(1, 601)) * 3)
    record.refuse([Refusal(1, None, "x", "died before this was recorded")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            record.save()
    again = LoadCheckpoint.open(record.path, "c")
    again.refuse([Refusal(9, None, "x", "last", "z")])
    again.save()
    assert list(again.refusals())[-1].reason == "last"
    assert len(list(again.refusals())) == 1801
    LoadCheckpoint(record.path, "c").refuse([])
    anew = LoadCheckpoint(record.path, "c")
    anew.refuse([Refusal(2, None, "x", "y")])
    anew.save()
    assert len(list(anew.refusals())) == 1
    anew.forget()
    assert list(tmp_path.iterdir()) == []


def test_very_many_refusals_are_not_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.loading.checkpoint.MAX_SORTED_REFUSALS", 5)
    record = LoadCheckpoint(tmp_path / "r.json", "c")
    record.refuse([Refusal(i, None, "x", "y") for i in range(9, 0, -1)])
    record.save()
    assert [one.line for one in record.refusals()] == list(range(9, 0, -1))


def test_another_index_destination_or_field_map_is_another_load(tmp_path: Path) -> None:
    ways = [("api x", "i", "1", ""), ("api y", "i", "1", ""), ("api x", "j", "1", ""), ("api x", "i", "2", "m")]
    assert len({checkpoint_name([tmp_path / "a"], *way) for way in ways}) == 4
    assert checkpoint_name([tmp_path / "a"], *ways[0]) != checkpoint_name([tmp_path / "a", tmp_path / "b"], *ways[0])


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {"code": "index_not_found", "detail": "No."}, NotFound),
        (409, {"code": "already_exists", "detail": "No."}, Conflict),
        (422, {"code": "no_document_accepted", "detail": "No.", "rejected": [1]}, InvalidInput),
        (429, {"code": "overloaded", "detail": "Later."}, Overloaded),
        (503, {"code": "opensearch_unavailable", "detail": "Later."}, BackendUnavailable),
        (502, "a proxy's page", BackendUnavailable),
        (200, "another server's page", BackendUnavailable),
        (404, "another server's page", BackendUnavailable),
    ],
)
def test_answers_become_errors_of_their_classes(status: int, body: object, kind: type[Exception]) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(kind) as caught:
        read_json_response(httpx.Response(status, text=content, headers={"retry-after": "3"}))
    assert type(caught.value) is kind
    assert caught.value.extra["retry_after"] == 3  # type: ignore[attr-defined]


def test_fields_are_declared_by_name_and_type() -> None:
    assert parse_fields(["year=number", "tag=keyword"], create=True) == {"year": "number", "tag": "keyword"}
    for wrong in ("year", "=number", "year=float"):
        with pytest.raises(ConfigurationError, match="NAME=TYPE"):
            parse_fields([wrong], create=True)
    with pytest.raises(ConfigurationError, match="--create"):
        parse_fields(["year=number"], create=False)


def test_the_key_of_a_batch_depends_on_load_line_and_content() -> None:
    ways = [("load", 1, b"x"), ("other", 1, b"x"), ("load", 2, b"x"), ("load", 1, b"y")]
    keys = [batch_idempotency_key(*way) for way in ways]
    assert len(set(keys)) == 4
    assert keys[0] == batch_idempotency_key(*ways[0])
    assert all(len(key) <= 200 and key.isalnum() for key in keys)


@pytest.mark.parametrize(
    ("messages", "held", "expected"),
    [
        (0, 10**9, False),  # an empty queue has room, whatever its memory
        (1, None, False),
        (MAX_WAITING_MESSAGES, MAX_QUEUE_BYTES, False),
        (MAX_WAITING_MESSAGES + 1, None, True),
        (1, MAX_QUEUE_BYTES + 1, True),
    ],
)
def test_a_queue_is_full_by_messages_or_bytes(messages: int, held: int | None, expected: bool) -> None:
    assert is_full(messages, held) is expected
