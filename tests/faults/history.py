"""Record the responses to clients and check whether the index kept its promises.

`check` is a pure function: it compares the history with the final state. `order` orders a document's writes. It is the
client's version or, where the server's clock decides, the order of sending (one sender a document). Every write of a
document has a unique text, so the stored text identifies its write. None stands for a delete.
"""

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Written:
    """A write of a document. A delete has `text` None."""

    id: str
    order: int
    text: str | None


@dataclass
class History:
    """The outcomes of writes from the sender's point of view. Several threads may add to it.

    acknowledged   the service promised to keep it
    unanswered     no response came, or it promises nothing (503): stored and not stored are both right
    refused        the service said that it will not be stored
    """

    index: str
    acknowledged: list[Written] = field(default_factory=list)
    unanswered: list[Written] = field(default_factory=list)
    refused: list[tuple[Written, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def acknowledge(self, *written: Written) -> None:
        with self._lock:
            self.acknowledged.extend(written)

    def leave_unanswered(self, *written: Written) -> None:
        with self._lock:
            self.unanswered.extend(written)

    def refuse(self, written: Written, code: str) -> None:
        with self._lock:
            self.refused.append((written, code))

    @property
    def ids(self) -> set[str]:
        """Return the ids of documents with any acknowledged write."""
        return {written.id for written in self.acknowledged}


@dataclass(frozen=True)
class Final:
    """The final state of a document as searches see it.

    A tombstone has `text` None. `state` is the stored state. `reason` says why the document is dead. `vectors_fit`: the
    stored vectors belong to this text. `found`: a search for the document's heaviest token finds it.
    """

    state: str
    text: str | None
    reason: str = ""
    vectors_fit: bool = True
    found: bool = True


@dataclass
class Findings:
    """Broken promises by kind. Each is a sentence that begins with the document's id.

    lost          acknowledged, but not searchable by meaning, not dead with a reason and not replaced
    resurrected   present again after an acknowledged delete
    wrong         an older write, a refused write or foreign vectors replace an acknowledged newer write
    dead          not a broken promise: documents that are dead with a reason
    """

    lost: list[str] = field(default_factory=list)
    resurrected: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        return [*self.lost, *self.resurrected, *self.wrong]


def check(history: History, final: Mapping[str, Final]) -> Findings:
    """Compare each acknowledged document with its final state (documents by id)."""
    findings = Findings()
    acknowledged, unanswered = _by_id(history.acknowledged), _by_id(history.unanswered)
    for one, writes in sorted(acknowledged.items()):
        newest = max(writes, key=lambda written: written.order)
        perhaps = [written for written in unanswered.get(one, ()) if written.order > newest.order]
        _judge(one, newest, perhaps, final.get(one), findings)
    return findings


def _judge(one: str, newest: Written, perhaps: list[Written], found: Final | None, findings: Findings) -> None:
    """Judge one document. Each of the unanswered newer writes in `perhaps` may rightly be the stored state."""
    there = None if found is None else found.text
    if any(there == written.text for written in perhaps):
        return
    if newest.text is None:
        if there is not None:
            findings.resurrected.append(f"{one}: deleted at {newest.order}, and {there[:60]!r} is there")
    elif found is None or there is None:
        what = "nothing is there" if found is None else "a tombstone is there"
        findings.lost.append(f"{one}: acknowledged at {newest.order}, and {what}")
    elif there != newest.text:
        findings.wrong.append(f"{one}: acknowledged at {newest.order}, and {there[:60]!r} is there")
    elif found.state == "dead" and found.reason:
        findings.dead.append(f"{one}: {found.reason}")
    elif found.state != "encoded":
        findings.lost.append(f"{one}: acknowledged at {newest.order}, and it is {found.state} for ever")
    elif not found.vectors_fit:
        findings.wrong.append(f"{one}: its vectors are not those of its text")
    elif not found.found:
        findings.lost.append(f"{one}: it says that it is encoded, and a search does not find it")


def _by_id(writes: list[Written]) -> dict[str, list[Written]]:
    grouped: dict[str, list[Written]] = defaultdict(list)
    for written in writes:
        grouped[written.id].append(written)
    return grouped
