"""What becomes of a stored document in another generation: its vectors are copied where they stay valid. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services import versions
from services.index_spec import Generation
from services.opensearch import talk_members
from services.opensearch.bulk import Write
from services.opensearch.journal import DEAD, DELETED, ENCODED, PENDING, Stored, dead_write, now_ms
from services.opensearch.stored_windows import TOO_MANY_WINDOWS, read_windows, searched, too_many_windows
from services.talk.chaptering import is_talk

# What the client sent and what is known of the sending; the rest belongs to one generation.
_RAW = ("text", "title", "metadata", "version", "job", "ingested_at", *talk_members.RAW)
_DENSE = ("dense", "dense_encoder", "dense_error")


def same_vectors(source: Generation, target: Generation) -> bool:
    """Whether the vectors in `source`, sparse and dense, are what `target`'s encoders would make.

    Dense vectors that `target` does not want are left behind; those that it lacks mean that all is encoded again. Of
    talk it depends on each document's chapters as well: see `same_chapters`.
    """
    sparse = source.encoder.fingerprint == target.encoder.fingerprint and source.window == target.window
    return sparse and (target.dense is None or target.dense == source.dense)


def same_chapters(source: Generation, target: Generation, stored: Mapping[str, Any]) -> bool:
    """Whether a document has the chapters that `target` asks for, and windows that were encoded with them.

    A producer's are what every engine is asked for. Chapters that an engine failed to make are tried again.
    """
    if not is_talk(stored) or source.spec.talk is None or target.spec.talk is None:
        return True
    if source.spec.talk.titles_in_vectors != target.spec.talk.titles_in_vectors:
        return False
    made = stored.get("chaptering", {})
    if made.get("engine") == "given":
        return True
    wanted = target.spec.talk.chapters
    if made.get("engine") != wanted or "error" in made:
        return False
    return wanted == "none" or not target.chapters or made.get("fingerprint") == target.chapters


def carried(source: Generation, target: Generation, stored: Stored, lease_seconds: float) -> Write:
    """The write of `stored` into `target`.

    It keeps the client's version, so whatever is newer there wins, and carrying the same document twice changes
    nothing. A tombstone stays one. Valid vectors are copied: pruning (`document_top_k`) is done anew from the windows.
    Everything else is the raw document again, to be encoded; so is a dead one, whose new encoder may be luckier.
    """
    due = now_ms() + int(lease_seconds * 1000)
    alias, external = target.write_alias, stored.external
    if stored.state == DELETED:
        return Write(alias, stored.id, versions.raw(versions.client(external)), stored.source)
    if same_vectors(source, target):
        if stored.state == ENCODED and same_chapters(source, target, stored.source):
            windows = read_windows(stored.source)
            refusal = too_many_windows(len(windows), target.spec)
            if refusal is not None:
                return _dead(target, stored, *refusal)
            left = () if target.dense is not None else _DENSE
            kept = {name: value for name, value in stored.source.items() if name not in left}
            return Write(alias, stored.id, external, kept | searched(windows, target.spec, kept))
        if stored.state == DEAD and stored.source.get("error", {}).get("code") != TOO_MANY_WINDOWS:
            return Write(alias, stored.id, external, stored.source)
        if stored.state == PENDING:
            # with its attempts and retries: it may be newer than the death of the same document that was carried before
            return Write(alias, stored.id, external, stored.source | {"due_at": due})
    raw = _raw(stored) | {"state": PENDING, "attempts": 0, "due_at": due}
    return Write(alias, stored.id, versions.raw(versions.client(external)), raw)


def _raw(stored: Stored) -> dict[str, Any]:
    return {name: stored.source[name] for name in _RAW if name in stored.source}


def misfit(source: Generation, target: Generation, stored: Stored) -> Write:
    """A document that `target`'s declaration does not take, as a dead one without its metadata.

    For what was acknowledged after the last look before a swap: its text is kept and found by keyword, and the list of
    dead documents says why it is there.
    """
    reason = (
        f"Its metadata does not fit the fields of generation {target.number}; it was written while "
        f"generation {source.number} was replaced. Send it again."
    )
    fitting = {name: value for name, value in stored.source.items() if name != "metadata"}
    return _dead(target, replace(stored, source=fitting), "misfit", reason)


def _dead(target: Generation, stored: Stored, code: str, reason: str) -> Write:
    """The raw document, dead from the beginning: the target never had an attempt at it."""
    raw = versions.raw(versions.client(stored.external))
    one = Stored(stored.id, raw, _raw(stored) | {"attempts": 0})
    return replace(dead_write(target, one, code, reason), version=raw)


def waits(write: Write) -> bool:
    """Whether the written document waits for an encoder."""
    return bool(write.source["state"] == PENDING)
