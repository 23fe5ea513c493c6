"""Servers and processes of a benchmark's own: on free ports, in temporary folders, stopped at the end.

Texts that every machine has: docstrings of Python's standard library, with the length that passages have.

An index as the service makes it, filled with encoded documents without going through the queue.

A lean HTTP/1.1 client: one kept connection, nothing but what a measurement needs.

General clients cost more than what is measured here (httpx 2 ms a request, aiohttp 0.3 ms); this one about 0.1 ms.
It reads bodies with a content-length, which is what uvicorn and OpenSearch send for the answers used here.

What an index is made of, and making it one segment.
"""

import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import orjson

from examples.stdlib.corpus import read_documents
from infra import processes
from infra.opensearch.cluster import temporary_node
from infra.processes import ChildProcess, find_free_port
from infra.redis import temporary_redis
from infra.settings import LocalSettings
from infra.stack import service_processes, settings_environment, wait_until_ready
from services.documents.document import Document, joined_text
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.errors import BackendUnavailable
from services.index_spec import Generation, IndexNames, IndexSpec
from services.opensearch.bulk import Write, WriteOutcome, write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import create_generation_call, new_generation, refresh_call
from services.opensearch.journal import StoredDocument, encoded_write, raw_write
from services.opensearch.stored_document import EncodedWindow
from services.settings import Settings

if TYPE_CHECKING:
    from models.encoder import Encoder


# Shorter ones are a signature and a line.
MIN_CHARACTERS = 300


def read_docstrings(number: int) -> list[tuple[str, str]]:
    """Title and text of `number` documents of at least 300 characters, spread over the library; the same every time."""
    long_ones = [one for one in read_documents() if len(one["text"]) >= MIN_CHARACTERS]
    step = max(1, len(long_ones) // number)
    return [(one["title"], one["text"]) for one in islice(long_ones, 0, step * number, step)]


_BATCH_DOCUMENTS = 128
_TIMEOUT_SECONDS = 120.0

EncodedPair = tuple[Document, Sequence[EncodedWindow]]


def create_index(search: SyncSearchClient, settings: Settings, index: str, spec: IndexSpec | None = None) -> Generation:
    """An empty index behind its alias, for the configured encoder."""
    names = IndexNames(settings.index_prefix)
    manifest = read_manifest(resolve_model_directory(settings.encoder))
    generation = new_generation(names, index, 1, spec or IndexSpec.model_validate({}), manifest)
    search.send(create_generation_call(generation, settings, [names.alias(index)]))
    return generation


def journal_documents(
    search: SyncSearchClient, settings: Settings, generation: Generation, documents: Sequence[Document]
) -> None:
    """Writes raw documents as the API does. Raises BackendUnavailable when one is not stored."""
    _send_writes(search, settings, [_raw_write(generation, document) for document in documents])


def fill_generation(
    search: SyncSearchClient, settings: Settings, generation: Generation, encoded: Iterable[EncodedPair]
) -> None:
    """Writes encoded documents as a worker does, then refreshes."""
    some = iter(encoded)
    while writes := [_encoded_write(generation, one, windows) for one, windows in islice(some, 1000)]:
        _send_writes(search, settings, writes)
    search.send(refresh_call(generation.physical))


def encode_documents(encoder: "Encoder", documents: Sequence[Document]) -> Iterator[EncodedPair]:
    """Documents with the vectors of their windows."""
    for start in range(0, len(documents), _BATCH_DOCUMENTS):
        some = documents[start : start + _BATCH_DOCUMENTS]
        cut = [encoder.windows(joined_text(document.title, document.text)) for document in some]
        vectors = iter(encoder.encode([window for windows in cut for window in windows]))
        for document, windows in zip(some, cut, strict=True):
            yield document, [EncodedWindow(w.start, w.end, next(vectors)) for w in windows]


def _raw_write(generation: Generation, document: Document) -> Write:
    return raw_write(generation, document, "benchmark", 1, _TIMEOUT_SECONDS)


def _encoded_write(generation: Generation, document: Document, windows: Sequence[EncodedWindow]) -> Write:
    raw = _raw_write(generation, document)
    return encoded_write(generation, StoredDocument(raw.id, raw.version, raw.source), windows)


def _send_writes(search: SyncSearchClient, settings: Settings, writes: Sequence[Write]) -> None:
    for verdict in write_bulk(search, writes, settings.journal_bytes, _TIMEOUT_SECONDS):
        if verdict.outcome is not WriteOutcome.STORED:
            raise BackendUnavailable("not_stored", f"OpenSearch did not store a document ({verdict}).")


class LoopbackConnection:
    """One connection to one server. `async with` opens and closes it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def send(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Any:
        """The answer's JSON. Raises RuntimeError for a status above 299."""
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        top = await self._reader.readuntil(b"\r\n\r\n")
        answer = await self._reader.readexactly(_content_length(top))
        status = int(top[9:12])
        if status > 299:
            raise RuntimeError(f"{method} {path} was answered with {status}: {answer[:300]!r}")
        return orjson.loads(answer) if answer else None


def _content_length(top: bytes) -> int:
    for line in top.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise RuntimeError(f"an answer without content-length: {top[:300]!r}")


def wait_for_merges(search: SyncSearchClient, generation: Generation) -> None:
    """Returns once no merge runs on the index."""
    call = Call("GET", f"/{generation.physical}/_stats/merge", params={"filter_path": "_all.total"})
    while search.send(call)["_all"]["total"]["merges"]["current"]:
        time.sleep(0.5)


def merge_to_one_segment(search: SyncSearchClient, generation: Generation) -> None:
    """One segment. Half a million documents take minutes."""
    merge = {"max_num_segments": 1}
    search.send(Call("POST", f"/{generation.physical}/_forcemerge", params=merge, timeout=1800))


def index_size(search: SyncSearchClient, generation: Generation) -> dict[str, Any]:
    """Segments and documents of an index, and its bytes a document."""
    call = Call("GET", f"/{generation.physical}/_stats/segments,docs,store", params={"filter_path": "_all.primaries"})
    found = search.send(call)["_all"]["primaries"]
    documents = int(found["docs"]["count"])
    return {
        "segments": int(found["segments"]["count"]),
        "documents": documents,
        "bytes_a_document": round(found["store"]["size_in_bytes"] / max(documents, 1)),
    }


_START_SECONDS = 120.0
_STOP_SECONDS = 30.0


@contextmanager
def open_node() -> Iterator[Settings]:
    """Settings that point to a fresh node (or to OPENSEARCH_URL), with a prefix of this run's own, cleaned up there."""
    local = LocalSettings.read()
    prefix = f"bench{secrets.token_hex(4)}"
    if local.opensearch_url:
        settings = Settings(opensearch_url=local.opensearch_url, index_prefix=prefix, api_port=find_free_port())
        try:
            yield settings
        finally:
            _remove_indexes(settings)
        return
    with temporary_node(local, print) as node:
        yield Settings(opensearch_url=node.url, index_prefix=prefix, api_port=find_free_port())


@contextmanager
def open_service() -> Iterator[Settings]:
    """As `open_node`, with a fresh Redis as well."""
    with open_node() as settings, temporary_redis(LocalSettings.read(), print) as server:
        yield settings.model_copy(update={"redis_url": server.url})


@contextmanager
def run_process(settings: Settings, name: str, command: tuple[str, ...] = ()) -> Iterator[ChildProcess]:
    """A process of the service (api, worker or sweeper), ready; `command` is run in its place."""
    with tempfile.TemporaryDirectory(prefix="sparsewell-bench-") as folder:
        child = start_process(settings, name, Path(folder) / f"{name}.log", command)
        try:
            yield child
        finally:
            processes.stop_child(child, _STOP_SECONDS)


def start_process(settings: Settings, name: str, log: Path, command: tuple[str, ...] = ()) -> ChildProcess:
    """As `running`, for who stops it; it is stopped here where it does not become ready."""
    part = next(part for part in service_processes(settings) if part.name == name)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SPARSEWELL_")}
    environment = {**kept, "PYTHONUNBUFFERED": "1", **settings_environment(settings)}
    child = processes.start_child(
        name, command or part.command, log, environment=environment, directory=Path.cwd(), tied=True
    )
    try:
        wait_until_ready(part, child, _START_SECONDS)
    except BaseException:
        processes.stop_child(child, _STOP_SECONDS)
        raise
    return child


def read_opensearch_version(settings: Settings) -> str:
    """What the node says that it is."""
    with closing(SyncSearchClient(settings)) as search:
        return str(search.send(Call("GET", "/"))["version"]["number"])


def _remove_indexes(settings: Settings) -> None:
    """By full names: a company's cluster may forbid wildcards in deletes."""
    with closing(SyncSearchClient(settings)) as search:
        listed = search.send(Call("GET", "/_cat/indices", params={"format": "json", "expand_wildcards": "all"}))
        for row in listed:
            if row["index"].startswith(settings.index_prefix):
                search.send(Call("DELETE", f"/{row['index']}"))
