"""The REST door: batches as NDJSON to POST documents, and what is asked about indexes and jobs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from cli.loading.record import Refusal
from cli.loading.retrying import retrying
from cli.loading.source import Batch
from services.errors import BackendUnavailable, ConfigurationError, InvalidInput, NotFound, Overloaded, SparsewellError


@dataclass
class Sent:
    """What became of a batch: the jobs that carry it, how many were accepted, which lines were not."""

    jobs: list[str] = field(default_factory=list)
    accepted: int = 0
    refusals: list[Refusal] = field(default_factory=list)


class ApiDoor:
    """A client of one API. Calls are repeated for up to `patience` seconds while the API is away or overloaded."""

    def __init__(self, base: str, index: str, patience: float, say: Callable[[str], None]) -> None:
        """Raises ConfigurationError (`bad_address`)."""
        self.base = base.rstrip("/")
        self._path = f"/v1/indexes/{quote(index, safe='')}"
        self._patience = patience
        self._say = say
        try:
            self._client = httpx.Client(base_url=self.base, timeout=httpx.Timeout(60, connect=5))
        except httpx.InvalidURL as error:
            raise ConfigurationError("bad_address", f"{base} is not an address: {error}.") from None

    def create(self, fields: dict[str, str]) -> bool:
        """Creates the index; False when there was one of that name, which is used as it is."""
        try:
            self._ask("PUT", self._path, json={"fields": fields})
        except InvalidInput as error:
            if error.extra.get("status") == httpx.codes.CONFLICT:
                return False
            raise
        return True

    def check_index(self) -> None:
        """Raises NotFound (`index_not_found`) before a file is read for nothing."""
        self._ask("GET", self._path)

    def send(self, batch: Batch) -> Sent:
        """Sends a batch until each line is accepted or refused for good."""
        sent = Sent()
        lines = batch.lines

        def once() -> None:
            nonlocal lines
            answer = self._post(b"\n".join(text for _, text in lines))
            if "job" in answer:
                sent.jobs.append(answer["job"]["id"])
            sent.accepted += len(answer.get("accepted", ()))
            again = []
            for refusal in answer.get("rejected", ()):
                line = lines[refusal["position"] - 1]
                if refusal["code"] == "not_stored":  # not the document's fault
                    again.append(line)
                else:
                    sent.refusals.append(Refusal(line[0], refusal["id"], refusal["code"], refusal["reason"]))
            lines = again
            if lines:
                raise BackendUnavailable("not_stored", f"{len(lines)} documents could not be stored in time.")

        retrying(once, self._patience, self._say)
        return sent

    def job(self, job_id: str) -> dict[str, Any] | None:
        """A job's counts; None when there is no such job (yet)."""
        try:
            return self._ask("GET", f"/v1/jobs/{quote(job_id, safe='')}")
        except NotFound:
            return None

    def close(self) -> None:
        self._client.close()

    def _post(self, body: bytes) -> dict[str, Any]:
        headers = {"content-type": "application/x-ndjson"}
        try:
            return self._once("POST", f"{self._path}/documents", content=body, headers=headers)
        except InvalidInput as error:
            if error.code != "no_document_accepted":
                raise
            return {"rejected": error.extra["rejected"]}

    def _ask(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        return retrying(lambda: self._once(method, path, **arguments), self._patience, self._say)

    def _once(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            response = self._client.request(method, path, **arguments)
        except httpx.UnsupportedProtocol:
            raise ConfigurationError("bad_address", f"{self.base} is not an http address.") from None
        except httpx.TransportError as error:
            raise BackendUnavailable(
                "api_unavailable",
                f"No API answers at {self.base} ({type(error).__name__}): start it with `sparsewell up`, "
                "or name it with --api.",
            ) from None
        return read_answer(response)


def read_answer(response: httpx.Response) -> dict[str, Any]:
    """The body of a good answer; problem+json comes out as our errors, other failures as BackendUnavailable."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    raise problem(response.status_code, body if isinstance(body, dict) else {}, response.headers.get("retry-after"))


def problem(status: int, body: dict[str, Any], retry_after: str | None) -> SparsewellError:
    """The error for a status and a problem body."""
    code = str(body.get("code", "api_unavailable"))
    detail = str(body.get("detail", f"What answers there is not sparsewell's API (status {status})."))
    extra = {"rejected": body.get("rejected", []), "status": status}
    if retry_after and retry_after.isdigit():
        extra["retry_after"] = float(retry_after)
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return Overloaded(code, detail, **extra)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or "code" not in body:
        return BackendUnavailable(code, detail, **extra)
    return (NotFound if status == httpx.codes.NOT_FOUND else InvalidInput)(code, detail, **extra)
