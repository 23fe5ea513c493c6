"""An index that stores the dense vectors of its own encoder, and searches that rerank by the dense query table.

One pass of the worker gives both kinds of vectors. The settings name a model process that does not exist.
"""

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
from services.query.fusion import DEFAULT_TABLE_WEIGHT, interpolate_scores
from services.settings import Settings
from tests.encoding import encoding

ENCODER = "projected-minilm-l6"
QUERY = "make a temporary folder"
TEXTS = {
    "short": "Create a temporary directory. It is removed when the context exits.",
    "long": "The thread sleeps for some seconds. " * 70 + "Then it makes a folder that is removed at the end.",
    "other": "Make pancakes of flour, milk and eggs.",
    "folder": "A folder of the choir, temporary or not.",
}
TALK = "WEBVTT\n\n00:00.000 --> 00:04.000\nWe make a folder that is gone at the end of the day.\n"


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"encoder": ENCODER, "worker_threads": 1, "model_url": "http://127.0.0.1:9"})


@pytest.fixture(scope="module")
def encoder() -> ProjectedEncoder:
    found = load_encoder(ENCODER, threads=1)
    assert isinstance(found, ProjectedEncoder)
    return found


@pytest.fixture(scope="module")
def cosines(encoder: ProjectedEncoder) -> dict[str, float]:
    """Return the similarity of each text's best window to the query's vector from the table."""
    directory = resolve_model_directory(ENCODER)
    table = DenseQueryEncoder.load(directory, QueryTable.load(directory))
    assert table is not None
    query = table.encode(QUERY)
    assert query is not None
    assert len(encoder.windows(TEXTS["long"])) > 1
    return {name: float((encoder.encode_windows(encoder.windows(text)) @ query).max()) for name, text in TEXTS.items()}


@pytest.fixture(scope="module")
def index(api: httpx.Client, encode: Callable[[], None]) -> str:
    """Write the texts to an index that stores the vectors of its own encoder, which must not run twice."""

    def second_pass(*_: object) -> np.ndarray:
        raise AssertionError("the dense vectors had a pass of their own")

    api.put("/v1/indexes/joint", json={"dense": ENCODER}).raise_for_status()
    documents = [{"id": name, "text": text} for name, text in TEXTS.items()]
    api.post("/v1/indexes/joint/documents", json=documents).raise_for_status()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProjectedEncoder, "encode_windows", second_pass)
        encode()
    assert api.get("/v1/indexes/joint").raise_for_status().json()["documents"]["encoded"] == len(TEXTS)
    return "joint"


def search(api: httpx.Client, index: str, **more: Any) -> dict[str, Any]:
    body = {"query": QUERY, **more}
    answer: dict[str, Any] = api.post(f"/v1/indexes/{index}/search", json=body).raise_for_status().json()
    return answer


def scores(answer: dict[str, Any]) -> dict[str, float]:
    return {hit["id"]: hit["score"] for hit in answer["hits"]}


@pytest.mark.parametrize(("options", "weight"), [({}, DEFAULT_TABLE_WEIGHT), ({"model": "table", "weight": 1.0}, 1.0)])
def test_the_table_reranks_without_a_model_process(
    api: httpx.Client, index: str, cosines: dict[str, float], options: dict[str, Any], weight: float
) -> None:
    plain, found = search(api, index), search(api, index, rerank=options, explain=True)
    assert found["rerank"] == {"applied": True, "model": "table", "scored": len(TEXTS), "reason": None}
    wanted = interpolate_scores(list(scores(plain).items()), cosines, weight)
    assert scores(found) == pytest.approx(dict(wanted), abs=0.01)
    for hit in found["hits"]:
        assert hit["scores"]["table"] == pytest.approx(cosines[hit["id"]], abs=0.01)
        assert sum(part["contribution"] for part in hit["reranking"].values()) == pytest.approx(hit["score"])


def test_feedback_moves_the_vector_of_the_table(api: httpx.Client, index: str) -> None:
    found = search(api, index, rerank={"weight": 1.0, "feedback": {"documents": 1, "weight": 1.0}})
    assert found["hits"][0]["scores"]["table"] == pytest.approx(1.0, abs=0.01), "the query is now this document"


@pytest.mark.parametrize("model", ["dense", "cross-encoder", "listwise"])
def test_the_table_stands_in_for_a_model_that_does_not_answer(api: httpx.Client, index: str, model: str) -> None:
    found, by_table = search(api, index, rerank={"model": model, "weight": 0.9}), search(api, index, rerank={})
    assert found["rerank"]["reason"] in {"model_unavailable", "model_resting"}
    assert found["rerank"] | {"reason": None} == by_table["rerank"]
    assert scores(found) == scores(by_table)


def test_a_query_of_unknown_words_keeps_its_order(api: httpx.Client, index: str) -> None:
    found = search(api, index, query="☃☃", rerank={})
    assert found["rerank"] == {"applied": False, "model": "table", "scored": 0, "reason": "no_known_words"}


def test_an_index_of_another_encoder_has_a_pass_for_its_dense_vectors(
    api: httpx.Client, settings: Settings, cosines: dict[str, float]
) -> None:
    api.put("/v1/indexes/two", json={"encoder": "standin", "dense": ENCODER}).raise_for_status()
    documents = [{"id": name, "text": text} for name, text in TEXTS.items()]
    api.post("/v1/indexes/two/documents", json=documents).raise_for_status()
    encoding(settings.model_copy(update={"encoder": "standin"}))()
    found = search(api, "two", rerank={"weight": 1.0})
    assert {hit["id"]: hit["scores"]["table"] for hit in found["hits"]} == pytest.approx(
        {hit["id"]: cosines[hit["id"]] for hit in found["hits"]}, abs=0.01
    )
    assert found["rerank"]["scored"] == len(found["hits"]) > 1


def test_a_talk_has_the_dense_vectors_of_its_windows(api: httpx.Client, encode: Callable[[], None]) -> None:
    api.put("/v1/indexes/talks", json={"dense": ENCODER, "talk": {}}).raise_for_status()
    talk = {"id": "a", "title": "Folders", "kind": "talk", "transcript": {"type": "text/vtt", "text": TALK}}
    api.post("/v1/indexes/talks/documents", json=[talk]).raise_for_status()
    encode()
    (hit,) = search(api, "talks", rerank={"weight": 1.0})["hits"]
    assert hit["scores"]["table"] > 0.2
