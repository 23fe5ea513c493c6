"""Share a journal and a configurable encoder among the indexer's tests."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from infra.processes import ChildProcess
from models.encoder import Encoder, TextWindow
from services.documents.document import VersionClock, parse_document
from services.documents.intake import Intake
from services.encoders.manifest import Manifest, read_manifest, resolve_model_directory
from services.encoders.vectors import SparseVector
from services.index_spec import Generation, IndexNames, IndexSpec
from services.opensearch.bulk import WriteOutcome, write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import create_generation_call, create_jobs_call, new_generation, refresh_call
from services.opensearch.journal import get_documents_call, read_stored_documents
from services.opensearch.stored_document import StoredDocument
from services.queue.messages import EncodeMessage
from services.settings import Settings


class Journal:
    """An index in which tests write and read documents."""

    def __init__(self, settings: Settings, search: SyncSearchClient) -> None:
        names = IndexNames(settings.index_prefix)
        spec = IndexSpec(fields={"year": "number"})
        manifest = read_manifest(resolve_model_directory(settings.encoder))
        self.settings, self._search = settings, search
        self.generation: Generation = new_generation(names, "papers", 1, spec, manifest)
        search.send(create_generation_call(self.generation, settings, [names.alias("papers")]))
        search.send(create_jobs_call(names, settings))

    def put(self, texts: dict[str, str], *, version: int | None = None, job: str = "job") -> None:
        """Journal documents as the API does, without enqueueing them."""
        intake = Intake(self.generation, job, VersionClock(), self.settings.lease_seconds)
        for position, (name, text) in enumerate(texts.items(), 1):
            item: dict[str, Any] = {"id": name, "text": text}
            if version is not None:
                item["version"] = version
            intake.receive(position, lambda item=item: parse_document(item, self.generation.spec))  # type: ignore[misc]
        writes = intake.writes(intake.waiting_ids, {}, intake.clock.next())
        verdicts = write_bulk(self._search, writes, 1024**2, 10)
        assert {verdict.outcome for verdict in verdicts} == {WriteOutcome.STORED}

    def stored(self, name: str) -> StoredDocument:
        """Return a document by a real-time read."""
        (found,) = read_stored_documents(self._search.send(get_documents_call(self.generation.physical, [name])))
        return found

    def whole(self, name: str) -> dict[str, Any]:
        """Return all stored members of a document, with its windows."""
        source: dict[str, Any] = self._search.send(Call("GET", f"/{self.generation.physical}/_doc/{name}"))["_source"]
        return source

    def states(self, *names: str) -> list[str]:
        """Return the states of documents by a real-time read."""
        found = {
            s.id: s
            for s in read_stored_documents(self._search.send(get_documents_call(self.generation.physical, names)))
        }
        return [found[name].state for name in names]

    def refresh(self) -> None:
        self._search.send(refresh_call(self.generation.physical))

    def message(self, *names: str) -> EncodeMessage:
        return EncodeMessage(index="papers", ids=names)


def log_of(child: ChildProcess) -> str:
    """Return the log of a process so far."""
    return Path(child.log).read_text()


class Hooked:
    """An encoder that counts the windows of each run and calls a hook before it."""

    def __init__(self, encoder: Encoder, before: Callable[[Sequence[TextWindow]], None] = lambda windows: None) -> None:
        self._encoder, self._before = encoder, before
        self.runs: list[int] = []

    @property
    def manifest(self) -> Manifest:
        return self._encoder.manifest

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    def windows(self, text: str, pieces: int | None = None, overlap: int | None = None) -> list[TextWindow]:
        return self._encoder.windows(text, pieces, overlap)

    def encode(self, windows: Sequence[TextWindow]) -> list[SparseVector]:
        self.runs.append(len(windows))
        self._before(windows)
        return self._encoder.encode(windows)

    def piece(self, piece_id: int) -> str:
        return self._encoder.piece(piece_id)

    def token(self, piece_id: int) -> str:
        return self._encoder.token(piece_id)
