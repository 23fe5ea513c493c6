"""Bodies of any shape are read in bounded memory, and other requests run between a few of their items."""

import asyncio
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query_api.ingest.backpressure import BackgroundReader
from query_api.ingest.ingest import Ingestion
from query_api.ingest.item_blocks import (
    LONG_JSON_BYTES,
    TURN_BYTES,
    TURN_ITEMS,
    ItemBlocks,
    LoopTurns,
    check_items,
    take_turns,
)
from query_api.ingest.request_body import BodyForm, split_lines
from services.documents.document import VersionClock
from services.documents.json_structure import ArraySplitter
from services.encoders.manifest import WindowSettings
from services.errors import InvalidInput, SparsewellError, TooLarge
from services.index_spec import DocumentLimits, EncoderIdentity, Generation, IndexSpec
from services.opensearch.jobs import MAX_KEPT_REJECTIONS

SPECS = (IndexSpec.model_validate({"fields": {"a": "number"}}), IndexSpec.model_validate({"talk": {}}))
LIMITS = DocumentLimits()
MAX_DOCUMENTS = 5000
BODY_BYTES = 1_000_000
# Beside ten times the body: 8 MiB for the values of a document, and 1,000 rejections with their reasons.
ALLOWED_BYTES = 10_000_000

ATOMS = st.sampled_from([b"0", b"[]", b"{}", b'"a"', b'""', b"null", b"1e5", b'"\\u0041\\""', b'{"a":0}', b"[[[]]]"])
WRAPPERS = st.sampled_from(
    [b"%s", b"[%s]", b'{"id":"a","text":[%s]}', b'{"id":"a","kind":"talk","segments":[%s]}', b'{"a":{"b":[%s]}}']
)


@pytest.fixture
def reader() -> Iterator[BackgroundReader]:
    reader = BackgroundReader()
    yield reader
    reader.close()


def generation(spec: IndexSpec) -> Generation:
    return Generation(
        index="docs", number=1, physical="x-docs.g000001", spec=spec, window=WindowSettings(pieces=382, overlap=48),
        encoder=EncoderIdentity(name="e", fingerprint="f"), created_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


class Spy(BackgroundReader):
    """A reader that counts what it reads beside the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.beside = 0

    async def run(self, read: Callable[[], Any], size: int) -> Any:
        loop_thread = threading.get_ident()

        def counted() -> Any:
            self.beside += threading.get_ident() != loop_thread
            return read()

        return await super().run(counted, size)


class Turns:
    """Another task beside a reader: its turns, and the most items that were read between two of them."""

    def __init__(self) -> None:
        self.taken = self.longest = self._items = 0

    async def read(self, blocks: ItemBlocks) -> AsyncIterator[tuple[int, object]]:
        beside = asyncio.create_task(self._run())
        async for numbered in take_turns(blocks):
            self._items += 1
            self.longest = max(self.longest, self._items)
            yield numbered
        beside.cancel()

    async def read_all(self, blocks: ItemBlocks) -> None:
        async for _ in self.read(blocks):
            pass

    async def _run(self) -> None:
        while True:
            self.taken += 1
            self._items = 0
            await asyncio.sleep(0)


def as_blocks(form: BodyForm, body: bytes, spec: IndexSpec) -> ItemBlocks:
    if form == "array":
        return ArraySplitter(body).blocks
    return partial(split_lines, bytearray(body), LIMITS.longest(spec))


async def ingest(
    form: BodyForm, body: bytes, spec: IndexSpec, turns: Turns, reader: BackgroundReader | None = None
) -> dict[str, Any]:
    """Refuse a body as the API does, and return the members of the answer."""
    reader = reader or BackgroundReader()
    app: Any = SimpleNamespace(
        document_limits=LIMITS, clock=VersionClock(), background_reader=reader,
        settings=SimpleNamespace(lease_seconds=1.0, journal_bytes=4 * 1024**2),
    )  # fmt: skip
    blocks = as_blocks(form, body, spec)
    ingestion = Ingestion(app, generation(spec), form)
    try:
        await check_items(form, blocks, MAX_DOCUMENTS, reader)
        async for position, item in turns.read(blocks):
            await ingestion.add(position, item)
        return ingestion.answer()
    except SparsewellError as error:
        return {"code": error.code, **error.extra}
    finally:
        reader.close()


@settings(max_examples=25)
@given(ATOMS, WRAPPERS, WRAPPERS, st.sampled_from(SPECS), st.sampled_from(["array", "lines"]), st.booleans())
def test_a_body_of_any_shape_costs_little(
    atom: bytes, inner: bytes, outer: bytes, spec: IndexSpec, form: BodyForm, inside: bool
) -> None:
    """The values are in one item (`inside`) or in an item each."""
    separator = b"\n" if form == "lines" and not inside else b","
    item = inner % atom
    many = separator.join([item] * (BODY_BYTES // (len(item) + 1)))
    body = outer % many if inside else many
    if form == "array":
        body = b"[" + body + b"]"
    turns = Turns()
    tracemalloc.start()
    answer = asyncio.run(ingest(form, body, spec, turns))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer["code"] in {"no_document_accepted", "too_many_documents"}
    assert len(answer.get("rejected", [])) <= MAX_KEPT_REJECTIONS
    assert turns.longest <= TURN_ITEMS
    # orjson reserves 12 bytes of address space for each byte of an item, and fills those of the values.
    peak -= 12 * (len(body) if inside else len(item))
    assert peak <= 10 * len(body) + ALLOWED_BYTES


@pytest.mark.parametrize("form", ["array", "lines"])
async def test_other_requests_run_between_a_few_items(form: BodyForm) -> None:
    turns = Turns()
    body = b"[" + b"0," * 4000 + b"0]" if form == "array" else b"0\n" * 4000
    await turns.read_all(as_blocks(form, body, SPECS[0]))
    assert turns.longest <= TURN_ITEMS
    long = b'["' + b"x" * 4_000_000 + b'"]' if form == "array" else b"\n" * 4_000_000
    turns = Turns()
    await turns.read_all(as_blocks(form, long, SPECS[0]))
    assert turns.taken >= len(long) // TURN_BYTES, "a long item and empty lines are read in parts"


async def test_without_turns_a_body_would_be_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above."""

    async def none(self: LoopTurns, size: int) -> None:
        pass

    monkeypatch.setattr(LoopTurns, "count", none)
    turns = Turns()
    await turns.read_all(as_blocks("array", b"[" + b"0," * 4000 + b"0]", SPECS[0]))
    assert turns.longest == 4001


async def test_rejections_are_counted_beyond_those_that_are_kept() -> None:
    answer = await ingest("lines", b"x\n" * 3000, SPECS[0], Turns())
    assert answer["code"] == "no_document_accepted"
    assert answer["rejected_count"] == 3000
    assert [each["position"] for each in answer["rejected"]] == list(range(1, MAX_KEPT_REJECTIONS + 1))


@pytest.mark.parametrize("form", ["array", "lines"])
async def test_more_documents_than_allowed_are_refused_as_a_whole(form: BodyForm, reader: BackgroundReader) -> None:
    body = b"[" + b"0," * MAX_DOCUMENTS + b"0]" if form == "array" else b"0\n" * (MAX_DOCUMENTS + 1)
    with pytest.raises(TooLarge) as error:
        await check_items(form, as_blocks(form, body, SPECS[0]), MAX_DOCUMENTS, reader)
    assert error.value.code == "too_many_documents"
    assert await check_items(form, as_blocks(form, body, SPECS[0]), MAX_DOCUMENTS + 1, reader) == MAX_DOCUMENTS + 1


@pytest.mark.parametrize("body", [b"[1,,2]", b"[1,]", b"[,]", b"[{]", b'[1,"\xff"]', b"[" * 2000 + b"]" * 2000])
async def test_an_error_in_the_json_refuses_the_body(body: bytes, reader: BackgroundReader) -> None:
    with pytest.raises(InvalidInput) as error:
        await check_items("array", as_blocks("array", body, SPECS[0]), MAX_DOCUMENTS, reader)
    assert error.value.code == "invalid_json"


@pytest.mark.parametrize("size", [1024, 2 * LONG_JSON_BYTES])
@pytest.mark.parametrize("spec", SPECS)
async def test_a_long_item_is_read_beside_the_loop(size: int, spec: IndexSpec) -> None:
    """The decoder counts values in blocks, between which the loop runs if it has another thread."""
    reader = Spy()
    text = b'[{"id":"a","text":"%s"}]' % (b",[" * (size // 2))
    await ingest("array", text, spec, Turns(), reader)
    assert reader.beside == (2 if size > LONG_JSON_BYTES else 0), "checked, then parsed"
