"""Evaluation of a judged collection through the REST API.

`LiveIndex` creates, fills and searches an index with one client, one request at a time, so its latencies are those of a
single user. `ingest_collection`, `ask_queries` and `find_warnings` are the steps of `sparsewell eval collection`.
`make_index_candidates` makes an index a source of hard negatives.
"""

import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import orjson

from cli.api_client import index_path, raise_unreachable, read_bulk_answer, read_json_response
from cli.relevance.metrics import RankingQuality, measure_rankings, percentiles
from models.judged_collection import CorpusDocument, JudgedCollection
from services.encoders.piece_frequencies import MIN_DOCUMENTS
from services.errors import BackendUnavailable, Conflict, InvalidInput
from services.retry import retry

if TYPE_CHECKING:
    from models.training.mining import IndexCandidates
    from models.training.pairs import PairSet

WARM_UP_QUERIES = 20
# The API's largest page, and its furthest hit, by default (MAX_SIZE, MAX_OFFSET).
PAGE_HITS, MAX_HITS = 100, 1000
STALL_TIMEOUT_SECONDS = 300.0
# Body of one request: below the limits of servers, and small enough for a progress bar.
_REQUEST_BYTES = 2 * 1024**2
_REQUEST_SECONDS = 120.0
_RETRY_SECONDS = 60.0
_POLL_SECONDS = 0.25
# The sweeper counts the documents of an index every ten seconds, unless their number has changed by less than a fifth.
_ADAPTATION_SECONDS = 30.0
_COUNTED_SHARE = 0.8
# API processes remember a generation, with the version of its counts, for two seconds.
_REMEMBERED_SECONDS = 2.5
# Codes of a bad query. With another error all figures would be wrong, so it ends the evaluation.
_QUERY_ERROR_CODES = frozenset({"query_too_long", "empty_query", "opensearch_refused"})


@dataclass
class LoadOutcome:
    """Outcome of the documents that were sent."""

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
    """An index of a running API. Requests go through one connection, so latencies are those of a single user."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self._client = client
        self._path = index_path(name)
        self.name = name

    def create(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Create the index. Raises Conflict (`index_exists`)."""
        answer = self._send("PUT", self._path, json=dict(spec))
        if answer.status_code != httpx.codes.CREATED:
            raise Conflict(
                "index_exists",
                f"The index {self.name!r} exists already, and eval needs a new one: choose another name with --index.",
            )
        return read_json_response(answer)

    def inspect(self) -> dict[str, Any]:
        """Return the index's description, with documents by state."""
        return read_json_response(self._send("GET", self._path))

    def delete(self) -> None:
        """Delete the index and its documents."""
        self._send("DELETE", self._path)

    def load(
        self, documents: Iterable[CorpusDocument], on_sent: Callable[[int], object] = lambda count: None
    ) -> LoadOutcome:
        """Send documents in bulk. `on_sent` receives the number so far."""
        outcome, begun, total = LoadOutcome(), time.perf_counter(), 0
        for count, body in _iter_request_bodies(documents):
            answer = self._retried("POST", f"{self._path}/documents", body)
            outcome.accepted += len(answer["accepted"])
            outcome.rejected += answer["rejected"]
            total += count
            on_sent(total)
        outcome.seconds = time.perf_counter() - begun
        return outcome

    def wait_until_encoded(
        self, expected: int, seconds: float, on_change: Callable[[Mapping[str, int]], object] = lambda states: None
    ) -> dict[str, int]:
        """Wait until no document is pending, and return documents by state. `on_change` receives each new state.

        Raises BackendUnavailable (`encoding_stalled`) after `seconds` without a change.
        """
        last: dict[str, int] = {}
        changed = time.monotonic()
        while True:
            states: dict[str, int] = self.inspect()["documents"]
            if states != last:
                last, changed = states, time.monotonic()
                on_change(states)
            # The counts lag behind the accepted documents until the index is refreshed.
            if states["pending"] == 0 and states["encoded"] + states["dead"] >= expected:
                return states
            if time.monotonic() - changed > seconds:
                raise BackendUnavailable(
                    "encoding_stalled",
                    f"{expected - states['encoded'] - states['dead']} of {expected} documents are not encoded, and "
                    f"nothing changed for {seconds:.0f} s: is a worker running (sparsewell worker)?",
                )
            time.sleep(_POLL_SECONDS)

    def ask(
        self,
        queries: Mapping[str, str],
        mode: str,
        size: int,
        options: Mapping[str, Any] | None = None,
        own: Container[str] = (),
        on_answer: Callable[[int], object] = lambda count: None,
    ) -> ModeAnswers:
        """Send the queries one after another. `on_answer` receives the number so far.

        `own` are the ids of queries that are documents themselves (`JudgedCollection.is_own_document`). Such a document
        is left out of the ranking of its query, as BEIR leaves it out.
        A bad query (too long, empty) is recorded with its error code. Other errors are raised: figures over a part of
        the queries would be wrong. Raises InvalidInput (`size_too_large`), and the errors of a search.
        """
        if size > MAX_HITS:
            raise InvalidInput("size_too_large", f"A search reaches {MAX_HITS:,} hits, not {size:,}.")
        answers = ModeAnswers()
        for number, (query, text) in enumerate(queries.items(), 1):
            body: dict[str, Any] = {"query": text, "mode": mode, "passage": False, "fields": [], "learn": False}
            try:
                hits = self._pages(body | dict(options or {}), size + (query in own and size < MAX_HITS), answers)
            except InvalidInput as error:
                if error.code not in _QUERY_ERROR_CODES:
                    raise
                answers.refused[query] = error.code
            else:
                answers.rankings[query] = [hit for hit in hits if query not in own or hit[0] != query][:size]
            on_answer(number)
        return answers

    def explain(self, text: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the hits of a query's first page with their explanations, in the largest page."""
        body = {"query": text, "learn": False, "fields": []} | dict(options) | {"explain": True, "size": PAGE_HITS}
        answer = self._send("POST", f"{self._path}/search", json=body)
        hits: list[dict[str, Any]] = orjson.loads(answer.content)["hits"]
        return hits

    def _pages(self, body: dict[str, Any], size: int, answers: ModeAnswers) -> list[tuple[str, float]]:
        """Return the best `size` hits, in pages of at most PAGE_HITS. The latency is that of the first page."""
        hits: list[tuple[str, float]] = []
        while len(hits) < size:
            wanted = min(PAGE_HITS, size - len(hits))
            begun = time.perf_counter()
            answer = self._send("POST", f"{self._path}/search", json=body | {"size": wanted, "offset": len(hits)})
            milliseconds = (time.perf_counter() - begun) * 1000
            content = orjson.loads(answer.content)
            if not hits:
                answers.client_ms.append(milliseconds)
                answers.server_ms.append(content["timings_ms"]["total"])
            page = [(hit["id"], float(hit["score"])) for hit in content["hits"]]
            hits += page
            if len(page) < wanted:
                break
        return hits

    def _retried(self, method: str, path: str, body: bytes) -> Any:
        """Retry while the service is overloaded or unavailable. Sending documents twice does no harm."""
        headers = {"content-type": "application/x-ndjson"}
        return retry(
            lambda: read_bulk_answer(
                lambda: read_json_response(self._send(method, path, content=body, headers=headers))
            ),
            _RETRY_SECONDS,
            lambda message: None,
        )

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        with raise_unreachable(str(self._client.base_url).rstrip("/")):
            answer = self._client.request(method, path, timeout=_REQUEST_SECONDS, **content)
        if not answer.is_success:
            read_json_response(answer)  # raises. A good answer is parsed later: parsing is not part of the latency.
        return answer


def wait_until_adapted(inspect: Callable[[], Mapping[str, Any]]) -> bool:
    """Wait until query weights are adapted to about the present documents. Return whether they are.

    `inspect` returns the index's description. Weights are not adapted in a small index, with an encoder without a
    reference corpus, and without a sweeper.
    """
    deadline = time.monotonic() + _ADAPTATION_SECONDS
    while True:
        index = inspect()
        encoded = index["documents"]["encoded"]
        if not index["adapt_weights"] or encoded < MIN_DOCUMENTS or time.monotonic() > deadline:
            return False
        if index["adapted_to"] >= _COUNTED_SHARE * encoded:
            time.sleep(_REMEMBERED_SECONDS)
            return True
        time.sleep(_POLL_SECONDS)


def _iter_request_bodies(documents: Iterable[CorpusDocument]) -> Iterator[tuple[int, bytes]]:
    """Yield request bodies of about 2 MB, with their number of documents."""
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


class StageProgress(Protocol):
    """A function that receives the progress of a stage. `total` is None if it is unknown."""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show `done` of `total`."""


@dataclass
class IngestedCollection:
    """A collection in the service.

    `ids`: all ids of the corpus; `own`: ids of queries that are documents; `empty`: ids of unsent documents without
    text.
    """

    loaded: LoadOutcome
    states: dict[str, int]
    ids: set[str]
    empty: list[str]
    encode_seconds: float
    own: set[str] = field(default_factory=set)

    @property
    def documents_a_second(self) -> float:
        """Return accepted documents per second, from the first request until the last vector."""
        seconds = self.loaded.seconds + self.encode_seconds
        return self.loaded.accepted / seconds if seconds else 0.0


@dataclass
class ModeResult:
    """Answers and quality of one mode."""

    answers: ModeAnswers
    quality: RankingQuality

    def as_json(self, judged: int) -> dict[str, Any]:
        """Return figures, refusals and latency for a report over `judged` queries."""
        return {
            **self.quality.rounded_means(),
            "queries": judged,
            "refused": self.answers.refused,
            "client_ms": percentiles(self.answers.client_ms),
            "server_ms": percentiles(self.answers.server_ms),
        }


@dataclass
class Evaluation:
    """Result of an evaluation. `adapted`: query weights were adapted. `warnings` are sentences for the reader."""

    ingested: IngestedCollection
    index: dict[str, Any]
    adapted: bool = False
    modes: dict[str, ModeResult] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def ingest_collection(
    index: LiveIndex, collection: JudgedCollection, progress: StageProgress, stalled: float = STALL_TIMEOUT_SECONDS
) -> IngestedCollection:
    """Send all documents and wait until each is encoded or dead."""
    ids: set[str] = set()
    empty: list[str] = []
    own: set[str] = set()

    def documents() -> Iterator[CorpusDocument]:
        for document in collection.documents():
            ids.add(document.id)
            if collection.is_own_document(document):
                own.add(document.id)
            if document.text:
                yield document
            else:
                empty.append(document.id)

    loaded = index.load(documents(), lambda count: progress("sending", count, None))
    begun = time.perf_counter()

    def on_change(states: Mapping[str, int]) -> None:
        progress("encoding", states["encoded"] + states["dead"], loaded.accepted)

    states = index.wait_until_encoded(loaded.accepted, stalled, on_change)
    return IngestedCollection(loaded, states, ids, empty, time.perf_counter() - begun, own)


def ask_queries(
    index: LiveIndex,
    collection: JudgedCollection,
    searches: Mapping[str, Mapping[str, Any]],
    size: int,
    progress: StageProgress,
    own: Container[str] = (),
) -> dict[str, ModeResult]:
    """Send all judged queries in each search, after WARM_UP_QUERIES unmeasured queries in each.

    `searches` has the members of the requests by name, `own` the ids of queries that are documents.
    """
    queries, judgements = collection.judged, collection.known_judgements()
    warm_up = dict(list(queries.items())[:WARM_UP_QUERIES])
    for members in searches.values():
        index.ask(warm_up, members["mode"], size, members, own)
    results = {}
    for name, members in searches.items():

        def on_answer(count: int, name: str = name) -> None:
            progress(f"searching ({name})", count, len(queries))

        answers = index.ask(queries, members["mode"], size, members, own, on_answer)
        results[name] = ModeResult(answers, measure_rankings(judgements, answers.rankings))
    return results


def find_warnings(
    collection: JudgedCollection, ingested: IngestedCollection, modes: Mapping[str, ModeResult], size: int
) -> list[str]:
    """Return a sentence for each fact that limits the figures."""
    warnings = []
    if unknown := collection.unknown_queries():
        warnings.append(f"{len(unknown)} judged queries have no text and were not asked ({_list_some(unknown)}).")
    if absent := collection.unknown_documents(ingested.ids):
        warnings.append(
            f"{len(absent)} judgements name documents that are not in the corpus "
            f"({_list_some([document for _, document in absent])}); they count as not found."
        )
    if ingested.empty:
        warnings.append(f"{len(ingested.empty)} documents have neither title nor text and were left out.")
    if rejected := ingested.loaded.rejected:
        reasons = sorted({entry["code"] for entry in rejected})
        warnings.append(f"{len(rejected)} documents were rejected ({', '.join(reasons)}).")
    if dead := ingested.states["dead"]:
        warnings.append(f"{dead} documents could not be encoded; only lexical search finds them.")
    for mode, result in modes.items():
        if refused := result.answers.refused:
            codes = ", ".join(sorted(set(refused.values())))
            warnings.append(f"{len(refused)} queries were refused in mode {mode} ({codes}); they count as zero.")
    if size < 1000:
        counted = "Recall@1000 and MAP count" if size >= 100 else "Recall@100, Recall@1000 and MAP count"
        warnings.append(f"{counted} only {size} hits (--size).")
    return warnings


def _list_some(identifiers: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(identifiers))
    return ", ".join(distinct[:3]) + (", …" if len(distinct) > 3 else "")


def make_index_candidates(client: httpx.Client, index: str, mode: str, pairs: "PairSet") -> "IndexCandidates":
    """Return ranked lists of the passages of `pairs`, which the index holds as `passage_documents` writes them.

    The fingerprint changes with the index's generation, encoder and documents by state. A bad query has no candidates.
    Raises NotFound, BackendUnavailable, and InvalidInput for an unknown mode or more hits than the API returns.
    """
    from models.training.mining import IndexCandidates

    live = LiveIndex(client, index)
    state = orjson.dumps([live.inspect(), mode], option=orjson.OPT_SORT_KEYS).decode()

    def search(texts: Sequence[str], depth: int) -> list[list[str]]:
        answers = live.ask({str(number): text for number, text in enumerate(texts)}, mode, depth)
        return [[document for document, _ in answers.rankings.get(str(number), [])] for number in range(len(texts))]

    return IndexCandidates(pairs, search, name=f"index-{mode}", fingerprint=state)
