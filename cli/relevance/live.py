"""A collection in a live service: created, filled and asked through the REST API only.

One evaluation from beginning to end: a fresh index, all documents, every judged query in each mode.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
import orjson

from cli.api_client import index_path, read_bulk_answer, read_json_response, unreachable
from cli.relevance.collection import CorpusDocument, JudgedCollection
from cli.relevance.metrics import RankingQuality, measure_rankings
from services.errors import BackendUnavailable, Conflict, InvalidInput
from services.retry import retry

# One request: small enough for a progress bar that moves and for any server's limit on a body.
_REQUEST_BYTES = 2 * 1024**2
_REQUEST_SECONDS = 120.0
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.25
# Codes that are about the query itself. Any other refusal is about how it was asked, and then no figure is right.
_QUERY_ERROR_CODES = frozenset({"query_too_long", "empty_query", "opensearch_refused"})


@dataclass
class LoadOutcome:
    """What became of the documents that were sent."""

    accepted: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class ModeAnswers:
    """Answers to a list of queries in one mode. `refused` holds the error code of each query without an answer."""

    rankings: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    client_ms: list[float] = field(default_factory=list)
    server_ms: list[float] = field(default_factory=list)


class LiveIndex:
    """One index behind a running API. A client of one connection: what it measures is one user's waiting."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self._client = client
        self._path = index_path(name)
        self.name = name

    def create(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Creates the index. Raises Conflict (`index_exists`) when there is one of that name, whatever is in it."""
        answer = self._send("PUT", self._path, json=dict(spec))
        if answer.status_code != httpx.codes.CREATED:
            raise Conflict(
                "index_exists",
                f"The index {self.name!r} exists already and eval wants a fresh one: choose another with --index.",
            )
        return read_json_response(answer)

    def inspect(self) -> dict[str, Any]:
        """The index as it stands, with documents by state."""
        return read_json_response(self._send("GET", self._path))

    def delete(self) -> None:
        """Deletes the index and its documents."""
        self._send("DELETE", self._path)

    def load(
        self, documents: Iterable[CorpusDocument], sent: Callable[[int], object] = lambda count: None
    ) -> LoadOutcome:
        """Sends documents in bulk; `sent` hears how many so far. What is refused is kept with its reason."""
        loaded = LoadOutcome()
        begun = time.perf_counter()
        total = 0
        for count, body in _iter_request_bodies(documents):
            answer = self._retried("POST", f"{self._path}/documents", body)
            loaded.accepted += len(answer["accepted"])
            loaded.rejected += answer["rejected"]
            total += count
            sent(total)
        loaded.seconds = time.perf_counter() - begun
        return loaded

    def wait_until_encoded(
        self, expected: int, seconds: float, seen: Callable[[Mapping[str, int]], object] = lambda states: None
    ) -> dict[str, int]:
        """Waits until no document is pending; returns documents by state, and `seen` hears them as they change.

        Raises BackendUnavailable (`encoding_stalled`) when nothing changed for `seconds`.
        """
        last: dict[str, int] = {}
        changed = time.monotonic()
        while True:
            states: dict[str, int] = self.inspect()["documents"]
            if states != last:
                last, changed = states, time.monotonic()
                seen(states)
            # Counts are what searches see: right after loading they lag behind what was accepted.
            if states["pending"] == 0 and states["encoded"] + states["dead"] >= expected:
                return states
            if time.monotonic() - changed > seconds:
                raise BackendUnavailable(
                    "encoding_stalled",
                    f"{expected - states['encoded'] - states['dead']} of {expected} documents still wait for their "
                    f"vectors and nothing moved for {seconds:.0f} s: is a worker running (sparsewell worker)?",
                )
            time.sleep(_POLL_SECONDS)

    def ask(
        self,
        queries: Mapping[str, str],
        mode: str,
        size: int,
        options: Mapping[str, Any] | None = None,
        asked: Callable[[int], object] = lambda count: None,
    ) -> ModeAnswers:
        """Asks each query, one after the other; `asked` hears how many so far.

        A query that the API refuses for what it is (too long, empty) is recorded with the error's code. Anything else
        that goes wrong is raised: a figure over half of the queries would be none.
        """
        found = ModeAnswers()
        for number, (query, text) in enumerate(queries.items(), 1):
            body = {"query": text, "mode": mode, "size": size, "passage": False, "fields": [], "learn": False}
            body |= options or {}
            begun = time.perf_counter()
            try:
                answer = self._send("POST", f"{self._path}/search", json=body)
            except InvalidInput as error:
                if error.code not in _QUERY_ERROR_CODES:
                    raise
                found.refused[query] = error.code
            else:
                found.client_ms.append((time.perf_counter() - begun) * 1000)
                content = orjson.loads(answer.content)
                found.server_ms.append(content["timings_ms"]["total"])
                found.rankings[query] = [(hit["id"], float(hit["score"])) for hit in content["hits"]]
            asked(number)
        return found

    def _retried(self, method: str, path: str, body: bytes) -> Any:
        """Sends again while the service is overloaded or away; sending documents twice does no harm."""
        headers = {"content-type": "application/x-ndjson"}
        return retry(
            lambda: read_bulk_answer(
                lambda: read_json_response(self._send(method, path, content=body, headers=headers))
            ),
            _PATIENCE_SECONDS,
            lambda message: None,
        )

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, timeout=_REQUEST_SECONDS, **content)
        except httpx.HTTPError as error:
            raise unreachable(str(self._client.base_url).rstrip("/"), error) from error
        if not answer.is_success:
            read_json_response(answer)  # raises; a good answer is left unread, reading it is no part of the waiting
        return answer


def _iter_request_bodies(documents: Iterable[CorpusDocument]) -> Iterator[tuple[int, bytes]]:
    """Bodies of about 2 MB, with the number of documents in each."""
    lines: list[bytes] = []
    size = 0
    for document in documents:
        line = orjson.dumps(document.as_json())
        if lines and size + len(line) > _REQUEST_BYTES:
            yield len(lines), b"\n".join(lines) + b"\n"
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield len(lines), b"\n".join(lines) + b"\n"


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 in milliseconds (nearest rank); empty for no measurements."""
    ordered = sorted(milliseconds)
    if not ordered:
        return {}
    return {f"p{p}": round(ordered[max(0, -(-len(ordered) * p // 100) - 1)], 3) for p in (50, 90, 99)}


MODES = ("sparse", "lexical", "hybrid")
WARM_UP_QUERIES = 20
STALL_TIMEOUT_SECONDS = 300.0


class StageProgress(Protocol):
    """Hears how a stage goes on; `total` is None where nobody knows it."""

    def __call__(self, stage: str, done: int, total: int | None) -> None: ...


@dataclass
class IngestedCollection:
    """The collection in the service. `ids` are those of the corpus, `empty` those without any text (never sent)."""

    loaded: LoadOutcome
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

    asked: ModeAnswers
    quality: RankingQuality

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

    ingested: IngestedCollection
    index: dict[str, Any]
    modes: dict[str, ModeResult] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def parse_modes(text: str) -> list[str]:
    """The modes of a comma-separated list. Raises InvalidInput (`unknown_mode`)."""
    modes = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise InvalidInput("unknown_mode", f"--modes takes a list of {', '.join(MODES)}; not {text!r}.")
    return modes


def parse_weights(text: str) -> dict[str, float]:
    """The fusion weights of `SPARSE,LEXICAL`. Raises InvalidInput (`bad_weights`)."""
    try:
        sparse, lexical = (float(part) for part in text.split(","))
    except ValueError:
        sparse = lexical = -1.0
    if not (0 <= sparse < float("inf") and 0 <= lexical < float("inf") and sparse + lexical > 0):
        raise InvalidInput("bad_weights", f"--weights takes two numbers as in .7,.3 (sparse, lexical); not {text!r}.")
    return {"sparse": sparse, "lexical": lexical}


def ingest_collection(
    index: LiveIndex, collection: JudgedCollection, progress: StageProgress, stalled: float = STALL_TIMEOUT_SECONDS
) -> IngestedCollection:
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
    return IngestedCollection(loaded, states, ids, empty, time.perf_counter() - begun)


def ask_queries(
    index: LiveIndex, collection: JudgedCollection, modes: Sequence[str], size: int, weights: Mapping[str, float] | None,
    progress: StageProgress,
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
        results[mode] = ModeResult(answers, measure_rankings(judgements, answers.rankings))
    return results


def find_warnings(
    collection: JudgedCollection, ingested: IngestedCollection, modes: Mapping[str, ModeResult], size: int
) -> list[str]:
    """What a reader of the figures should know, one sentence each."""
    found = []
    if unasked := collection.unknown_queries():
        found.append(f"{len(unasked)} judged queries have no text and were not asked ({_list_some(unasked)}).")
    if absent := collection.unknown_documents(ingested.ids):
        found.append(
            f"{len(absent)} judgements name documents that are not in the corpus "
            f"({_list_some([document for _, document in absent])}); they count as not found."
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


def _list_some(identifiers: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(identifiers))
    return ", ".join(distinct[:3]) + (", …" if len(distinct) > 3 else "")
