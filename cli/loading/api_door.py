"""The REST door: batches as NDJSON to POST documents, and what is asked about indexes and jobs."""

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

import httpx

from cli.api_answers import away, bulk_answer, connect, index_path
from cli.loading.refusal import Refusal
from cli.loading.source import Batch
from services.errors import BackendUnavailable, Conflict, InvalidInput, NotFound
from services.index_spec import FieldType
from services.retry import retry
from services.web.answers import read_answer


@dataclass
class Sent:
    """What became of a batch: the jobs that carry it, how many were accepted, which lines were not."""

    jobs: list[str] = field(default_factory=list)
    accepted: int = 0
    refusals: list[Refusal] = field(default_factory=list)


class ApiDoor:
    """A client of one API. Calls are repeated for up to `patience` seconds while the API is away or overloaded."""

    def __init__(self, base: str, index: str, patience: float, say: Callable[[str], None]) -> None:
        """Raises ConfigurationError (`bad_address`), InvalidInput (`not_utf8`)."""
        self.base = base.rstrip("/")
        self._path = index_path(index)
        self._patience = patience
        self._say = say
        self._load = uuid.uuid4().hex
        self._client = connect(self.base, httpx.Timeout(60, connect=5))

    def create(self, fields: dict[str, str], *, talk: bool = False) -> bool:
        """Creates the index; False when there was one of that name, which is used as it is."""
        try:
            self._ask("PUT", self._path, json={"fields": fields} | ({"talk": {}} if talk else {}))
        except Conflict:
            return False
        return True

    def created_at(self) -> str:
        """When the index was created. Raises NotFound (`index_not_found`) before a file is read for nothing."""
        return str(self._ask("GET", self._path)["created_at"])

    def fields(self) -> dict[str, FieldType]:
        """The metadata fields that the index declares."""
        found: dict[str, FieldType] = self._ask("GET", self._path)["fields"]
        return found

    def takes_talk(self) -> bool:
        """Whether the index declares talk."""
        return self._ask("GET", self._path)["talk"] is not None

    def created_at_if_known(self) -> str:
        """As `created_at`, for a load that can do without the API: asked once, empty for no answer."""
        try:
            return str(self._once("GET", self._path)["created_at"])
        except (BackendUnavailable, NotFound):
            return ""

    def of(self, load: str) -> Self:
        """The door of this load, whose batches keep their keys when it is interrupted and goes on."""
        self._load = load
        return self

    def send(self, batch: Batch) -> Sent:
        """Sends a batch until each line is accepted or refused for good; however often, it is one job of the API."""
        body = b"\n".join(text for _, text in batch.lines)
        key = batch_key(self._load, batch.lines[0][0], body)

        def once() -> Sent:
            answer = self._post_once(body, key)
            left_out = [refusal for refusal in answer["rejected"] if refusal["code"] == "not_stored"]
            if left_out:  # not the documents' fault
                raise BackendUnavailable("not_stored", f"{len(left_out)} documents could not be stored in time.")
            refusals = [
                Refusal(batch.lines[one["position"] - 1][0], one["id"], one["code"], one["reason"])
                for one in answer["rejected"]
            ]
            return Sent([answer["job"]["id"]] if "job" in answer else [], len(answer["accepted"]), refusals)

        return retry(once, self._patience, self._say)

    def job(self, job_id: str) -> dict[str, Any] | None:
        """A job's counts; None when there is no such job (yet)."""
        try:
            return self._ask("GET", f"/v1/jobs/{quote(job_id, safe='')}")
        except NotFound:
            return None

    def close(self) -> None:
        self._client.close()

    def _post_once(self, body: bytes, key: str) -> dict[str, Any]:
        try:
            return self._post(body, {"idempotency-key": key})
        except InvalidInput as error:
            if error.code != "body_too_large":
                raise
            # What has a key is read whole. As a stream the line that is too long is refused alone.
            return self._post(body, {})

    def _post(self, body: bytes, key: dict[str, str]) -> dict[str, Any]:
        headers = {"content-type": "application/x-ndjson"} | key
        return bulk_answer(lambda: self._once("POST", f"{self._path}/documents", content=body, headers=headers))

    def _ask(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        return retry(lambda: self._once(method, path, **arguments), self._patience, self._say)

    def _once(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            response = self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise away(self.base, error) from None
        return read_answer(response)


def batch_key(load: str, line: int, body: bytes) -> str:
    """The idempotency key of a batch: of which load it is, where it begins and what it holds."""
    return hashlib.sha256(f"{load} {line} ".encode() + body).hexdigest()
