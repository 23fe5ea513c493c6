"""Write vectors to a real node and search them there through the service's own functions."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from services.documents.document import raw_version
from services.encoders.manifest import WindowSettings
from services.encoders.query_table import QueryVector
from services.encoders.vectors import SparseVector
from services.index_spec import EncoderIdentity, FieldType, Generation, IndexNames, IndexSpec, Language, WindowStorage
from services.opensearch.bulk import Verdict, WriteOutcome, write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import create_generation_call, delete_generations_call, refresh_call
from services.opensearch.journal import PENDING, encoded_write
from services.opensearch.queries import SearchPlan, build_search_body, msearch_call, sparse_query
from services.opensearch.stored_document import EncodedWindow, StoredDocument
from services.settings import Settings

Hits = list[tuple[str, float]]
SECONDS = 60.0


def query_vector(query: Mapping[int, float]) -> QueryVector:
    """Return query weights in the form of the query table."""
    return QueryVector(tuple(query), tuple(query.values()), len(query))


def vector(weights: Mapping[int, float]) -> SparseVector:
    """Return weights in the form of the encoder's output."""
    return SparseVector.of(list(weights), list(weights.values()))


@dataclass(frozen=True)
class NodeIndex:
    """An index on the node with its generation."""

    client: SyncSearchClient
    generation: Generation

    def put(self, documents: Mapping[str, Sequence[SparseVector]], version: int = 1) -> list[Verdict]:
        """Write documents as the indexer does. `put` maps a name to the vectors of its windows."""
        writes = []
        for name, vectors in documents.items():
            source = {"text": name, "state": PENDING, "job": "congruence", "version": version}
            windows = [EncodedWindow(0, len(name), part) for part in vectors]
            writes.append(encoded_write(self.generation, StoredDocument(name, raw_version(version), source), windows))
        verdicts = write_bulk(self.client, writes, 4 * 1024**2, SECONDS)
        self.client.send(refresh_call(self.generation.physical))
        return verdicts

    def put_all(self, documents: Mapping[str, Mapping[int, float]], version: int = 1) -> None:
        """Write one vector a document and assert that each is stored."""
        verdicts = self.put({name: [vector(weights)] for name, weights in documents.items()}, version)
        refused = {v for v in verdicts if v.outcome is not WriteOutcome.STORED}
        assert not refused, f"OpenSearch refused vectors that SparseVector let through: {refused}"

    def merge(self) -> None:
        """Merge the index into a single segment, as after a long time without writes."""
        physical = self.generation.physical
        self.client.send(Call("POST", f"/{physical}/_forcemerge", params={"max_num_segments": "1"}, timeout=SECONDS))
        self.client.send(refresh_call(physical))

    def search(self, queries: Sequence[Mapping[int, float]], size: int) -> list[Hits]:
        """Return the hits of each query. The queries are those of the API."""
        return self.ask([sparse_query(query_vector(query)) for query in queries], size)

    def ask(self, queries: Sequence[dict[str, Any]], size: int) -> list[Hits]:
        """Return the hits of each OpenSearch query."""
        return self.send([build_search_body(query, size, False, SECONDS) for query in queries])

    def send(self, searches: Sequence[dict[str, Any]]) -> list[Hits]:
        """Return the hits of each request body."""
        found: list[Hits] = []
        for start in range(0, len(searches), 100):
            some = [SearchPlan(self.generation.physical, one) for one in searches[start : start + 100]]
            answer = self.client.send(msearch_call(some, SECONDS))
            for response in answer["responses"]:
                assert response["status"] == 200, response
                assert not response["timed_out"]
                # OpenSearch prints as many digits as a float32 needs, and infinity as a string
                found.append([(hit["_id"], float(np.float32(hit["_score"]))) for hit in response["hits"]["hits"]])
        return found


@contextmanager
def fresh_index(
    client: SyncSearchClient,
    document_top_k: int = 8192,
    shards: int = 1,
    fields: Mapping[str, FieldType] | None = None,
    windows: WindowStorage = "merged",
    language: Language = "english",
) -> Iterator[NodeIndex]:
    """Create an empty index and delete it at the end."""
    names = IndexNames(f"t{uuid.uuid4().hex[:12]}")
    generation = Generation(
        index="congruence",
        number=1,
        physical=names.physical("congruence", 1),
        spec=IndexSpec(document_top_k=document_top_k, fields=dict(fields or {}), windows=windows, language=language),
        encoder=EncoderIdentity(name="random", fingerprint="0" * 16),
        window=WindowSettings(pieces=128, overlap=0),
        created_at="2000-01-01T00:00:00+00:00",
    )
    client.send(create_generation_call(generation, Settings(shards=shards, refresh_interval="-1"), []))
    try:
        yield NodeIndex(client, generation)
    finally:
        client.send(delete_generations_call([generation]))


def raw_feature(index: NodeIndex, feature: str) -> Hits:
    """Return the hits of a single feature by its name, whatever the name is."""
    query = {"rank_feature": {"field": f"sparse.{feature}", "boost": 1.0, "linear": {}}}
    return index.ask([query], 10)[0]


def put_raw(index: NodeIndex, name: str, features: Mapping[str, float]) -> int:
    """Write features under the given names unchanged. Return the HTTP status of the item."""
    action = orjson.dumps({"index": {"_index": index.generation.physical, "_id": name}})
    source = orjson.dumps({"text": name, "state": "encoded", "sparse": features})
    answer = index.client.send(Call("POST", "/_bulk", action + b"\n" + source + b"\n", ndjson=True))
    index.client.send(refresh_call(index.generation.physical))
    return int(answer["items"][0]["index"]["status"])
