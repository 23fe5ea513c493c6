"""The running service, as examples and demos use it: one index over REST."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import httpx
import orjson

from services.errors import BackendUnavailable, Conflict


class TimedAnswer(NamedTuple):
    """An answer, and the time of the request at the client, in milliseconds."""

    answer: dict[str, Any]
    client_ms: float


class IngestProgress(NamedTuple):
    """Progress of a job. `seconds`: since the documents were sent."""

    encoded: int
    total: int
    seconds: float

    @property
    def rate(self) -> float:
        """Return documents a second."""
        return self.encoded / self.seconds if self.seconds > 0 else 0.0


class ServiceIndex:
    """An index of a running service."""

    def __init__(self, client: httpx.Client, index: str) -> None:
        self._client = client
        self._path = f"/v1/indexes/{index}"
        self._index = index

    def recreate(self, declared: Mapping[str, Any]) -> None:
        """Create the index anew from its specification.

        Raises Conflict (`index_is_not_ours`) when an index of that name has other fields: the example did not create
        it.
        """
        known = self._client.get(self._path)
        if known.status_code == httpx.codes.OK:
            if known.json()["fields"] != declared["fields"]:
                raise Conflict(
                    "index_is_not_ours",
                    f"An index {self._index!r} exists with other metadata fields than this example's. It was not "
                    "changed: delete it, or run the demo with another SPARSEWELL_INDEX_PREFIX.",
                )
            self._checked(self._client.delete(self._path))
        elif known.status_code != httpx.codes.NOT_FOUND:
            self._checked(known)
        self._checked(self._client.put(self._path, json=dict(declared)))

    def send(self, documents: Sequence[Mapping[str, Any]]) -> str:
        """Stream documents as NDJSON; return the job's id.

        Raises BackendUnavailable (`documents_rejected`) unless all documents are accepted.
        """
        answer = self._checked(
            self._client.post(
                f"{self._path}/documents",
                content=(orjson.dumps(document) + b"\n" for document in documents),
                headers={"content-type": "application/x-ndjson"},
                timeout=120,
            )
        )
        if len(answer["accepted"]) != len(documents):
            raise BackendUnavailable("documents_rejected", f"Some documents were rejected: {answer['rejected'][:3]}")
        return str(answer["job"]["id"])

    def job(self, job: str) -> dict[str, Any]:
        """Return the job as the API shows it."""
        return self._checked(self._client.get(f"/v1/jobs/{job}"))

    def inspect(self) -> dict[str, Any]:
        """Return the description of the index, with documents by state."""
        return self._checked(self._client.get(self._path))

    def chapters(self, document: str) -> dict[str, Any]:
        """Return the chapters of a talk."""
        return self._checked(self._client.get(f"{self._path}/chapters/{document}"))

    def search(self, query: str, mode: str, **options: Any) -> TimedAnswer:
        """Search the index. `options` override the service's defaults."""
        began = time.perf_counter()
        response = self._client.post(f"{self._path}/search", json={"query": query, "mode": mode, **options})
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
    stall_seconds: float = 120.0,
    now: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[IngestProgress]:
    """Yield the progress of a job every `interval` seconds until it is finished.

    Raises BackendUnavailable: `encoding_stalled` after `stall_seconds` seconds without progress, `documents_dead` when
    documents became dead letters.
    """
    progress_at, previous = now(), -1
    while True:
        job = read_job()
        encoded = job["states"].get("encoded", 0)
        yield IngestProgress(encoded, job["accepted"], now() - began)
        if job["finished"]:
            break
        if encoded != previous:
            progress_at, previous = now(), encoded
        elif now() - progress_at > stall_seconds:
            raise BackendUnavailable(
                "encoding_stalled",
                f"No document was encoded for {stall_seconds:.0f} s ({encoded:,} of {job['accepted']:,} are encoded). "
                "`sparsewell status` shows the processes and the worker's log.",
            )
        sleep(interval)
    if dead := job["states"].get("dead", 0):
        raise BackendUnavailable("documents_dead", f"{dead:,} documents could not be encoded; see the worker's log.")
