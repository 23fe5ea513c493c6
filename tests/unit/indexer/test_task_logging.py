"""The observation of a task: its log context and its outcome."""

import pytest
from celery.app.task import Context

from indexer.task_logging import observe_task
from services.telemetry.logs import current_log_context


@pytest.mark.parametrize(
    ("task", "headers", "body", "named"),
    [
        ("encode", {"request_id": "r1", "job": "j1"}, {"index": "notes"}, {"request_id": "r1", "job": "j1"}),
        ("encode", {}, {"index": "notes", "job": "of no use here"}, {}),
        ("ingest", {}, {"index": "notes", "job": "mine"}, {"job": "mine"}),
        ("ingest", {}, {"index": "notes"}, {"job": "m1"}),  # the message's id names the job
        ("ingest", {"request_id": "a b\n"}, {"index": "notes", "job": ["x"]}, {}),
    ],
)
def test_a_message_says_whose_it_is(
    task: str, headers: dict[str, str], body: dict[str, object], named: dict[str, str]
) -> None:
    with observe_task(task, Context({"id": "m1", **headers}), body):
        assert dict(current_log_context()) == {"message_id": "m1", "index": "notes", **named}
    assert not current_log_context()
