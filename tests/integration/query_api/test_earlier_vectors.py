"""Updates read earlier vectors in bounded pages, and a delete in between takes these vectors away."""

from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any

import httpx
import pytest

from services.documents.document import encoded_version
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.encoders.vectors import SparseVector
from services.opensearch.bulk import Write, write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.stored_document import PAGE_BYTES, stored_size
from services.settings import Settings

DOCUMENTS = 40
AfterRead = Callable[[], Awaitable[None]]


class Reads:
    """The bytes of stored documents in each answer, and a function to call after the next read of whole documents."""

    def __init__(self) -> None:
        self.bytes: list[int] = []
        self.after: AfterRead | None = None

    async def record(self, call: Call, answer: Any) -> None:
        if not call.path.endswith("/_mget"):
            return
        self.bytes.append(sum(stored_size(document.get("_source", {})) for document in answer["docs"]))
        after, self.after = self.after, None
        if after is not None:
            await after()


@pytest.fixture
def reads(watch_calls: Callable[[Any], None]) -> Reads:
    seen = Reads()
    watch_calls(seen.record)
    return seen


@pytest.fixture
async def asking(api_here: httpx.AsyncClient) -> httpx.AsyncClient:
    assert (await api_here.put("/v1/indexes/docs")).status_code == 201
    return api_here


def store_encoded(settings: Settings, count: int, windows: int) -> None:
    """Store encoded documents `d0`, `d1`, ... with this number of windows."""
    vector = SparseVector.of(list(range(100)), [1.0] * 100).pack()
    source = {
        "text": "old text",
        "state": "encoded",
        "version": 1,
        "encoder": read_manifest(resolve_model_directory("standin")).fingerprint,
        "windows": [{"start": number, "end": number + 1, "vector": vector} for number in range(windows)],
    }
    alias = f"{settings.index_prefix}-docs"
    with closing(SyncSearchClient(settings)) as search:
        writes = [Write(alias, f"d{number}", encoded_version(1), source) for number in range(count)]
        write_bulk(search, writes, 4 * 1024**2, 60)


async def test_earlier_vectors_are_read_in_pages_by_bytes(
    settings: Settings, reads: Reads, asking: httpx.AsyncClient
) -> None:
    """Sixty texts of 1 MiB with 1,200 windows took the API to 536 MiB for a request of 1,671 bytes."""
    store_encoded(settings, DOCUMENTS, windows=1200)
    changed = [{"id": f"d{number}", "text": "new"} for number in range(DOCUMENTS)]
    answer = await asking.post("/v1/indexes/docs/documents", json=[*changed, {"id": "another", "text": "new"}])
    names = [document["id"] for document in changed]
    assert answer.json()["accepted"] == [*names, "another"], "in the order of the request"
    assert sum(reads.bytes) > 4 * PAGE_BYTES, "each stored document was read"
    assert max(reads.bytes) <= PAGE_BYTES
    for name in ("d0", "d39"):
        shown = (await asking.get(f"/v1/indexes/docs/documents/{name}")).json()
        assert (shown["state"], shown["vectors"], shown["text"]) == ("pending", "earlier", "new")


@pytest.mark.parametrize("deleted", [True, False])
async def test_a_delete_between_the_read_and_the_write_takes_the_earlier_vectors_away(
    settings: Settings, reads: Reads, asking: httpx.AsyncClient, *, deleted: bool
) -> None:
    store_encoded(settings, 1, windows=1)

    async def delete() -> None:
        if deleted:
            assert (await asking.delete("/v1/indexes/docs/documents/d0")).status_code == 204

    reads.after = delete
    answer = await asking.put("/v1/indexes/docs/documents/d0", json={"text": "new"})
    assert answer.status_code == 202, answer.text
    shown = (await asking.get("/v1/indexes/docs/documents/d0")).json()
    assert (shown["text"], shown["vectors"]) == ("new", "none" if deleted else "earlier")
