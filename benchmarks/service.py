"""Service of a benchmark: servers on free ports with temporary data, indexes with encoded documents, a lean client.

With OPENSEARCH_URL, that node is used, under an index prefix of the run that is removed at the end. `fill_generation`
writes encoded documents without the queue. `LoopbackConnection` costs about 0.1 ms a request; httpx costs 2 ms and
aiohttp 0.3 ms, more than the differences that are measured.
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

from infra import processes
from infra.local_servers import LocalSettings
from infra.opensearch.cluster import temporary_node
from infra.ports import find_free_port
from infra.processes import ChildProcess
from infra.redis import temporary_redis
from infra.stack import service_processes, settings_environment, wait_until_ready
from services.documents.document import Document, joined_text
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.errors import BackendUnavailable
from services.index_spec import Generation, IndexNames, IndexSpec
from services.opensearch.bulk import Write, WriteOutcome, write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import create_generation_call, new_generation, refresh_call
from services.opensearch.journal import encoded_write, raw_write
from services.opensearch.stored_document import EncodedWindow, StoredDocument
from services.settings import Settings

if TYPE_CHECKING:
    from models.encoder import Encoder


EncodedPair = tuple[Document, Sequence[EncodedWindow]]
_BATCH_DOCUMENTS = 128
_TIMEOUT_SECONDS = 120.0
_WRITES_SECONDS = 900.0
_START_SECONDS = 120.0
_STOP_SECONDS = 30.0


@contextmanager
def open_node() -> Iterator[Settings]:
    """Yield settings of a new node, or of OPENSEARCH_URL with a prefix of this run whose indexes are removed."""
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


def _remove_indexes(settings: Settings) -> None:
    """Delete the run's indexes by full names, because a cluster may forbid wildcards in deletes."""
    with closing(SyncSearchClient(settings)) as search:
        listed = search.send(Call("GET", "/_cat/indices", params={"format": "json", "expand_wildcards": "all"}))
        for row in listed:
            if row["index"].startswith(settings.index_prefix):
                search.send(Call("DELETE", f"/{row['index']}"))


@contextmanager
def open_service() -> Iterator[Settings]:
    """Yield settings as `open_node` does, with a new Redis."""
    with open_node() as settings, temporary_redis(LocalSettings.read(), print) as server:
        yield settings.model_copy(update={"redis_url": server.url})


@contextmanager
def run_process(settings: Settings, name: str, command: tuple[str, ...] = ()) -> Iterator[ChildProcess]:
    """Run a process of the service (api, worker, sweeper or models), ready inside the block.

    `command` replaces its command.
    """
    with tempfile.TemporaryDirectory(prefix="sparsewell-bench-") as folder:
        child = start_process(settings, name, Path(folder) / f"{name}.log", command)
        try:
            yield child
        finally:
            processes.stop_child(child, _STOP_SECONDS)


def start_process(settings: Settings, name: str, log: Path, command: tuple[str, ...] = ()) -> ChildProcess:
    """Start a process as `run_process` does, for a caller that stops it; stop it if it does not become ready."""
    process = next(process for process in service_processes(settings) if process.name == name)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SPARSEWELL_")}
    environment = {**inherited, "PYTHONUNBUFFERED": "1", **settings_environment(settings)}
    child = processes.start_child(
        name, command or process.command, log, environment=environment, directory=Path.cwd(), tied=True
    )
    try:
        wait_until_ready(process, child, _START_SECONDS)
    except BaseException:
        processes.stop_child(child, _STOP_SECONDS)
        raise
    return child


def read_opensearch_version(settings: Settings) -> str:
    """Return the version that the node reports."""
    with closing(SyncSearchClient(settings)) as search:
        return str(search.send(Call("GET", "/"))["version"]["number"])


def create_index(search: SyncSearchClient, settings: Settings, index: str, spec: IndexSpec | None = None) -> Generation:
    """Create an empty index behind its alias, for the configured encoder."""
    names = IndexNames(settings.index_prefix)
    manifest = read_manifest(resolve_model_directory(settings.encoder))
    generation = new_generation(names, index, 1, spec or IndexSpec.model_validate({}), manifest)
    search.send(create_generation_call(generation, settings, [names.alias(index)]))
    return generation


def journal_documents(
    search: SyncSearchClient, settings: Settings, generation: Generation, documents: Sequence[Document]
) -> None:
    """Write raw documents as the API does. Raises BackendUnavailable (`not_stored`)."""
    _send_writes(search, settings, [_raw_write(generation, document) for document in documents])


def _raw_write(generation: Generation, document: Document) -> Write:
    return raw_write(generation, document, "benchmark", 1, _TIMEOUT_SECONDS)


def fill_generation(
    search: SyncSearchClient, settings: Settings, generation: Generation, encoded: Iterable[EncodedPair]
) -> None:
    """Write encoded documents as a worker does, then refresh."""
    pairs = iter(encoded)
    while writes := [_encoded_write(generation, document, windows) for document, windows in islice(pairs, 1000)]:
        _send_writes(search, settings, writes)
    search.send(refresh_call(generation.physical))


def _encoded_write(generation: Generation, document: Document, windows: Sequence[EncodedWindow]) -> Write:
    raw = _raw_write(generation, document)
    return encoded_write(generation, StoredDocument(raw.id, raw.version, raw.source), windows)


def _send_writes(search: SyncSearchClient, settings: Settings, writes: Sequence[Write]) -> None:
    for verdict in write_bulk(search, writes, settings.journal_bytes, _TIMEOUT_SECONDS):
        if verdict.outcome is not WriteOutcome.STORED:
            raise BackendUnavailable("not_stored", f"OpenSearch did not store a document ({verdict}).")


def encode_documents(encoder: "Encoder", documents: Sequence[Document]) -> Iterator[EncodedPair]:
    """Yield documents with the vectors of their windows."""
    for start in range(0, len(documents), _BATCH_DOCUMENTS):
        batch = documents[start : start + _BATCH_DOCUMENTS]
        windows_of = [encoder.windows(joined_text(document.title, document.text)) for document in batch]
        vectors = iter(encoder.encode([window for windows in windows_of for window in windows]))
        for document, windows in zip(batch, windows_of, strict=True):
            yield document, [EncodedWindow(w.start, w.end, next(vectors)) for w in windows]


def wait_for_writes(search: SyncSearchClient, generation: Generation, writes: int, rate: float) -> None:
    """Return once `writes` writes are stored. `rate`: the documents per second to expect.

    Polls are rare at first, so that they cost nothing.
    """
    end = time.monotonic() + _WRITES_SECONDS
    call = Call("GET", f"/{generation.physical}/_stats/indexing", params={"filter_path": "_all.primaries"})
    while True:
        total = search.send(call)["_all"]["primaries"]["indexing"]["index_total"]
        if total >= writes:
            return
        if time.monotonic() > end:
            raise BackendUnavailable("benchmark_stuck", f"{total} of {writes} writes were stored.")
        time.sleep(min(1.0, max(0.02, (writes - total) / rate / 3)))


def wait_for_merges(search: SyncSearchClient, generation: Generation) -> None:
    """Return once no merge runs on the index."""
    call = Call("GET", f"/{generation.physical}/_stats/merge", params={"filter_path": "_all.total"})
    while search.send(call)["_all"]["total"]["merges"]["current"]:
        time.sleep(0.5)


def merge_to_one_segment(search: SyncSearchClient, generation: Generation) -> None:
    """Merge the index into one segment; half a million documents take minutes."""
    merge = {"max_num_segments": 1}
    search.send(Call("POST", f"/{generation.physical}/_forcemerge", params=merge, timeout=1800))


def index_size(search: SyncSearchClient, generation: Generation) -> dict[str, Any]:
    """Return segments, documents and bytes per document of an index."""
    call = Call("GET", f"/{generation.physical}/_stats/segments,docs,store", params={"filter_path": "_all.primaries"})
    stats = search.send(call)["_all"]["primaries"]
    documents = int(stats["docs"]["count"])
    return {
        "segments": int(stats["segments"]["count"]),
        "documents": documents,
        "bytes_a_document": round(stats["store"]["size_in_bytes"] / max(documents, 1)),
    }


class LoopbackConnection:
    """Kept HTTP/1.1 connection to one server, opened and closed by `async with`.

    Bodies must have a content-length, which uvicorn and OpenSearch send for the answers used here.
    """

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
        """Return the answer's JSON. Raises RuntimeError for a status above 299."""
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        header = await self._reader.readuntil(b"\r\n\r\n")
        answer = await self._reader.readexactly(_content_length(header))
        status = int(header[9:12])
        if status > 299:
            raise RuntimeError(f"{method} {path} was answered with {status}: {answer[:300]!r}")
        return orjson.loads(answer) if answer else None


def _content_length(header: bytes) -> int:
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise RuntimeError(f"an answer without content-length: {header[:300]!r}")
