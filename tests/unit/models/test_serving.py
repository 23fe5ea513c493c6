"""The model process: vectors and scores in order, and problem+json for bad requests."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from models.dense import load_dense_encoder
from models.serving import MAX_PASSAGES, MAX_TEXTS, MAX_WAITING_REQUESTS, ModelPool, create_model_app, load_model_pool
from services.encoders.catalogue import STANDIN_NAME, list_dense_encoders
from services.errors import InvalidInput, Overloaded
from services.settings import Settings

KNOWN = list_dense_encoders(Settings())[STANDIN_NAME]


def lengths(query: str, passages: Sequence[str]) -> NDArray[np.float32]:
    return np.array([len(passage) for passage in passages], dtype=np.float32)


def spoilt(query: str, passages: Sequence[str]) -> NDArray[np.float32]:
    return np.full(len(passages), np.nan, dtype=np.float32)


@pytest.fixture
def held() -> ModelPool:
    return ModelPool({STANDIN_NAME: load_dense_encoder(KNOWN, Path("unused"))}, {"lengths": lengths, "spoilt": spoilt})


@pytest.fixture
async def client(held: ModelPool) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_model_app(held), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://models") as one:
        yield one
    held.close()


async def test_vectors_of_queries_and_passages(client: httpx.AsyncClient) -> None:
    texts = ["pause the program", "", "wing \U0001f600"]
    for kind in ("query", "passage"):
        answer = (await client.post("/embed", json={"texts": texts, "kind": kind})).json()
        assert (answer["name"], answer["fingerprint"]) == (STANDIN_NAME, KNOWN.identity.fingerprint)
        vectors = np.array(answer["vectors"])
        assert vectors.shape == (3, answer["width"])
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1], atol=1e-5)
    by_print = await client.post("/embed", json={"texts": texts, "encoder": KNOWN.identity.fingerprint})
    assert by_print.json()["vectors"] == answer["vectors"]


async def test_scores_in_the_order_of_the_passages(client: httpx.AsyncClient) -> None:
    answer = await client.post("/rerank", json={"model": "lengths", "query": "q", "passages": ["abc", "", "a"]})
    assert answer.json() == {"model": "lengths", "scores": [3.0, 0.0, 1.0]}


async def test_healthz_lists_the_models(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/healthz")).json()
    assert answer["encoders"] == [{"name": STANDIN_NAME, "fingerprint": KNOWN.identity.fingerprint}]
    assert answer["rerankers"] == ["lengths", "spoilt"]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/embed", {"texts": []}, 422, "invalid_request"),
        ("/embed", {"texts": ["x"] * (MAX_TEXTS + 1)}, 422, "invalid_request"),
        ("/embed", {"texts": ["x" * 20_000]}, 422, "invalid_request"),
        ("/embed", {"texts": ["x"], "kind": "song"}, 422, "invalid_request"),
        ("/embed", {"texts": ["x"], "encoder": "word2vec"}, 422, "unknown_dense_encoder"),
        ("/embed", {"texts": ["x"], "encoder": ""}, 422, "unknown_dense_encoder"),
        ("/embed", {"texts": ["x"], "more": 1}, 422, "invalid_request"),
        ("/rerank", {"query": "q", "passages": ["x"]}, 422, "unknown_reranker"),
        ("/rerank", {"query": "q", "passages": ["x"] * (MAX_PASSAGES + 1)}, 422, "invalid_request"),
        ("/rerank", {"model": "spoilt", "query": "q", "passages": ["x"]}, 503, "bad_scores"),
        ("/rerank", {"query": "q", "passages": ["x" * 16_000] * 70}, 413, "body_too_large"),
        ("/none", {}, 404, "no_such_path"),
    ],
)
async def test_bad_requests_are_refused(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await client.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_surrogate_halves_are_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/embed", content=b'{"texts": ["x\\ud800"]}', headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_requests_beyond_the_queue_are_refused(held: ModelPool) -> None:
    answered = threading.Event()
    waiting = [asyncio.create_task(held.compute(answered.wait)) for _ in range(MAX_WAITING_REQUESTS)]
    await asyncio.sleep(0)  # start each task
    with pytest.raises(Overloaded, match="model_busy"):
        await held.compute(lambda: 1)
    answered.set()
    await asyncio.gather(*waiting)
    assert await held.compute(lambda: 1) == 1


async def test_a_slow_reranker_delays_no_embedding(held: ModelPool) -> None:
    answered = threading.Event()
    slow = asyncio.create_task(held.compute(answered.wait, "lengths"))
    await asyncio.sleep(0)  # start the task
    assert await asyncio.wait_for(held.compute(lambda: 1), 60) == 1
    assert await asyncio.wait_for(held.compute(lambda: 2, "spoilt"), 60) == 2
    assert not slow.done()
    answered.set()
    assert await slow


def test_the_models_of_the_settings_are_loaded() -> None:
    held = load_model_pool(Settings(model_encoders=f" {STANDIN_NAME} ,"), Path("unused"), lambda message: None)
    assert list(held.dense) == [STANDIN_NAME]
    held.close()
    with pytest.raises(InvalidInput, match="word2vec"):
        load_model_pool(Settings(model_encoders="word2vec"), Path("unused"), lambda message: None)
