"""A client of the REST API that records each response."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from tests.faults.history import History, Written
from tests.faults.stack import INDEX

# These codes say for certain that nothing was stored and nothing will be.
CERTAIN = {"stale_version", "document_too_large", "bad_text"}


class Door:
    """Send documents to one API (or to several in turn) and record the outcomes in a history."""

    def __init__(self, *urls: str, history: History | None = None, timeout: float = 30) -> None:
        self.history = history or History(INDEX)
        self._clients = [httpx.Client(base_url=url, timeout=timeout, trust_env=False) for url in urls]
        self._turn = 0
        self._sent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            client.close()

    @property
    def client(self) -> httpx.Client:
        """Return the client of the next API in turn."""
        self._turn += 1
        return self._clients[self._turn % len(self._clients)]

    def create_index(self, **declaration: Any) -> None:
        answer = self.client.put(f"/v1/indexes/{INDEX}", json=declaration)
        assert answer.status_code in (200, 201), answer.text

    def post(self, texts: dict[str, str], *, version: int | None = None, **headers: str) -> httpx.Response | None:
        """Send documents by id, all with one version (None: the server's clock). Return None without a response."""
        written = [Written(one, self._order(version), text) for one, text in texts.items()]
        items: list[dict[str, Any]] = [{"id": one, "text": text} for one, text in texts.items()]
        if version is not None:
            items = [item | {"version": version} for item in items]
        try:
            answer = self.client.post(f"/v1/indexes/{INDEX}/documents", json=items, headers=headers)
        except httpx.TransportError as error:
            self._no_answer(error, written)
            return None
        self._record(written, answer)
        return answer

    def delete(self, one: str, *, version: int | None = None) -> httpx.Response | None:
        """Delete a document. Return None without a response."""
        written = Written(one, self._order(version), None)
        params = {} if version is None else {"version": version}
        try:
            answer = self.client.delete(f"/v1/indexes/{INDEX}/documents/{one}", params=params)
        except httpx.TransportError as error:
            self._no_answer(error, [written])
            return None
        if answer.status_code == 204:
            self.history.acknowledge(written)
        elif answer.status_code == 409:
            self.history.refuse(written, answer.json()["code"])
        else:
            self.history.leave_unanswered(written)
        return answer

    def _order(self, version: int | None) -> int:
        if version is not None:
            return version
        self._sent += 1
        return self._sent

    def _no_answer(self, error: httpx.TransportError, written: Sequence[Written]) -> None:
        if isinstance(error, httpx.ConnectError):
            return  # the request was never sent
        self.history.leave_unanswered(*written)

    def _record(self, written: Sequence[Written], answer: httpx.Response) -> None:
        """Record which writes the response acknowledges, refuses, or leaves open."""
        try:
            told = answer.json()
        except ValueError:
            self.history.leave_unanswered(*written)
            return
        accepted = set(told.get("accepted", ())) if answer.status_code == 202 else set()
        refused = {one["id"]: one["code"] for one in told.get("rejected", ())}
        for one in written:
            if one.id in accepted:
                self.history.acknowledge(one)
            elif refused.get(one.id) in CERTAIN:
                self.history.refuse(one, refused[one.id])
            elif answer.status_code == 429:
                self.history.refuse(one, told.get("code", ""))
            else:
                self.history.leave_unanswered(one)
