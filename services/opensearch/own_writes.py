"""Bulk writes whose answer was lost: sent again, they find themselves stored. That is success, not "superseded". Pure.

check = LostAnswerCheck(alias, writes, verdicts)
if (call := check.call()) is not None:
    verdicts = check.settle(send(call))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.opensearch.bulk import Outcome, Verdict, Write
from services.opensearch.client import Call
from services.opensearch.journal import read_many, read_many_call


@dataclass(frozen=True, slots=True)
class LostAnswerCheck:
    """A check of raw writes and tombstones, with their verdicts in the same order.

    A write is its own predecessor when what is stored under its id has its version and its job. `alias` is where the
    writes went.
    """

    alias: str
    writes: Sequence[Write]
    verdicts: Sequence[Verdict]

    def call(self) -> Call | None:
        """Return the call that reads what is stored in place of superseded writes, in real time; None without any."""
        ids = [
            write.id
            for write, verdict in zip(self.writes, self.verdicts, strict=True)
            if verdict.outcome is Outcome.SUPERSEDED
        ]
        return read_many_call(self.alias, ids) if ids else None

    def settle(self, answer: Mapping[str, Any]) -> list[Verdict]:
        """Return the verdicts, with STORED for superseded writes that the answer to `call` holds."""
        held = {(stored.id, *_identity(stored.source)): stored.physical for stored in read_many(answer)}
        return [
            Verdict(Outcome.STORED, physical=held[write.id, *_identity(write.source)])
            if verdict.outcome is Outcome.SUPERSEDED and (write.id, *_identity(write.source)) in held
            else verdict
            for write, verdict in zip(self.writes, self.verdicts, strict=True)
        ]


def _identity(source: Mapping[str, object]) -> tuple[object, object]:
    return source.get("version"), source.get("job")
