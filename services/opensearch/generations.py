"""Lifecycle of generations as calls and readers: create, resolve, list, count, delete.

The body that creates a generation: its fields, its analyser, and what it records about itself.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson

from services.encoders.manifest import DenseIdentity, Manifest
from services.errors import NotFound
from services.index_spec import EncoderIdentity, FieldType, Generation, IndexNames, IndexSpec, ScoreBy
from services.opensearch.client import Call
from services.opensearch.stored_document import EXCLUDED_CHAPTER_FIELDS, chapter_mapping, talk_mapping
from services.opensearch.suggestions import COMPLETION_FIELDS, SUGGEST_ANALYSIS, WORDS_FIELD, spelling_field
from services.settings import Settings

_TYPES: dict[FieldType, dict[str, Any]] = {
    "keyword": {"type": "keyword"},
    "text": {"type": "text"},
    "number": {"type": "double"},
    "date": {"type": "date", "format": "strict_date_optional_time"},
    "boolean": {"type": "boolean"},
}
_KEYWORD_FIELD = {"type": "keyword"}
_RANK_FEATURES_FIELD = {"type": "rank_features"}
_TIMESTAMP_FIELD = {"type": "date", "format": "epoch_millis"}
# Fields that the first generations were made without; the sweeper adds them there (`indexer.sweeper`).
LATER_FIELDS: dict[str, Any] = {
    "dead_at": _TIMESTAMP_FIELD,
    "dead_id": {"type": "keyword", "index": False},
    "earlier": {"type": "object", "enabled": False},
    # read for the documents that are reranked, without their source; never searched
    "dense": {"type": "binary", "doc_values": True},
    "dense_encoder": _KEYWORD_FIELD,
    "dense_error": _KEYWORD_FIELD,
}


def mapping_properties(generation: Generation) -> dict[str, Any]:
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
    window = {"sparse": _RANK_FEATURES_FIELD} if spec.talk is None else {"sparse": _RANK_FEATURES_FIELD, "words": words}
    nested = {"type": "nested", "properties": window}
    vectors: dict[ScoreBy, dict[str, Any]] = {
        "document": {"sparse": _RANK_FEATURES_FIELD},
        "window": {"window_vectors": nested},
    }
    found_by = {"lexical": words}
    found_by.setdefault(spelling_field(spec), WORDS_FIELD)
    title_words = {"title_words": words} if generation.titles else {}
    shown = {"type": "text", "index": False, "copy_to": list(found_by)}
    return {
        "title": shown | {"copy_to": [*found_by, *title_words], "fields": COMPLETION_FIELDS},
        "text": shown,
        **(talk_mapping(shown) if spec.talk is not None else {}),
        **found_by,
        **title_words,
        **{name: field for by in spec.scored_by for name, field in vectors[by].items()},
        **({} if spec.talk is None else chapter_mapping(words)),
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


def create_index_body(generation: Generation, settings: Settings, aliases: list[str]) -> dict[str, Any]:
    """Body of PUT /{physical index}."""
    return {
        "settings": {
            "number_of_shards": settings.shards,
            "number_of_replicas": settings.replicas,
            "refresh_interval": settings.refresh_interval,
            # a 202 means that the raw document is on disk
            "translog.durability": "request",
            "analysis": SUGGEST_ANALYSIS,
        },
        "mappings": {
            "dynamic": "strict",
            "_meta": {"sparsewell": generation.model_dump(mode="json")},
            "_source": {"excludes": ["sparse", "sparse.*", "window_vectors", *EXCLUDED_CHAPTER_FIELDS]},
            "properties": mapping_properties(generation),
        },
        "aliases": {alias: {} for alias in (*aliases, generation.write_alias)},
    }


def add_later_fields_call(physical: str) -> Call:
    """Adds the later fields to a generation; where they are, nothing changes."""
    return Call("PUT", f"/{physical}/_mapping", orjson.dumps({"properties": LATER_FIELDS}))


def create_jobs_body(settings: Settings) -> dict[str, Any]:
    """Body of PUT /{prefix}_jobs: read by id and listed by age."""
    return {
        "settings": {"number_of_shards": 1, "number_of_replicas": settings.replicas},
        "mappings": {
            "dynamic": False,
            "properties": {"index": _KEYWORD_FIELD, "created_at": _TIMESTAMP_FIELD},
        },
    }


_NUMBER = re.compile(r"\.g(\d+)$")
DOCUMENT_STATES = ("pending", "encoded", "dead", "deleted")


def new_generation(
    names: IndexNames,
    index: str,
    number: int,
    spec: IndexSpec,
    manifest: Manifest,
    lineage: str = "",
    dense: DenseIdentity | None = None,
) -> Generation:
    """A generation that does not exist yet; the window is the spec's or else what the encoder recommends.

    `lineage` is that of the index's earlier generation, empty for a new index; `dense` is what the spec's name stands
    for.
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
        identity=lineage or uuid4().hex,
        token=uuid4().hex[:12],
        suggests=True,
        titles=True,
    )


def create_generation_call(generation: Generation, settings: Settings, aliases: list[str]) -> Call:
    """Creates the physical index; the alias comes with it, so that there is no moment with only one of them."""
    return Call("PUT", f"/{generation.physical}", orjson.dumps(create_index_body(generation, settings, aliases)))


def create_jobs_call(names: IndexNames, settings: Settings) -> Call:
    """Creates the index of jobs; answered with an error when it exists."""
    return Call("PUT", f"/{names.jobs}", orjson.dumps(create_jobs_body(settings)))


def resolve_alias_call(names: IndexNames, index: str, *, near: bool = False) -> Call:
    """Asks which generation an index's alias points to.

    `near`: as the node that is asked knows it, a moment behind the cluster's leader, which it need not ask then.
    """
    params = {"filter_path": "*.mappings._meta.sparsewell"} | _local_option(near)
    return Call("GET", f"/{names.alias(index)}/_mapping", params=params)


def _local_option(near: bool) -> dict[str, str]:
    return {"local": "true"} if near else {}


def generation_call(physical: str) -> Call:
    """Asks for one generation by its own name."""
    return Call("GET", f"/{physical}/_mapping", params={"filter_path": "*.mappings._meta.sparsewell"})


def list_generations_call(names: IndexNames, *, near: bool = False) -> Call:
    """Asks for all generations that an alias points to; `near` as in `resolve_alias_call`."""
    params = {"filter_path": "*.aliases,*.mappings._meta.sparsewell", "allow_no_indices": "true"} | _local_option(near)
    return Call("GET", f"/{names.every_alias}", params=params)


def all_generations_call(names: IndexNames) -> Call:
    """Asks for every generation there is, with its aliases: searched, being built, or kept."""
    params = {"filter_path": "*.aliases,*.mappings._meta.sparsewell", "allow_no_indices": "true"}
    return Call("GET", f"/{names.every_physical}", params=params)


def read_generations(answer: Mapping[str, Any]) -> list[Generation]:
    """The generations in an answer, by index and number.

    What one is called OpenSearch says: a copy that is being restored from a backup records the name that it had.
    """
    found = []
    for physical, content in (answer or {}).items():
        # An index of somebody else's may begin with our prefix; it says nothing of us.
        recorded = content.get("mappings", {}).get("_meta", {}).get("sparsewell")
        if recorded:
            named = _NUMBER.search(physical)
            called = {"physical": physical} | ({"number": int(named[1])} if named else {})
            found.append(Generation.model_validate(recorded | called))
    return sorted(found, key=lambda generation: (generation.index, generation.number))


def read_active_generations(answer: Mapping[str, Any]) -> list[Generation]:
    """The generations in an answer to `list_call` that an alias points to, by index."""
    generations = read_generations(answer)
    return [one for one in generations if one.physical.partition(".")[0] in answer[one.physical].get("aliases", {})]


def read_writable_generations(answer: Mapping[str, Any]) -> list[Generation]:
    """The generations in an answer to `list_call` that are written to: a retired one has no write alias."""
    found = read_generations(answer)
    return [one for one in found if one.write_alias in answer[one.physical].get("aliases", {})]


def read_generation(answer: Mapping[str, Any], index: str) -> Generation:
    """The one generation that an alias points to. Raises NotFound (`index_not_found`)."""
    found = read_generations(answer)
    if not found:
        raise index_not_found(index)
    return found[-1]


def index_not_found(index: str) -> NotFound:
    """The error for a name that no alias has."""
    return NotFound("index_not_found", f"There is no index {index!r}; create it with PUT /v1/indexes/{index}.")


def index_generations_call(names: IndexNames, index: str) -> Call:
    """Asks for all generations of one index, whether the alias points to them or not."""
    return Call(
        "GET",
        f"/{names.every_generation(index)}/_mapping",
        params={"filter_path": "*.mappings._meta.sparsewell", "allow_no_indices": "true"},
    )


def delete_generations_call(generations: Sequence[Generation]) -> Call:
    """Deletes generations by name, and their aliases with them; wildcards may be forbidden on a company's cluster."""
    return Call("DELETE", "/" + ",".join(generation.physical for generation in generations))


def swap_alias_call(old: Generation, new: Generation) -> Call:
    """Points the index's alias to `new` in one step, and retires `old`: it loses its write alias as well."""
    actions = [
        {"remove": {"index": old.physical, "alias": old.alias, "must_exist": False}},
        {"remove": {"index": old.physical, "alias": old.write_alias, "must_exist": False}},
        {"add": {"index": new.physical, "alias": new.alias}},
    ]
    return Call("POST", "/_aliases", orjson.dumps({"actions": actions}))


def retire_generation_call(generation: Generation) -> Call:
    """Takes a generation's write alias away."""
    action = {"index": generation.physical, "alias": generation.write_alias, "must_exist": False}
    return Call("POST", "/_aliases", orjson.dumps({"actions": [{"remove": action}]}))


def reactivate_generation_call(generation: Generation) -> Call:
    """Gives a retired generation its write alias back."""
    action = {"index": generation.physical, "alias": generation.write_alias}
    return Call("POST", "/_aliases", orjson.dumps({"actions": [{"add": action}]}))


def block_writes_call(generation: Generation) -> Call:
    """Makes a generation read-only. Answered when every write that had begun is done (OpenSearch's add-block API)."""
    return Call("PUT", f"/{generation.physical}/_block/write")


def unblock_writes_call(generation: Generation) -> Call:
    """Lets a generation be written again."""
    return Call("PUT", f"/{generation.physical}/_settings", orjson.dumps({"index.blocks.write": None}))


def refresh_call(physical: str) -> Call:
    """Makes everything written so far visible to searches and counts."""
    return Call("POST", f"/{physical}/_refresh")


def count_states_call(physical: str, job: str | None = None) -> Call:
    """Counts documents by state, of a whole generation or of one job."""
    query: dict[str, Any] = {"match_all": {}} if job is None else {"term": {"job": job}}
    states = {"terms": {"field": "state", "size": len(DOCUMENT_STATES)}}
    return Call(
        "POST",
        f"/{physical}/_search",
        orjson.dumps({"size": 0, "query": query, "aggs": {"states": states}}),
        {"allow_partial_search_results": "false"},
    )


def read_state_counts(answer: Mapping[str, Any]) -> dict[str, int]:
    """Documents by state; every state is named."""
    counts = dict.fromkeys(DOCUMENT_STATES, 0)
    for bucket in answer["aggregations"]["states"]["buckets"]:
        counts[bucket["key"]] = bucket["doc_count"]
    return counts


def count_pending_call(names: IndexNames, seconds: float) -> Call:
    """Counts the documents of all indexes that wait to be encoded; answered within `seconds` or not at all."""
    query = {"query": {"term": {"state": "pending"}}}
    params = {"filter_path": "count,_shards.failed", "allow_no_indices": "true", "ignore_unavailable": "true"}
    # (by their write aliases: a retired generation keeps what it had)
    return Call("POST", f"/{names.every_write_alias}/_count", orjson.dumps(query), params, timeout=seconds)


def read_pending_count(answer: Mapping[str, Any]) -> int | None:
    """The count in an answer to `count_pending_call`; None when not every shard was counted."""
    return None if answer["_shards"]["failed"] else int(answer["count"])
