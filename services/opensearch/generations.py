"""Generations: the physical indexes behind an alias, with their mapping and their lifecycle.

The module holds the body that creates a generation (fields, analysers, and the record of itself in `_meta`), and the
calls that create, resolve, list, swap, block, count and delete generations, each with the reader of its answer. A swap
moves the alias in one step. See docs/decisions/0003 (search the generation), 0004 (packed vectors), 0095 (reindex) and
0206 (roles).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson

from services.documents.document import DOCUMENT_STATES
from services.encoders.manifest import DenseIdentity, Manifest
from services.errors import NotFound
from services.index_spec import EncoderIdentity, FieldType, Generation, IndexNames, IndexSpec, ScoreBy
from services.opensearch.client import Call
from services.opensearch.languages import join_analyses, lexical_analysis, lexical_field, lexical_similarity
from services.opensearch.stored_document import EXCLUDED_CHAPTER_FIELDS, PIECES_FIELD, chapter_mapping, talk_mapping
from services.opensearch.suggestions import COMPLETION_FIELDS, SUGGEST_ANALYSIS, WORDS_FIELD
from services.settings import Settings

_GENERATION_NUMBER = re.compile(r"\.g(\d+)$")
_TYPES: dict[FieldType, dict[str, Any]] = {
    "keyword": {"type": "keyword"},
    "text": {"type": "text"},
    "number": {"type": "double"},
    "date": {"type": "date", "format": "strict_date_optional_time"},
    "boolean": {"type": "boolean"},
}
# Generations that `count_pending_call` tells apart, those with the most pending documents.
MAX_COUNTED_GENERATIONS = 1000
_KEYWORD_FIELD = {"type": "keyword"}
_RANK_FEATURES_FIELD = {"type": "rank_features"}
_TIMESTAMP_FIELD = {"type": "date", "format": "epoch_millis"}
# Fields that the first generations lack. The sweeper (`indexer.sweeper`) adds them.
LATER_FIELDS: dict[str, Any] = {
    "dead_at": _TIMESTAMP_FIELD,
    "dead_id": {"type": "keyword", "index": False},
    "earlier": {"type": "object", "enabled": False},
    # doc values: reranking reads them without the source
    "dense": {"type": "binary", "doc_values": True},
    "dense_encoder": _KEYWORD_FIELD,
    "dense_error": _KEYWORD_FIELD,
}


@dataclass(frozen=True, slots=True)
class PendingCounts:
    """Pending documents: of all indexes, and by the physical name of each generation that has any."""

    total: int
    by_generation: Mapping[str, int]


def new_generation(
    names: IndexNames,
    index: str,
    number: int,
    spec: IndexSpec,
    manifest: Manifest,
    lineage: str = "",
    dense: DenseIdentity | None = None,
) -> Generation:
    """Describe a generation that does not exist yet. The window is the spec's, or else the encoder's recommendation.

    `lineage` is the lineage of the index's earlier generations, empty for a new index. `dense` is the encoder with the
    name in the spec.
    """
    return Generation(
        index=index,
        number=number,
        physical=names.physical(index, number),
        spec=spec,
        encoder=EncoderIdentity(name=manifest.name, fingerprint=manifest.fingerprint),
        window=spec.window or manifest.window,
        dense=dense,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        lineage=lineage or uuid4().hex,
        token=uuid4().hex[:12],
        suggests=True,
        titles=True,
        folds=True,
    )


def create_generation_call(generation: Generation, settings: Settings, aliases: list[str]) -> Call:
    """Create the physical index together with its aliases, so that neither ever exists without the other."""
    return Call("PUT", f"/{generation.physical}", orjson.dumps(create_index_body(generation, settings, aliases)))


def create_index_body(generation: Generation, settings: Settings, aliases: list[str]) -> dict[str, Any]:
    """Return the body of PUT /{physical index}."""
    return {
        "settings": {
            "number_of_shards": settings.shards,
            "number_of_replicas": settings.replicas,
            "refresh_interval": settings.refresh_interval,
            # fsync before each answer: a 202 promises that the raw document is on disk
            "translog.durability": "request",
            "analysis": join_analyses(SUGGEST_ANALYSIS, lexical_analysis(generation.spec.language)),
            "similarity": lexical_similarity(),
        },
        "mappings": {
            "dynamic": "strict",
            "_meta": {"sparsewell": generation.model_dump(mode="json")},
            "_source": {"excludes": ["sparse", "sparse.*", "window_vectors", *EXCLUDED_CHAPTER_FIELDS]},
            "properties": mapping_properties(generation),
        },
        "aliases": {alias: {} for alias in (*aliases, generation.write_alias)},
    }


def mapping_properties(generation: Generation) -> dict[str, Any]:
    """Return the fields of a generation's mapping.

    `lexical` is the one field of lexical search: title and text together, so that BM25 sees one length. `title_words`
    indexes the title once more, for indexes whose rules boost titles. Vectors are stored twice: for search in `sparse`
    (one a document) or `window_vectors` (one nested document a window) or both, which cannot be read back; and packed
    in `windows`, for explanations, passages and new generations. `pieces` is `sparse` with pieces as names.
    """
    spec = generation.spec
    words = lexical_field(spec.language)
    window = {"sparse": _RANK_FEATURES_FIELD}
    if spec.talk is not None:
        window["words"] = words  # lexical search of passages
    nested = {"type": "nested", "properties": window}
    vectors: dict[ScoreBy, dict[str, Any]] = {
        "document": {"sparse": _RANK_FEATURES_FIELD},
        "window": {"window_vectors": nested},
    }
    word_fields = {"lexical": words}
    word_fields.setdefault(spec.spelling_field, WORDS_FIELD)
    title_words = {"title_words": words} if generation.titles else {}
    shown = {"type": "text", "index": False, "copy_to": list(word_fields)}
    return {
        "title": shown | {"copy_to": [*word_fields, *title_words], "fields": COMPLETION_FIELDS},
        "text": shown,
        **(talk_mapping(shown) if spec.talk is not None else {}),
        **word_fields,
        **title_words,
        **{name: field for by in spec.scored_by for name, field in vectors[by].items()},
        **({} if spec.talk is None else chapter_mapping(words)),
        **({PIECES_FIELD: _RANK_FEATURES_FIELD} if spec.piece_features else {}),
        "windows": {"type": "object", "enabled": False},
        "metadata": {"dynamic": "strict", "properties": {name: _TYPES[kind] for name, kind in spec.fields.items()}},
        "state": _KEYWORD_FIELD,
        "job": _KEYWORD_FIELD,
        "encoder": _KEYWORD_FIELD,
        "version": {"type": "long", "index": False},
        "attempts": {"type": "integer", "index": False},
        "due_at": _TIMESTAMP_FIELD,
        "ingested_at": _TIMESTAMP_FIELD,
        "encoded_at": _TIMESTAMP_FIELD,
        "deleted_at": _TIMESTAMP_FIELD,
        "error": {"properties": {"code": _KEYWORD_FIELD, "reason": {"type": "text", "index": False}}},
        **LATER_FIELDS,
    }


def add_later_fields_call(physical: str) -> Call:
    """Add the later fields to a generation. The call changes nothing if they exist."""
    return Call("PUT", f"/{physical}/_mapping", orjson.dumps({"properties": LATER_FIELDS}))


def record_generation_call(generation: Generation, target: str) -> Call:
    """Update the record of a generation in the index `target`.

    A generation that another process may delete meanwhile is named by its write alias, which has the generation's
    token. OpenSearch then answers with NotFound, also where a new index has the physical name: that index must keep
    the token of its own record.
    """
    body = {"_meta": {"sparsewell": generation.model_dump(mode="json")}}
    return Call("PUT", f"/{target}/_mapping", orjson.dumps(body))


def resolve_alias_call(names: IndexNames, index: str, *, prefer_local: bool = False) -> Call:
    """Ask for the generation that an index's alias points to.

    `prefer_local`: the contacted node answers from its own cluster state, which may lag a moment behind the cluster
    manager's.
    """
    params = {"filter_path": "*.mappings._meta.sparsewell"} | _local_option(prefer_local)
    return Call("GET", f"/{names.alias(index)}/_mapping", params=params)


def generation_call(physical: str) -> Call:
    """Ask for one generation by its physical name."""
    return Call("GET", f"/{physical}/_mapping", params={"filter_path": "*.mappings._meta.sparsewell"})


def list_generations_call(names: IndexNames, *, prefer_local: bool = False) -> Call:
    """Ask for all generations that an alias points to. `prefer_local` as in `resolve_alias_call`."""
    params = {"filter_path": "*.aliases,*.mappings._meta.sparsewell", "allow_no_indices": "true"} | _local_option(
        prefer_local
    )
    return Call("GET", f"/{names.every_alias}", params=params)


def active_encoders_call(names: IndexNames) -> Call:
    """Ask for index name and encoder of each generation, without the rest of its record."""
    recorded = "*.mappings._meta.sparsewell"
    params = {
        "filter_path": f"*.aliases,{recorded}.index,{recorded}.encoder",
        "allow_no_indices": "true",
        "local": "true",
    }
    return Call("GET", f"/{names.every_alias}", params=params)


def read_active_encoders(answer: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Read name and fingerprint of each index's encoder from an answer to `active_encoders_call`.

    The records are not validated: 5,000 of them would hold the event loop for .1 s.
    """
    encoders = {}
    for physical, content in (answer or {}).items():
        recorded = content.get("mappings", {}).get("_meta", {}).get("sparsewell")
        if recorded and physical.partition(".")[0] in content.get("aliases", {}):
            encoder = recorded["encoder"]
            encoders[recorded["index"]] = (encoder["name"], encoder["fingerprint"])
    return encoders


def all_generations_call(names: IndexNames) -> Call:
    """Ask for every generation with its aliases: searched, under construction, or retired."""
    params = {"filter_path": "*.aliases,*.mappings._meta.sparsewell", "allow_no_indices": "true"}
    return Call("GET", f"/{names.every_physical}", params=params)


def index_generations_call(names: IndexNames, index: str) -> Call:
    """Ask for all generations of one index, with or without the alias."""
    return Call(
        "GET",
        f"/{names.every_generation(index)}/_mapping",
        params={"filter_path": "*.mappings._meta.sparsewell", "allow_no_indices": "true"},
    )


def _local_option(prefer_local: bool) -> dict[str, str]:
    return {"local": "true"} if prefer_local else {}


def read_generation(answer: Mapping[str, Any], index: str) -> Generation:
    """Read the generation that an alias points to. Raises NotFound (`index_not_found`)."""
    generations = read_generations(answer)
    if not generations:
        raise index_not_found(index)
    return generations[-1]


def read_generations(answer: Mapping[str, Any]) -> list[Generation]:
    """Read the generations from an answer, sorted by index and number.

    The physical name comes from OpenSearch and not from the record: a restored copy records its original name.
    """
    generations = []
    for physical, content in (answer or {}).items():
        # A foreign index may share our prefix; it has no record.
        recorded = content.get("mappings", {}).get("_meta", {}).get("sparsewell")
        if recorded:
            number = _GENERATION_NUMBER.search(physical)
            actual = {"physical": physical} | ({"number": int(number[1])} if number else {})
            generations.append(Generation.model_validate(recorded | actual))
    return sorted(generations, key=lambda generation: (generation.index, generation.number))


def read_active_generations(answer: Mapping[str, Any]) -> list[Generation]:
    """Read the generations that an alias points to from an answer to `list_generations_call`, by index."""
    generations = read_generations(answer)
    return [
        generation
        for generation in generations
        if generation.physical.partition(".")[0] in answer[generation.physical].get("aliases", {})
    ]


def read_writable_generations(answer: Mapping[str, Any]) -> list[Generation]:
    """Read the writable generations from an answer to `list_generations_call`: a retired one has no write alias."""
    generations = read_generations(answer)
    return [
        generation
        for generation in generations
        if generation.write_alias in answer[generation.physical].get("aliases", {})
    ]


def index_not_found(index: str) -> NotFound:
    """Return the error for an index name without an alias."""
    return NotFound("index_not_found", f"There is no index {index!r}; create it with PUT /v1/indexes/{index}.")


def swap_alias_call(old: Generation, new: Generation) -> Call:
    """Move the index's alias from `old` to `new` in one step, and retire `old`: it also loses its write alias."""
    actions = [
        {"remove": {"index": old.physical, "alias": old.alias, "must_exist": False}},
        {"remove": {"index": old.physical, "alias": old.write_alias, "must_exist": False}},
        {"add": {"index": new.physical, "alias": new.alias}},
    ]
    return Call("POST", "/_aliases", orjson.dumps({"actions": actions}))


def retire_generation_call(generation: Generation) -> Call:
    """Remove a generation's write alias."""
    action = {"index": generation.physical, "alias": generation.write_alias, "must_exist": False}
    return Call("POST", "/_aliases", orjson.dumps({"actions": [{"remove": action}]}))


def reactivate_generation_call(generation: Generation) -> Call:
    """Give a retired generation its write alias back."""
    action = {"index": generation.physical, "alias": generation.write_alias}
    return Call("POST", "/_aliases", orjson.dumps({"actions": [{"add": action}]}))


def block_writes_call(generation: Generation) -> Call:
    """Make a generation read-only. OpenSearch answers after all running writes end (add-block API)."""
    return Call("PUT", f"/{generation.physical}/_block/write")


def unblock_writes_call(generation: Generation) -> Call:
    """Allow writes to a generation again."""
    return Call("PUT", f"/{generation.physical}/_settings", orjson.dumps({"index.blocks.write": None}))


def delete_generations_call(generations: Sequence[Generation]) -> Call:
    """Delete generations and their aliases by name: a cluster may forbid wildcards."""
    return Call("DELETE", "/" + ",".join(generation.physical for generation in generations))


def refresh_call(physical: str) -> Call:
    """Make all writes so far visible to searches and counts."""
    return Call("POST", f"/{physical}/_refresh")


def count_states_call(physical: str, job: str | None = None) -> Call:
    """Count the documents of a generation, or of one job in it, by state."""
    query: dict[str, Any] = {"match_all": {}} if job is None else {"term": {"job": job}}
    states = {"terms": {"field": "state", "size": len(DOCUMENT_STATES)}}
    return Call(
        "POST",
        f"/{physical}/_search",
        orjson.dumps({"size": 0, "query": query, "aggs": {"states": states}}),
        {"allow_partial_search_results": "false"},
    )


def read_state_counts(answer: Mapping[str, Any]) -> dict[str, int]:
    """Read the number of documents by state. Every state has a count."""
    counts = dict.fromkeys(DOCUMENT_STATES, 0)
    for bucket in answer["aggregations"]["states"]["buckets"]:
        counts[bucket["key"]] = bucket["doc_count"]
    return counts


def count_pending_call(names: IndexNames, seconds: float) -> Call:
    """Count the pending documents of all indexes and of each. OpenSearch answers within `seconds` or not at all."""
    body = {
        "size": 0,
        "track_total_hits": True,
        "query": {"term": {"state": "pending"}},
        "aggs": {"generations": {"terms": {"field": "_index", "size": MAX_COUNTED_GENERATIONS}}},
    }
    params = {
        "filter_path": "hits.total.value,_shards.failed,aggregations.generations.buckets",
        "allow_no_indices": "true",
        "ignore_unavailable": "true",
    }
    # write aliases exclude retired generations, whose pending documents stay pending
    return Call("POST", f"/{names.every_write_alias}/_search", orjson.dumps(body), params, timeout=seconds)


def read_pending_counts(answer: Mapping[str, Any]) -> PendingCounts | None:
    """Read the counts from an answer to `count_pending_call`; None if a shard was not counted."""
    if answer["_shards"]["failed"]:
        return None
    buckets = answer.get("aggregations", {}).get("generations", {}).get("buckets", [])
    return PendingCounts(
        int(answer["hits"]["total"]["value"]), {bucket["key"]: bucket["doc_count"] for bucket in buckets}
    )


def create_jobs_call(names: IndexNames, settings: Settings) -> Call:
    """Create the index of jobs. OpenSearch answers with an error if it exists."""
    return Call("PUT", f"/{names.jobs}", orjson.dumps(create_jobs_body(settings)))


def create_jobs_body(settings: Settings) -> dict[str, Any]:
    """Return the body of PUT /{prefix}_jobs. Jobs are read by id and listed by age."""
    return {
        "settings": {"number_of_shards": 1, "number_of_replicas": settings.replicas},
        "mappings": {
            "dynamic": False,
            "properties": {"index": _KEYWORD_FIELD, "created_at": _TIMESTAMP_FIELD},
        },
    }
