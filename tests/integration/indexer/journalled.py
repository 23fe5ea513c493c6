"""What the tests of the indexer share: a journal of their own, and an encoder that can be watched and disturbed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from infra.processes import Child
from models.encoder import Encoder
from models.windows import Window
from services.contracts import EncodeMessage
from services.documents import parse_document
from services.index_spec import Generation, IndexSpec, Names
from services.intake import Intake
from services.manifest import Manifest, read_manifest, resolve
from services.opensearch.bulk import Outcome, write
from services.opensearch.client import Call, SyncSearch
from services.opensearch.generations import create_call, create_jobs_call, new_generation, refresh_call
from services.opensearch.journal import Stored, read_many, read_many_call
from services.settings import Settings
from services.vectors import SparseVector
from services.versions import Clock


class Journal:
    """One index, what is put into it, and what is in it."""

    def __init__(self, settings: Settings, search: SyncSearch) -> None:
        names = Names(settings.index_prefix)
        spec = IndexSpec(fields={"year": "number"})
        manifest = read_manifest(resolve(settings.encoder))
        self.settings, self._search = settings, search
        self.generation: Generation = new_generation(names, "papers", 1, spec, manifest)
        search.send(create_call(self.generation, settings, [names.alias("papers")]))
        search.send(create_jobs_call(names, settings))

    def put(self, texts: dict[str, str], *, version: int | None = None, job: str = "job") -> None:
        """Journals documents as the API does, without enqueueing them."""
        intake = Intake(self.generation, job, Clock(), self.settings.lease_seconds)
        for position, (name, text) in enumerate(texts.items(), 1):
            item: dict[str, Any] = {"id": name, "text": text}
            if version is not None:
                item["version"] = version
            intake.receive(position, lambda item=item: parse_document(item, self.generation.spec))  # type: ignore[misc]
        verdicts = write(self._search, intake.writes(), 1024**2, 10)
        assert {verdict.outcome for verdict in verdicts} == {Outcome.STORED}

    def stored(self, name: str) -> Stored:
        """One document in real time."""
        (found,) = read_many(self._search.send(read_many_call(self.generation.physical, [name])))
        return found

    def whole(self, name: str) -> dict[str, Any]:
        """All of a document that is kept, its windows included."""
        source: dict[str, Any] = self._search.send(Call("GET", f"/{self.generation.physical}/_doc/{name}"))["_source"]
        return source

    def states(self, *names: str) -> list[str]:
        """Their states in real time."""
        found = {s.id: s for s in read_many(self._search.send(read_many_call(self.generation.physical, names)))}
        return [found[name].state for name in names]

    def refresh(self) -> None:
        self._search.send(refresh_call(self.generation.physical))

    def message(self, *names: str) -> EncodeMessage:
        return EncodeMessage(index="papers", ids=names)


def log_of(child: Child) -> str:
    """What a process has said so far."""
    return Path(child.log).read_text()


class Hooked:
    """An encoder that counts the windows of each run and does something before it."""

    def __init__(self, encoder: Encoder, before: Callable[[Sequence[Window]], None] = lambda windows: None) -> None:
        self._encoder, self._before = encoder, before
        self.runs: list[int] = []

    @property
    def manifest(self) -> Manifest:
        return self._encoder.manifest

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    def windows(self, text: str, pieces: int | None = None, overlap: int | None = None) -> list[Window]:
        return self._encoder.windows(text, pieces, overlap)

    def encode(self, windows: Sequence[Window]) -> list[SparseVector]:
        self.runs.append(len(windows))
        self._before(windows)
        return self._encoder.encode(windows)

    def piece(self, piece_id: int) -> str:
        return self._encoder.piece(piece_id)
