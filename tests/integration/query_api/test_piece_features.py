"""The field `pieces`: vectors with pieces as names of features, for OpenSearch's neural_sparse query."""

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import httpx
import orjson
import pytest

from cli.main import main
from indexer.reindex.plan import GenerationChanges, plan_generation
from models.registry import load_encoder
from services.encoders.manifest import read_manifest, resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import merge_max
from services.index_spec import Generation, IndexNames
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import (
    create_generation_call,
    read_generation,
    refresh_call,
    resolve_alias_call,
)
from services.opensearch.reindex import copy_write
from services.opensearch.stored_document import StoredDocument
from services.settings import Settings

SHOW = ["sparsewell", "encoders", "show"]
QUESTION = "the wing of a garden."
TEXTS = {
    "wing": "The wing of the engine.",
    "river": "A river near a garden.",
    "dots": "Version 1.2.3 of the engine. It costs ... 4.50!",
}


@pytest.fixture
async def asking(api_here: httpx.AsyncClient) -> httpx.AsyncClient:
    created = await api_here.put("/v1/indexes/docs", json={"piece_features": True, "document_top_k": 64})
    assert (created.status_code, created.json()["piece_features"]) == (201, True)
    return api_here


async def put(asking: httpx.AsyncClient, name: str, text: str, **members: Any) -> None:
    answer = await asking.put(f"/v1/indexes/docs/documents/{name}", json={"text": text, **members})
    assert answer.status_code == 202, answer.text


def search(settings: Settings, query: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of the documents by id, as OpenSearch answers."""
    alias = f"{settings.index_prefix}-docs"
    with closing(SyncSearchClient(settings)) as client:
        client.send(refresh_call(alias))
        answer = client.send(Call("POST", f"/{alias}/_search", orjson.dumps({"query": query, "_source": False})))
    return {hit["_id"]: hit["_score"] for hit in answer["hits"]["hits"]}


def neural_sparse(weights: Mapping[str, float], field: str) -> dict[str, Any]:
    """Return the clauses that the plugin's query builds from `query_tokens` (FeatureField.newLinearQuery)."""
    clauses = [
        {"rank_feature": {"field": f"{field}.{name}", "boost": weight, "linear": {}}}
        for name, weight in weights.items()
    ]
    return {"bool": {"should": clauses}}


def by_pieces(settings: Settings, text: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the scores for a query by pieces and by ids."""
    table = QueryTable.load(resolve_model_directory(settings.encoder))
    vector = table.encode(text, 1000).by_id()
    named = {table.piece(piece): weight for piece, weight in vector.items()}
    ids = {str(piece): weight for piece, weight in vector.items()}
    return search(settings, neural_sparse(named, "pieces")), search(settings, neural_sparse(ids, "sparse"))


async def test_the_scores_by_piece_are_those_by_id(
    settings: Settings, asking: httpx.AsyncClient, encode: Callable[[], None]
) -> None:
    for name, text in TEXTS.items():
        await put(asking, name, text)
    assert by_pieces(settings, "the wing") == ({}, {}), "nothing is encoded yet"
    encode()
    for query in ("the wing of a garden", "engine", "river version"):
        named, ids = by_pieces(settings, query)
        assert named, query
        assert named == ids, query
    # A piece with a dot is stored. A plain rank_feature query cannot name it, the plugin's query can.
    assert search(settings, neural_sparse({".": 1.0}, "pieces")) == {}
    shown = (await asking.get("/v1/indexes/docs/documents/dots")).json()
    assert (shown["state"], "pieces" in shown) == ("encoded", False)


def test_an_index_of_the_plugin_is_searched_as_it_stands(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Write the fields of the plugin's ingest processor, and search them by the body that the command prints."""
    encoder = load_encoder(settings.encoder, threads=1)
    vectors = {name: merge_max(encoder.encode(encoder.windows(text))) for name, text in TEXTS.items()}
    index = f"{settings.index_prefix}-of-the-plugin"
    mapping = {"properties": {"passage_text": {"type": "text"}, "passage_embedding": {"type": "rank_features"}}}
    monkeypatch.setattr("sys.argv", [*SHOW, settings.encoder, "--query", QUESTION, "--field", "passage_embedding"])
    with pytest.raises(SystemExit):
        main()
    body, told = capsys.readouterr()
    with closing(SyncSearchClient(settings)) as client:
        client.send(Call("PUT", f"/{index}", orjson.dumps({"mappings": mapping})))
        for name, vector in vectors.items():
            pieces = [encoder.token(i) for i in vector.ids.tolist()]
            embedding = dict(zip(pieces, vector.weights.tolist(), strict=True))
            document = {"passage_text": TEXTS[name], "passage_embedding": embedding}
            client.send(Call("PUT", f"/{index}/_doc/{name}", orjson.dumps(document)))
        client.send(refresh_call(index))
        answer = client.send(Call("POST", f"/{index}/_search", body.encode()))
    found = {hit["_id"]: hit["_score"] for hit in answer["hits"]["hits"]}
    table = QueryTable.load(resolve_model_directory(settings.encoder))
    query = {i: weight for i, weight in table.encode(QUESTION, 1000).by_id().items() if table.token(i) != "."}
    scores = {name: vector.dot(query) for name, vector in vectors.items()}
    # float32, and weights of 9 significant bits (Lucene's FeatureField)
    assert found == {name: pytest.approx(score, rel=0.005) for name, score in scores.items() if score}
    assert len(found) > 1
    assert told == "Left out, since no clause can name a piece with a dot: .\n"


async def test_updates_keep_the_pieces_until_the_new_vectors_are_there(
    settings: Settings, asking: httpx.AsyncClient, encode: Callable[[], None]
) -> None:
    await put(asking, "wing", TEXTS["wing"])
    encode()
    before = by_pieces(settings, "wing")
    assert before[0]
    assert before[0] == before[1]
    await put(asking, "wing", TEXTS["wing"], title="")
    assert by_pieces(settings, "wing") == before, "a write without a new text"
    await put(asking, "wing", TEXTS["river"])
    assert by_pieces(settings, "wing") == before, "the earlier vectors serve until the text is encoded"
    encode()
    assert by_pieces(settings, "wing") == ({}, {})
    named, ids = by_pieces(settings, "river")
    assert named
    assert named == ids


def copied(settings: Settings, source: Generation, document: str, changes: GenerationChanges) -> tuple[str, bool]:
    """Copy a document to a generation with these changes. Return its state there, and whether it has pieces."""
    names = IndexNames(settings.index_prefix)
    manifest = read_manifest(resolve_model_directory(settings.encoder))
    target = plan_generation(names, source, source.number + 1, changes, manifest)
    with closing(SyncSearchClient(settings)) as client:
        found = client.send(Call("GET", f"/{source.physical}/_doc/{document}"))
        stored = StoredDocument(document, found["_version"], found["_source"])
        write = copy_write(source, target, stored, 60)
        client.send(create_generation_call(target, settings, []))
        # A strict mapping refuses a member that the generation does not declare.
        client.send(Call("PUT", f"/{target.physical}/_doc/{document}", orjson.dumps(write.document())))
        client.send(Call("DELETE", f"/{target.physical}"))
    return write.source["state"], "pieces" in write.source


async def test_a_reindex_copies_pieces_or_encodes_again(
    settings: Settings, asking: httpx.AsyncClient, encode: Callable[[], None]
) -> None:
    await put(asking, "wing", TEXTS["wing"])
    encode()
    await put(asking, "river", TEXTS["wing"])
    encode()
    await put(asking, "river", TEXTS["river"])
    names = IndexNames(settings.index_prefix)
    with closing(SyncSearchClient(settings)) as client:
        source = read_generation(client.send(resolve_alias_call(names, "docs")), "docs")
    cases = [
        (GenerationChanges(language="standard"), ("encoded", True), ("pending", True)),
        (GenerationChanges(piece_features=False), ("encoded", False), ("pending", False)),
        (GenerationChanges(document_top_k=8), ("pending", False), ("pending", False)),
    ]
    for changes, encoded, pending in cases:
        assert copied(settings, source, "wing", changes) == encoded, changes
        assert copied(settings, source, "river", changes) == pending, changes
