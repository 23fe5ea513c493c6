"""Vector reuse: a new version of a document takes over the vectors that are stored with the version before.

A write reads the stored document first (`stored_versions_call`). If the encoder would read the same text again, the
write stores the document encoded, with the stored vectors, and no worker sees it. If the text has changed, the pending
document keeps the earlier vectors until the new ones are written, so that search by meaning goes on finding it. They
are in `earlier.vectors`, apart from `windows`, because their offsets count in the earlier text. `has_same_vectors` and
`has_same_chapters` decide the same question for a reindex. See docs/decisions/0247.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import orjson

from services.documents.document import is_talk
from services.index_spec import Generation, IndexSpec
from services.opensearch.bulk import Write
from services.opensearch.client import Call
from services.opensearch.journal import DELETED, ENCODED
from services.opensearch.stored_document import (
    PIECES_FIELD,
    StoredDocument,
    build_stale_fields,
    rebuild_search_fields,
)

# The members that an encoder or a chapter engine reads. A change of any of them needs new vectors.
_ENCODED_CONTENT: Final = ("title", "text", "kind", "description", "segments", "given", "given_titles")
# The members that the encoding adds, without the fields that only searches read.
_ENCODING: Final = (
    "encoder", "encoded_at", "windows", "dense", "dense_encoder", "chapters", "chapter_titles", "chaptering",
    PIECES_FIELD,
)  # fmt: skip
# Vectors of the earlier text that are searched where they are.
_CARRIED: Final = ("dense", "dense_encoder", PIECES_FIELD)
_READ: Final = (*_ENCODED_CONTENT, *_ENCODING, "state", "job", "version", "dense_error", "earlier")


@dataclass(frozen=True, slots=True)
class ReusedWrite:
    """A write with stored vectors. `complete`: it is encoded, and no worker needs to see the document."""

    write: Write
    complete: bool


def stored_versions_call(generation: Generation, ids: Sequence[str]) -> Call:
    """Read the stored documents with these ids in real time, with the members that `reuse_vectors` compares."""
    params = {"_source_includes": ",".join(_READ)}
    return Call("POST", f"/{quote(generation.physical)}/_mget", orjson.dumps({"ids": list(ids)}), params)


def stored_states_call(generation: Generation, ids: Sequence[str]) -> Call:
    """Read the states of the stored documents with these ids in real time, without their texts and vectors."""
    return Call(
        "POST",
        f"/{quote(generation.physical)}/_mget",
        orjson.dumps({"ids": list(ids)}),
        {"_source_includes": "state,job,version"},
    )


def split_by_stored_version(ids: Sequence[str], states: Mapping[str, StoredDocument]) -> tuple[list[str], list[str]]:
    """Return the documents without a stored version, and those whose stored version may have vectors for the next.

    `states`: the answer to `stored_states_call` by id.
    """
    stored = {name for name in ids if name in states and states[name].state != DELETED}
    return [name for name in ids if name not in stored], [name for name in ids if name in stored]


def reuse_vectors(generation: Generation, write: Write, stored: StoredDocument | None) -> ReusedWrite:
    """Return the raw write of a document with the vectors of its stored version.

    The write then goes to the generation itself and not through the index's alias: after a swap, the vectors would be
    those of another encoder. OpenSearch refuses it once the generation is retired.
    """
    if stored is None or stored.state == DELETED:
        return ReusedWrite(write, complete=False)
    if _is_reusable(generation, write.source, stored):
        return ReusedWrite(_encoded_write(generation, write, stored), complete=True)
    vectors = _earlier_vectors(generation, stored)
    if vectors is None:
        return ReusedWrite(write, complete=False)
    carried = {name: stored.source[name] for name in _CARRIED if name in stored.source}
    source = write.source | carried | {"earlier": {"vectors": vectors}}
    fields = partial(build_stale_fields, source, generation.spec)
    changed = replace(write, alias=generation.write_alias, source=source, search_fields=fields)
    return ReusedWrite(changed, complete=False)


def _is_reusable(generation: Generation, source: Mapping[str, Any], stored: StoredDocument) -> bool:
    """Tell whether the stored vectors are those that the encoders would make of the new document."""
    old = stored.source
    if stored.state != ENCODED or old.get("encoder") != generation.encoder.fingerprint:
        return False
    if any(source.get(name) != old.get(name) for name in _ENCODED_CONTENT):
        return False
    if generation.dense is not None and old.get("dense_encoder") != generation.dense.fingerprint:
        return False
    return has_same_chapters(generation, generation, old)


def _encoded_write(generation: Generation, write: Write, stored: StoredDocument) -> Write:
    """Return the write of the new document in the state encoded, with the stored vectors."""
    raw = {name: value for name, value in write.source.items() if name != "due_at"}
    source = raw | {"state": ENCODED} | {name: stored.source[name] for name in _ENCODING if name in stored.source}
    fields = partial(rebuild_search_fields, source, generation.spec)
    return replace(write, alias=generation.write_alias, source=source, search_fields=fields)


def _earlier_vectors(generation: Generation, stored: StoredDocument) -> dict[str, Any] | None:
    """Return the sparse vectors to keep: those of the encoded version, or those that a version without vectors kept."""
    if stored.state == ENCODED:
        if stored.source.get("encoder") != generation.encoder.fingerprint:
            return None
        return {"version": stored.source.get("version"), "windows": stored.source.get("windows", [])}
    vectors: dict[str, Any] | None = stored.source.get("earlier", {}).get("vectors")
    return vectors


def has_same_vectors(source: Generation, target: Generation) -> bool:
    """Check whether the encoders of `target` would make the sparse and dense vectors that `source` has.

    If `target` wants no dense vectors, they are dropped; if it lacks them, every document is encoded again. The field
    `pieces` is treated alike, because a copy has no vocabulary. Talk also depends on each document's chapters: see
    `has_same_chapters`.
    """
    sparse = source.encoder.fingerprint == target.encoder.fingerprint and source.window == target.window
    dense = target.dense is None or target.dense == source.dense
    return sparse and dense and has_same_pieces(source.spec, target.spec)


def has_same_pieces(source: IndexSpec, target: IndexSpec) -> bool:
    """Tell whether the field `pieces` of `source`, or its absence, suits `target`."""
    same = source.piece_features and source.document_top_k == target.document_top_k
    return same or not target.piece_features


def has_same_chapters(source: Generation, target: Generation, stored: Mapping[str, Any]) -> bool:
    """Tell whether a document has the chapters that `target` asks for, and windows that were encoded with them.

    A producer's chapters suit every engine. Chapters that an engine failed to make are made again.
    """
    if source.spec.talk is None or target.spec.talk is None or not is_talk(stored):
        return True
    if source.spec.talk.titles_in_vectors != target.spec.talk.titles_in_vectors:
        return False
    chaptering = stored.get("chaptering", {})
    if chaptering.get("engine") == "given":
        return True
    engine = target.spec.talk.chapters
    if chaptering.get("engine") != engine or "error" in chaptering:
        return False
    return engine == "none" or not target.chapters or chaptering.get("fingerprint") == target.chapters
