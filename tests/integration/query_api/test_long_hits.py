"""Searches that return long documents let other requests run between two of them, and exports run beside them.

The best passage of a text of 1 MiB with 1,200 windows takes 10 ms, and its merged vector 35 ms. A search that named
twenty such documents in `like` blocked the event loop for .7 s, and an export of their vectors for 2.9 s.
"""

import pkgutil
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import pytest

from query_api.ingest.item_blocks import TURN_BYTES, LoopTurns
from services.documents.document import encoded_version
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import SparseVector
from services.opensearch.bulk import Write, write_bulk
from services.opensearch.client import SyncSearchClient
from services.settings import Settings

DOCUMENTS = 3
WINDOWS = 200
SEARCH = "/v1/indexes/long/search"


@pytest.fixture
async def long_documents(api_here: httpx.AsyncClient, settings: Settings) -> httpx.AsyncClient:
    """Store documents `d0`, `d1`, ... with more bytes than a turn has."""
    assert (await api_here.put("/v1/indexes/long")).status_code == 201
    directory = resolve_model_directory("standin")
    pieces = sorted({*QueryTable.load(directory).encode("whale").ids, *range(500, 600)})
    vector = SparseVector.of(pieces, [1.0] * len(pieces))
    packed = vector.pack()
    source = {
        "text": "A whale. " * WINDOWS,
        "state": "encoded",
        "version": 1,
        "encoder": read_manifest(directory).fingerprint,
        "windows": [{"start": 9 * number, "end": 9 * number + 9, "vector": packed} for number in range(WINDOWS)],
        "sparse": vector.features(),
    }
    with closing(SyncSearchClient(settings)) as search:
        names = [f"d{number}" for number in range(DOCUMENTS)]
        writes = [Write(f"{settings.index_prefix}-long", name, encoded_version(1), source) for name in names]
        write_bulk(search, writes, 4 * 1024**2, 60)
    await api_here.delete("/v1/indexes/long/documents/none?version=1&wait=searchable")
    return api_here


@pytest.mark.parametrize(
    ("request_members", "passes"),
    [
        ({"query": "whale"}, 1),
        ({"query": "whale", "explain": True, "highlight": True}, 2),
        ({"like": ["d0", "d1", "d2"], "include_liked": True, "passage": False, "fields": []}, 1),
        ({"query": "whale", "feedback": {"documents": 3}, "passage": False, "fields": []}, 1),
    ],
)
async def test_other_requests_run_between_two_long_documents(
    long_documents: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, request_members: dict[str, Any], passes: int
) -> None:
    counted: list[int] = []
    count = LoopTurns.count

    async def record(self: LoopTurns, size: int) -> None:
        counted.append(size)
        await count(self, size)

    monkeypatch.setattr(LoopTurns, "count", record)
    answer = await long_documents.post(SEARCH, json={"mode": "sparse", **request_members})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["hits"]) == DOCUMENTS
    assert sum(size > TURN_BYTES for size in counted) == passes * DOCUMENTS


@pytest.mark.parametrize(
    ("function", "path"),
    [
        ("query_api.export.format_exported_document", "/v1/indexes/long/export?vectors=true"),
        ("query_api.routes.documents.read_segments", "/v1/indexes/talk/documents/t?segments=true"),
    ],
)
async def test_long_documents_are_formatted_beside_the_loop(
    long_documents: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, function: str, path: str
) -> None:
    talk = {"id": "t", "kind": "talk", "segments": [{"text": "a"}]}
    assert (await long_documents.put("/v1/indexes/talk", json={"talk": {}})).status_code == 201
    assert (await long_documents.post("/v1/indexes/talk/documents", json=[talk])).status_code == 202
    original: Callable[..., Any] = pkgutil.resolve_name(function)
    threads = set()

    def recorded(*arguments: Any) -> Any:
        threads.add(threading.get_ident())
        return original(*arguments)

    monkeypatch.setattr(function, recorded)
    answer = await long_documents.get(path)
    assert answer.status_code == 200, answer.text
    assert threads
    assert threading.get_ident() not in threads
