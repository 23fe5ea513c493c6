"""A wait for documents ends when the process is about to end, so that the answer still reaches its client."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from query_api.ingest import job_progress
from query_api.ingest.ingest import IngestResponse
from query_api.ingest.job_progress import MAX_WAIT_SECONDS, wait_for_documents
from services.errors import BackendUnavailable

ANSWER = IngestResponse({"job": {"id": "j", "index": "docs"}, "accepted": ["a"]})


class Readiness:
    """A process that is told to end after `counts` counts of the documents."""

    def __init__(self, counts: int) -> None:
        self.left = counts

    @property
    def is_draining(self) -> bool:
        return self.left <= 0


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Any:
    readiness = Readiness(2)

    async def generation(_index: str) -> None:
        return None

    async def count(*_: Any) -> dict[str, int]:
        readiness.left -= 1
        return {"pending": 1, "encoded": 0, "dead": 0, "deleted": 0}

    monkeypatch.setattr(job_progress, "count_states", count)
    return SimpleNamespace(readiness=readiness, generation=generation, waits=asyncio.Semaphore(1))


async def test_a_wait_ends_with_the_process(app: Any) -> None:
    async with asyncio.timeout(30):
        response = await wait_for_documents(app, ANSWER, "encoded", MAX_WAIT_SECONDS)
    states = {"pending": 1, "encoded": 0, "dead": 0}
    assert response.body["waited"] == {"for": "encoded", "reached": False, "states": states}
    assert app.readiness.left == 0


async def test_a_wait_in_vain_is_no_error(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> dict[str, int]:
        raise BackendUnavailable("opensearch_unavailable", "away")

    monkeypatch.setattr(job_progress, "count_states", fail)
    response = await wait_for_documents(app, ANSWER, "searchable", MAX_WAIT_SECONDS)
    assert (response.status, response.body["accepted"]) == (202, ["a"])
    assert response.body["waited"] == {"for": "searchable", "reached": False, "states": None}


async def test_a_write_beyond_the_limit_of_waits_is_answered_at_once(app: Any) -> None:
    """Each wait asks OpenSearch twice a second, so a process has a limit of them."""
    async with app.waits:
        response = await wait_for_documents(app, ANSWER, "encoded", MAX_WAIT_SECONDS)
    assert response.body["waited"] == {"for": "encoded", "reached": False, "states": None}
    assert app.readiness.left == 2, "nothing was counted"
