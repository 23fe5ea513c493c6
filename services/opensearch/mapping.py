"""The body that creates a generation: its fields, its analyser, and what it records about itself."""

from typing import Any

import orjson

from services.index_spec import FieldType, Generation, ScoreBy
from services.opensearch.chapter_fields import EXCLUDED, chapter_properties
from services.opensearch.client import Call
from services.opensearch.suggestions import ANALYSIS, COMPLETED, WORDS, spelling_field
from services.opensearch.talk_members import talk_fields
from services.settings import Settings

_TYPES: dict[FieldType, dict[str, Any]] = {
    "keyword": {"type": "keyword"},
    "text": {"type": "text"},
    "number": {"type": "double"},
    "date": {"type": "date", "format": "strict_date_optional_time"},
    "boolean": {"type": "boolean"},
}
_LABEL = {"type": "keyword"}
_VECTOR = {"type": "rank_features"}
_MOMENT = {"type": "date", "format": "epoch_millis"}
# Fields that the first generations were made without; the sweeper adds them there (`indexer.later_fields`).
LATER: dict[str, Any] = {
    "dead_at": _MOMENT,
    "dead_id": {"type": "keyword", "index": False},
    "earlier": {"type": "object", "enabled": False},
    # read for the documents that are reranked, without their source; never searched
    "dense": {"type": "binary", "doc_values": True},
    "dense_encoder": _LABEL,
    "dense_error": _LABEL,
}


def properties(generation: Generation) -> dict[str, Any]:
    """The mapping's fields.

    `lexical` is the one field of keyword search (title and text together, so that BM25 sees one length); `title_words`
    has those of the title once more, for indexes whose rules make them count more. The vectors
    are kept twice: in `sparse` (the document's) or `window_vectors` (one nested document a window), or both, which are
    searched and cannot be read back, and packed by window in `windows`, from which explanations, best passages and new
    generations are made.

    What is typed is completed by titles, and misspelt words are corrected by the index's own: `suggestions`.
    """
    spec = generation.spec
    words = {"type": "text", "analyzer": spec.language}
    # passages of talk are found by their own words as well
    window = {"sparse": _VECTOR} if spec.talk is None else {"sparse": _VECTOR, "words": words}
    nested = {"type": "nested", "properties": window}
    vectors: dict[ScoreBy, dict[str, Any]] = {"document": {"sparse": _VECTOR}, "window": {"window_vectors": nested}}
    found_by = {"lexical": words}
    found_by.setdefault(spelling_field(spec), WORDS)
    title_words = {"title_words": words} if generation.titles else {}
    shown = {"type": "text", "index": False, "copy_to": list(found_by)}
    return {
        "title": shown | {"copy_to": [*found_by, *title_words], "fields": COMPLETED},
        "text": shown,
        **(talk_fields(shown) if spec.talk is not None else {}),
        **found_by,
        **title_words,
        **{name: field for by in spec.scored_by for name, field in vectors[by].items()},
        **({} if spec.talk is None else chapter_properties(words)),
        "windows": {"type": "object", "enabled": False},
        "metadata": {"dynamic": "strict", "properties": {name: _TYPES[kind] for name, kind in spec.fields.items()}},
        "state": _LABEL,
        "job": _LABEL,
        "encoder": _LABEL,
        "version": {"type": "long", "index": False},
        "attempts": {"type": "integer", "index": False},
        "due_at": _MOMENT,
        "ingested_at": _MOMENT,
        "encoded_at": _MOMENT,
        "deleted_at": _MOMENT,
        "error": {"properties": {"code": _LABEL, "reason": {"type": "text", "index": False}}},
        **LATER,
    }


def creation_body(generation: Generation, settings: Settings, aliases: list[str]) -> dict[str, Any]:
    """Body of PUT /{physical index}."""
    return {
        "settings": {
            "number_of_shards": settings.shards,
            "number_of_replicas": settings.replicas,
            "refresh_interval": settings.refresh_interval,
            # a 202 means that the raw document is on disk
            "translog.durability": "request",
            "analysis": ANALYSIS,
        },
        "mappings": {
            "dynamic": "strict",
            "_meta": {"sparsewell": generation.model_dump(mode="json")},
            "_source": {"excludes": ["sparse", "sparse.*", "window_vectors", *EXCLUDED]},
            "properties": properties(generation),
        },
        "aliases": {alias: {} for alias in (*aliases, generation.write_alias)},
    }


def add_later_fields_call(physical: str) -> Call:
    """Adds the later fields to a generation; where they are, nothing changes."""
    return Call("PUT", f"/{physical}/_mapping", orjson.dumps({"properties": LATER}))


def jobs_body(settings: Settings) -> dict[str, Any]:
    """Body of PUT /{prefix}_jobs: read by id and listed by age."""
    return {
        "settings": {"number_of_shards": 1, "number_of_replicas": settings.replicas},
        "mappings": {
            "dynamic": False,
            "properties": {"index": _LABEL, "created_at": _MOMENT},
        },
    }
