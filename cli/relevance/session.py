"""One evaluation from beginning to end: a fresh index, all documents, every judged query in each mode."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cli.relevance.collection import Collection, CorpusDocument
from cli.relevance.live import Asked, LiveIndex, Loaded, percentiles
from cli.relevance.metrics import Quality, measure
from services.errors import InvalidInput

MODES = ("sparse", "lexical", "hybrid")
WARM_UP_QUERIES = 20
STALLED_SECONDS = 300.0


class Progress(Protocol):
    """Hears how a stage goes on; `total` is None where nobody knows it."""

    def __call__(self, stage: str, done: int, total: int | None) -> None: ...


@dataclass
class Ingested:
    """The collection in the service. `ids` are those of the corpus, `empty` those without any text (never sent)."""

    loaded: Loaded
    states: dict[str, int]
    ids: set[str]
    empty: list[str]
    encode_seconds: float

    @property
    def documents_a_second(self) -> float:
        """Accepted documents over the time from the first request until the last vector was seen."""
        seconds = self.loaded.seconds + self.encode_seconds
        return self.loaded.accepted / seconds if seconds else 0.0


@dataclass
class ModeResult:
    """One mode: what was answered and how good it was."""

    asked: Asked
    quality: Quality

    def as_json(self, judged: int) -> dict[str, Any]:
        """Figures, refusals and latency."""
        return {
            **{name: round(value, 5) for name, value in self.quality.mean.items()},
            "queries": judged,
            "refused": self.asked.refused,
            "client_ms": percentiles(self.asked.client_ms),
            "server_ms": percentiles(self.asked.server_ms),
        }


@dataclass
class Evaluation:
    """Everything that one run found; `warnings` are sentences for people."""

    ingested: Ingested
    index: dict[str, Any]
    modes: dict[str, ModeResult] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def checked_modes(text: str) -> list[str]:
    """The modes of a comma-separated list. Raises InvalidInput (`unknown_mode`)."""
    modes = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise InvalidInput("unknown_mode", f"--modes takes a list of {', '.join(MODES)}; not {text!r}.")
    return modes


def checked_weights(text: str) -> dict[str, float]:
    """The fusion weights of `SPARSE,LEXICAL`. Raises InvalidInput (`bad_weights`)."""
    try:
        sparse, lexical = (float(part) for part in text.split(","))
    except ValueError:
        sparse = lexical = -1.0
    if not (0 <= sparse < float("inf") and 0 <= lexical < float("inf") and sparse + lexical > 0):
        raise InvalidInput("bad_weights", f"--weights takes two numbers as in .7,.3 (sparse, lexical); not {text!r}.")
    return {"sparse": sparse, "lexical": lexical}


def ingest(index: LiveIndex, collection: Collection, progress: Progress, stalled: float = STALLED_SECONDS) -> Ingested:
    """Sends every document and waits until each has its vectors or is dead."""
    ids: set[str] = set()
    empty: list[str] = []

    def documents() -> Iterator[CorpusDocument]:
        for document in collection.documents():
            ids.add(document.id)
            if document.text:
                yield document
            else:
                empty.append(document.id)

    loaded = index.load(documents(), lambda count: progress("sending", count, None))
    begun = time.perf_counter()

    def seen(states: Mapping[str, int]) -> None:
        progress("encoding", states["encoded"] + states["dead"], loaded.accepted)

    states = index.wait_until_encoded(loaded.accepted, stalled, seen)
    return Ingested(loaded, states, ids, empty, time.perf_counter() - begun)


def ask(
    index: LiveIndex, collection: Collection, modes: Sequence[str], size: int, weights: Mapping[str, float] | None,
    progress: Progress,
) -> dict[str, ModeResult]:  # fmt: skip
    """Asks every judged query in each mode; a few are asked beforehand, so that no mode pays for the first ones."""
    queries, judgements = collection.judged, collection.known_judgements()
    first = dict(list(queries.items())[:WARM_UP_QUERIES])
    options = {mode: {"weights": dict(weights)} if weights and mode == "hybrid" else {} for mode in modes}
    for mode in modes:
        index.ask(first, mode, size, options[mode])
    results = {}
    for mode in modes:

        def asked(count: int, mode: str = mode) -> None:
            progress(f"asking ({mode})", count, len(queries))

        answers = index.ask(queries, mode, size, options[mode], asked)
        results[mode] = ModeResult(answers, measure(judgements, answers.rankings))
    return results


def warnings(collection: Collection, ingested: Ingested, modes: Mapping[str, ModeResult], size: int) -> list[str]:
    """What a reader of the figures should know, one sentence each."""
    found = []
    if unasked := collection.unknown_queries():
        found.append(f"{len(unasked)} judged queries have no text and were not asked ({_some(unasked)}).")
    if absent := collection.unknown_documents(ingested.ids):
        found.append(
            f"{len(absent)} judgements name documents that are not in the corpus "
            f"({_some([document for _, document in absent])}); they count as not found."
        )
    if ingested.empty:
        found.append(f"{len(ingested.empty)} documents have neither title nor text and were left out.")
    if rejected := ingested.loaded.rejected:
        reasons = sorted({entry["code"] for entry in rejected})
        found.append(f"{len(rejected)} documents were rejected ({', '.join(reasons)}).")
    if dead := ingested.states["dead"]:
        found.append(f"{dead} documents could not be encoded and are found by keyword only.")
    for mode, result in modes.items():
        if refused := result.asked.refused:
            codes = ", ".join(sorted(set(refused.values())))
            found.append(f"{len(refused)} queries were refused in mode {mode} ({codes}); they count as zero.")
    if size < 100:
        found.append(f"Recall@100 is that of {size} hits.")
    return found


def _some(identifiers: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(identifiers))
    return ", ".join(distinct[:3]) + (", …" if len(distinct) > 3 else "")
