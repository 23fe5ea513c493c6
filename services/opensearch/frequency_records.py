"""Records of piece frequencies in a system index, and the calls that sample and count the documents of a generation.

Each count of a generation's documents makes a record with a new version, which never changes. The generation's mapping
names the version that searches use (`Generation.frequencies`), so that all processes move to a new count together. The
id of a record has the generation's token: a later generation with the same name never reads it. The record before the
newest is kept for the later pages of a search.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import quote

import orjson

from services.encoders.piece_frequencies import PieceFrequencies
from services.errors import BackendUnavailable, NotFound
from services.index_spec import Generation, IndexNames
from services.opensearch.client import Call
from services.opensearch.journal import ENCODED
from services.opensearch.system_indexes import CreateIndexCalls, make_index_calls

# Records of a generation: the newest, and the one before it.
KEPT_RECORDS: Final = 2
# OpenSearch's limit of the buckets of an aggregation (search.max_buckets).
_MAX_GENERATIONS: Final = 65_535
_PROPERTIES: Final[dict[str, Any]] = {"physical": {"type": "keyword"}}


@dataclass(frozen=True, slots=True)
class FrequencyRecord:
    """The frequencies of pieces in a sample of a generation's documents.

    `at`: the time of the count, in milliseconds since 1970. `encoded`: the number of encoded documents then, by
    which a change is noticed. `frequencies`: None where only the rest was read.
    """

    physical: str
    token: str
    version: int
    encoder: str
    at: int
    encoded: int
    frequencies: PieceFrequencies | None = None

    def source(self) -> bytes:
        """Return the `_source` of the record."""
        members = ("physical", "token", "version", "encoder", "at", "encoded")
        packed = {} if self.frequencies is None else self.frequencies.pack()
        return orjson.dumps({name: getattr(self, name) for name in members} | packed)

    @classmethod
    def read(cls, source: Mapping[str, Any]) -> Self:
        """Read a `_source`, with or without its counts. Raises ConfigurationError (`bad_frequencies`)."""
        members = ("physical", "token", "version", "encoder", "at", "encoded")
        frequencies = PieceFrequencies.unpack(source) if "counts" in source else None
        return cls(**{name: source[name] for name in members}, frequencies=frequencies)


def make_frequency_calls(names: IndexNames, replicas: int) -> CreateIndexCalls:
    """Return the calls that create the index of records. See `make_index_calls`."""
    return make_index_calls(names.frequencies, _PROPERTIES, replicas)


def read_records_call(names: IndexNames, generations: Iterable[Generation], *, counts: bool) -> Call:
    """Read the records that generations name, in their order; `counts`: with the frequencies.

    A multi-get, because a GET of a missing document is an error and a log line each time.
    """
    excluded = {} if counts else {"_source": {"excludes": ["counts"]}}
    documents = [
        {"_index": names.frequencies, "_id": record_id(generation, generation.frequencies)} | excluded
        for generation in generations
    ]
    return Call("POST", "/_mget", orjson.dumps({"docs": documents}))


def read_records(answer: Mapping[str, Any]) -> list[FrequencyRecord | None]:
    """Return the records in the requested order, None for a missing one.

    Raises BackendUnavailable (`frequencies_unavailable`) if no copy could be read.
    """
    records: list[FrequencyRecord | None] = []
    for document in answer["docs"]:
        if "error" in document and document["error"].get("type") != "index_not_found_exception":
            raise BackendUnavailable("frequencies_unavailable", "The frequencies of pieces cannot be read; try again.")
        records.append(FrequencyRecord.read(document["_source"]) if document.get("found") else None)
    return records


def require_record(answer: Mapping[str, Any]) -> FrequencyRecord:
    """Return the one record that was read. Raises NotFound (`frequencies_not_found`)."""
    (record,) = read_records(answer)
    if record is None:
        raise NotFound("frequencies_not_found", "The frequencies of these pieces are no longer kept.")
    return record


def save_record_call(names: IndexNames, record: FrequencyRecord) -> Call:
    """Store a new record. OpenSearch answers with a conflict if another sweeper stored this version first.

    It answers with NotFound if the index of records does not exist.
    """
    path = f"/{names.frequencies}/_doc/{quote(_id(record.physical, record.token, record.version), safe='')}"
    return Call("PUT", path, record.source(), {"require_alias": "true", "op_type": "create"})


def remove_records_call(names: IndexNames, ids: Sequence[str]) -> Call:
    """Remove records by id."""
    lines = [orjson.dumps({"delete": {"_index": names.frequencies, "_id": document_id}}) for document_id in ids]
    return Call("POST", "/_bulk", b"\n".join(lines) + b"\n", {"filter_path": "errors"}, ndjson=True)


def count_encoded_call(target: str) -> Call:
    """Count the encoded documents by generation. `target`: an index, an alias, or a pattern of them."""
    by_generation = {"terms": {"field": "_index", "size": _MAX_GENERATIONS}}
    body = {"size": 0, "query": {"term": {"state": ENCODED}}, "aggs": {"generations": by_generation}}
    params = {"allow_no_indices": "true", "ignore_unavailable": "true"}
    return Call("POST", f"/{target}/_search", orjson.dumps(body), params)


def read_encoded_counts(answer: Mapping[str, Any]) -> dict[str, int]:
    """Read the number of encoded documents by physical name. A generation without any is absent."""
    buckets = answer.get("aggregations", {}).get("generations", {}).get("buckets", [])
    return {bucket["key"]: bucket["doc_count"] for bucket in buckets}


def sample_documents_call(generation: Generation, size: int, seed: int) -> Call:
    """Choose encoded documents at random. The write alias names this generation and no later index of its name."""
    random_order = {
        "query": {"term": {"state": ENCODED}},
        "random_score": {"seed": seed, "field": "_seq_no"},
        "boost_mode": "replace",
    }
    body = {"size": size, "_source": False, "query": {"function_score": random_order}}
    return Call("POST", f"/{generation.write_alias}/_search", orjson.dumps(body))


def read_texts_call(generation: Generation, ids: Sequence[str]) -> Call:
    """Read titles and texts of documents."""
    params = {"_source_includes": "title,text"}
    return Call("POST", f"/{generation.write_alias}/_mget", orjson.dumps({"ids": list(ids)}), params)


def abandoned_records_call(names: IndexNames, physical: Sequence[str]) -> Call:
    """Find up to a hundred records of generations that are not among `physical`, without their counts."""
    query = {"bool": {"must_not": [{"terms": {"physical": list(physical)}}]}}
    body = {"query": query, "size": 100, "_source": False, "sort": ["_doc"]}
    return Call("POST", f"/{names.frequencies}/_search", orjson.dumps(body))


def record_id(generation: Generation, version: int) -> str:
    """Return the id of a generation's record."""
    return _id(generation.physical, generation.token, version)


def _id(physical: str, token: str, version: int) -> str:
    # No part contains a space.
    return f"{physical} {token} {version}"
