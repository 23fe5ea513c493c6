"""Lists and documents as they were when a snapshot was taken."""

from collections.abc import Sequence
from dataclasses import replace

from query_api.search.engine import Answer, Documents, Engine, Key, whole
from query_api.search.stopwatch import Stopwatch
from services.errors import NotFound
from services.opensearch.analysis import Terms
from services.opensearch.filter_clauses import Clause
from services.opensearch.queries import Plan, body
from services.opensearch.snapshots import within


class InSnapshot:
    """An engine over a snapshot of some generations, which is kept longer by each request.

    Raises NotFound (`cursor_expired`) once it is gone: nobody asked for so long, or a generation was dropped.
    """

    def __init__(self, inner: Engine, snapshot: str, physical: Sequence[str], kept: float, timeout: float) -> None:
        """`kept` and `timeout` in seconds: until the snapshot ends when nobody asks, of one request."""
        self.snapshot = snapshot
        self._inner = inner
        self._index = ",".join(physical)
        self._kept = kept
        self._timeout = timeout

    async def lists(self, plans: Sequence[Plan]) -> Sequence[Answer]:
        try:
            answers = await self._inner.lists([self._within(plan) for plan in plans])
        except NotFound:
            raise cursor_expired() from None
        for answer in answers:
            if answer.get("status") == 404:
                raise cursor_expired()
            self.snapshot = answer.get("pit_id", self.snapshot)
        return answers

    async def documents(self, wanted: Sequence[Key], source: Sequence[str], *, realtime: bool = False) -> Documents:
        if realtime:  # there is nothing newer in a snapshot
            return {}
        ids = {"ids": {"values": sorted({one for _, one in wanted})}}
        # (an id may be in each of the indexes)
        search = body(ids, len(wanted) * (self._index.count(",") + 1), source, self._timeout)
        (answer,) = await self.lists([Plan(self._index, search)])
        return {(hit["_index"], hit["_id"]): hit["_source"] for hit in whole(answer, Stopwatch())}

    async def terms(self, index: str, field: str, words: Sequence[str]) -> Terms:
        return await self._inner.terms(index, field, words)

    def _within(self, plan: Plan) -> Plan:
        search = plan.body | within(self.snapshot, self._kept)
        if plan.index != self._index:
            names = (plan.index or "").split(",")
            search["query"] = _only(names, search["query"])
            if "rescore" in search:  # (or words would be counted in the other indexes too)
                again = search["rescore"]["query"]
                query = again | {"rescore_query": _only(names, again["rescore_query"])}
                search["rescore"] = search["rescore"] | {"query": query}
        return replace(plan, index=None, body=search)


def _only(names: Sequence[str], query: Clause) -> Clause:
    """A query of some of the snapshot's indexes."""
    return {"bool": {"must": [query], "filter": [{"terms": {"_index": names}}]}}


def cursor_expired() -> NotFound:
    """The error for a page that is asked for too late."""
    return NotFound("cursor_expired", "The snapshot behind `cursor` is gone: begin again, with `*`.")
