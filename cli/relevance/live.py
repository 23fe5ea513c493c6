"""A collection in a live service: created, filled and asked through the REST API only."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from cli.api_answers import away, bulk_answer, index_path
from cli.relevance.collection import CorpusDocument
from services.errors import BackendUnavailable, Conflict, InvalidInput
from services.retry import retry
from services.web.answers import read_answer

# One request: small enough for a progress bar that moves and for any server's limit on a body.
_REQUEST_BYTES = 2 * 1024**2
_REQUEST_SECONDS = 120.0
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.25
# Codes that are about the query itself. Any other refusal is about how it was asked, and then no figure is right.
_ABOUT_THE_QUERY = frozenset({"query_too_long", "empty_query", "opensearch_refused"})


@dataclass
class Loaded:
    """What became of the documents that were sent."""

    accepted: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Asked:
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
        return read_answer(answer)

    def inspect(self) -> dict[str, Any]:
        """The index as it stands, with documents by state."""
        return read_answer(self._send("GET", self._path))

    def delete(self) -> None:
        """Deletes the index and its documents."""
        self._send("DELETE", self._path)

    def load(self, documents: Iterable[CorpusDocument], sent: Callable[[int], object] = lambda count: None) -> Loaded:
        """Sends documents in bulk; `sent` hears how many so far. What is refused is kept with its reason."""
        loaded = Loaded()
        begun = time.perf_counter()
        total = 0
        for count, body in _requests(documents):
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
    ) -> Asked:
        """Asks each query, one after the other; `asked` hears how many so far.

        A query that the API refuses for what it is (too long, empty) is recorded with the error's code. Anything else
        that goes wrong is raised: a figure over half of the queries would be none.
        """
        found = Asked()
        for number, (query, text) in enumerate(queries.items(), 1):
            body = {"query": text, "mode": mode, "size": size, "passage": False, "fields": [], "learn": False}
            body |= options or {}
            begun = time.perf_counter()
            try:
                answer = self._send("POST", f"{self._path}/search", json=body)
            except InvalidInput as error:
                if error.code not in _ABOUT_THE_QUERY:
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
            lambda: bulk_answer(lambda: read_answer(self._send(method, path, content=body, headers=headers))),
            _PATIENCE_SECONDS,
            lambda message: None,
        )

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, timeout=_REQUEST_SECONDS, **content)
        except httpx.HTTPError as error:
            raise away(str(self._client.base_url).rstrip("/"), error) from error
        if not answer.is_success:
            read_answer(answer)  # raises; a good answer is left unread, reading it is no part of the waiting
        return answer


def _requests(documents: Iterable[CorpusDocument]) -> Iterator[tuple[int, bytes]]:
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
