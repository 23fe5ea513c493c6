"""Pages of whole documents have a bounded number of bytes, whatever the documents hold."""

from collections.abc import Sequence
from typing import Any

import pytest

from services.opensearch.bulk import BulkRun, Write
from services.opensearch.stored_document import (
    MAX_PAGE_DOCUMENTS,
    PAGE_BYTES,
    StoredDocument,
    WholeDocumentPages,
    stored_size,
)


def stored(**source: Any) -> StoredDocument:
    return StoredDocument("d", 1, source)


def test_the_number_of_documents_doubles_while_they_are_small() -> None:
    pages, sizes = WholeDocumentPages(4), []
    ids: Sequence[str] = [str(number) for number in range(200)]
    while ids:
        page, ids = pages.take(ids)
        sizes.append(len(page))
        pages.record([stored(text="short")] * len(page))
    assert sizes == [4, 8, 16, 32, 32, 32, 32, 32, 12]
    assert MAX_PAGE_DOCUMENTS == 32


@pytest.mark.parametrize(
    "source",
    [
        {"text": "x" * (PAGE_BYTES // 2)},
        {"dense": "x" * (PAGE_BYTES // 2)},
        {"windows": [{"vector": "x" * 1000}] * (PAGE_BYTES // 2000)},
        {"earlier": {"vectors": {"windows": [{"vector": "x" * 1000}] * (PAGE_BYTES // 2000)}}},
    ],
)
def test_large_documents_make_pages_small(source: dict[str, Any]) -> None:
    assert PAGE_BYTES // 2 <= stored_size(source) <= PAGE_BYTES * 0.55
    pages = WholeDocumentPages(8)
    pages.record([stored(**source)] * 8)
    assert pages.size in (1, 2)
    pages.record([])
    assert pages.size in (1, 2), "documents that are gone tell nothing"


def test_search_fields_are_built_when_a_request_is_built() -> None:
    built = []

    def fields(number: int) -> dict[str, Any]:
        built.append(number)
        return {"sparse": {"1": 2.0}}

    writes = [Write("a", str(n), 1, {"text": "x"}, lambda n=n: fields(n)) for n in range(3)]  # type: ignore[misc]
    run = BulkRun(writes, max_bytes=1)
    assert (built, run.builds_fields) == ([], True)
    assert b'{"text":"x","sparse":{"1":2.0}}' in (run.next_call().body or b"")
    assert 2 not in built, "only the next request and the first write that did not fit"
