"""The running service as the examples use it: REST calls, nothing else."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import httpx
import orjson

from services.errors import BackendUnavailable, Conflict


class TimedAnswer(NamedTuple):
    """An answer, and what the request took in milliseconds, seen by the client."""

    answer: dict[str, Any]
    client_ms: float


class IngestProgress(NamedTuple):
    """How far the worker is. ``seconds`` since the documents were sent."""

    encoded: int
    total: int
    seconds: float

    @property
    def rate(self) -> float:
        """Documents a second."""
        return self.encoded / self.seconds if self.seconds > 0 else 0.0


class ServiceIndex:
    """One index of a running service."""

    def __init__(self, client: httpx.Client, index: str) -> None:
        self._client = client
        self._path = f"/v1/indexes/{index}"
        self._index = index

    def recreate(self, declared: Mapping[str, Any]) -> None:
        """Makes the index empty; `declared` has its `fields` and what else the example declares.

        Raises Conflict when an index of that name is there that this example did not make.
        """
        known = self._client.get(self._path)
        if known.status_code == httpx.codes.OK:
            if known.json()["fields"] != declared["fields"]:
                raise Conflict(
                    "index_is_not_ours",
                    f"There is an index {self._index!r} with other metadata fields than this example's; it was left "
                    "alone. Delete it, or run the demo with another SPARSEWELL_INDEX_PREFIX.",
                )
            self._checked(self._client.delete(self._path))
        elif known.status_code != httpx.codes.NOT_FOUND:
            self._checked(known)
        self._checked(self._client.put(self._path, json=dict(declared)))

    def send(self, documents: Sequence[Mapping[str, Any]]) -> str:
        """Streams the documents as NDJSON; returns the job. Raises BackendUnavailable unless all were accepted."""
        answer = self._checked(
            self._client.post(
                f"{self._path}/documents",
                content=(orjson.dumps(document) + b"\n" for document in documents),
                headers={"content-type": "application/x-ndjson"},
                timeout=120,
            )
        )
        if len(answer["accepted"]) != len(documents):
            raise BackendUnavailable("documents_rejected", f"Some documents were refused: {answer['rejected'][:3]}")
        return str(answer["job"]["id"])

    def job(self, job: str) -> dict[str, Any]:
        """The job as the API shows it."""
        return self._checked(self._client.get(f"/v1/jobs/{job}"))

    def chapters(self, document: str) -> dict[str, Any]:
        """The chapters of a talk."""
        return self._checked(self._client.get(f"{self._path}/chapters/{document}"))

    def search(self, query: str, mode: str, **asked: Any) -> TimedAnswer:
        """One search with the service's defaults, but for what is `asked`."""
        began = time.perf_counter()
        response = self._client.post(f"{self._path}/search", json={"query": query, "mode": mode, **asked})
        elapsed = 1000 * (time.perf_counter() - began)
        return TimedAnswer(self._checked(response), elapsed)

    def _checked(self, response: httpx.Response) -> dict[str, Any]:
        if response.is_success:
            return orjson.loads(response.content) if response.content else {}
        try:
            problem = response.json()
            detail = f"{problem['detail']} ({problem['code']})"
        except (ValueError, KeyError, TypeError):
            detail = response.text[:500]
        raise BackendUnavailable("demo_refused", f"{response.request.method} {response.request.url.path}: {detail}")


def follow_job(
    read_job: Callable[[], Mapping[str, Any]],
    began: float,
    *,
    interval: float = 0.5,
    patience: float = 120.0,
    now: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[IngestProgress]:
    """The progress of a job, every ``interval`` seconds until it is finished.

    Raises BackendUnavailable when nothing moves for ``patience`` seconds, or when documents ended as dead letters.
    """
    moved, before = now(), -1
    while True:
        job = read_job()
        encoded = job["states"].get("encoded", 0)
        yield IngestProgress(encoded, job["accepted"], now() - began)
        if job["finished"]:
            break
        if encoded != before:
            moved, before = now(), encoded
        elif now() - moved > patience:
            raise BackendUnavailable(
                "encoding_stalled",
                f"No document was encoded for {patience:.0f} s ({encoded:,} of {job['accepted']:,} are). "
                "`sparsewell status` shows what runs and where the worker's log is.",
            )
        sleep(interval)
    if dead := job["states"].get("dead", 0):
        raise BackendUnavailable("documents_dead", f"{dead:,} documents could not be encoded; see the worker's log.")
