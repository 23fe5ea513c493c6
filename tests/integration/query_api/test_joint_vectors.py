"""An index that stores the dense vectors of its own encoder: one pass of the worker gives both kinds of vectors."""

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from models.projection.encoder import ProjectedEncoder
from models.registry import load_encoder
from services.encoders.dense_query_table import DenseQueryEncoder
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.settings import Settings

ENCODER = "projected-minilm-l6"
QUERY = "make a temporary folder"
TEXTS = {
    "short": "Create a temporary directory. It is removed when the context exits.",
    "long": "The thread sleeps for some seconds. " * 70 + "Then it makes a folder that is removed at the end.",
    "empty of pieces": "\u200b\u200b",
}
TALK = "WEBVTT\n\n00:00.000 --> 00:04.000\nWe make a folder that is gone at the end of the day.\n"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"encoder": ENCODER, "worker_threads": 1})


def dense_scores(api: httpx.Client, index: str) -> dict[str, float]:
    body = {"query": QUERY, "mode": "lexical", "rerank": {"model": "table", "weight": 1.0}}
    answer: dict[str, Any] = api.post(f"/v1/indexes/{index}/search", json=body).raise_for_status().json()
    assert answer["rerank"]["applied"]
    return {hit["id"]: hit["scores"]["table"] for hit in answer["hits"] if "table" in hit["scores"]}


def test_one_pass_gives_sparse_and_dense_vectors(
    api: httpx.Client, encode: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(ENCODER, threads=1)
    assert isinstance(encoder, ProjectedEncoder)
    directory = resolve_model_directory(ENCODER)
    table = DenseQueryEncoder.load(directory, QueryTable.load(directory))
    assert table is not None
    query = table.encode(QUERY)
    assert query is not None
    wanted = {
        name: float((encoder.encode_windows(encoder.windows(text)) @ query).max())
        for name, text in TEXTS.items()
        if name != "empty of pieces"
    }
    assert len(encoder.windows(TEXTS["long"])) > 1

    def second_pass(*_: object) -> np.ndarray:
        raise AssertionError("the dense vectors had a pass of their own")

    monkeypatch.setattr(ProjectedEncoder, "encode_windows", second_pass)
    api.put("/v1/indexes/joint", json={"dense": ENCODER}).raise_for_status()
    documents = [{"id": name, "text": f"{text} temporary folder"} for name, text in TEXTS.items()]
    documents[0]["text"], documents[1]["text"] = TEXTS["short"], TEXTS["long"]
    api.post("/v1/indexes/joint/documents", json=documents).raise_for_status()
    encode()
    assert api.get("/v1/indexes/joint").raise_for_status().json()["documents"]["encoded"] == len(TEXTS)
    found = dense_scores(api, "joint")
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=0.01)


def test_a_talk_has_the_dense_vectors_of_its_windows(api: httpx.Client, encode: Callable[[], None]) -> None:
    api.put("/v1/indexes/talks", json={"dense": ENCODER, "talk": {}}).raise_for_status()
    talk = {"id": "a", "title": "Folders", "kind": "talk", "transcript": {"type": "text/vtt", "text": TALK}}
    api.post("/v1/indexes/talks/documents", json=[talk]).raise_for_status()
    encode()
    assert set(dense_scores(api, "talks")) == {"a"}
