"""Searches that rerank, with a live model process and without one. A missing process must never cost a response."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray

from models.dense import load_dense_encoder
from models.serving import ModelPool, create_model_app
from services.encoders.catalogue import STANDIN_NAME, list_dense_encoders
from services.query.fusion import interpolate_scores
from services.settings import Settings
from tests.preloaded import run_sparsewell

Eventually = Callable[[Callable[[], object], float, str], None]
KNOWN = list_dense_encoders(Settings())[STANDIN_NAME]
TEXTS = {
    "a": "program pause",
    "b": "pause the program for a while and then let it go on where it was",
    "c": "the program of the theatre, and the programs of other theatres",
    "d": "a folder",
    "e": "pause pause pause pause",
}
QUERY = "pause the program"


def shortest(query: str, passages: Sequence[str]) -> NDArray[np.float32]:
    return np.array([-len(passage) for passage in passages], dtype=np.float32)


@pytest.fixture
def model_socket() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def settings(settings: Settings, model_socket: socket.socket) -> Settings:
    return settings.model_copy(
        update={
            "model_url": f"http://127.0.0.1:{model_socket.getsockname()[1]}",
            "model_timeout": 15.0,
            "cross_encoder_timeout": 15.0,
            "cross_encoder_weight": 1.0,
            "listwise_timeout": 15.0,
            "listwise_top": 2,
        }
    )


@pytest.fixture
def pool() -> ModelPool:
    dense = load_dense_encoder(KNOWN, Path("unused"))
    return ModelPool({STANDIN_NAME: dense}, {"cross-encoder": shortest, "listwise": shortest})


@pytest.fixture
def model_process(model_socket: socket.socket, pool: ModelPool, eventually: Eventually) -> Iterator[uvicorn.Server]:
    server = uvicorn.Server(uvicorn.Config(create_model_app(pool), log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [model_socket]}, name="models")
    thread.start()
    try:
        eventually(lambda: server.started, 60, "the model process listens")
        yield server
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def notes(api: httpx.Client, encode: Callable[[], None]) -> httpx.Client:
    """Write encoded documents and a document without vectors."""
    api.put("/v1/indexes/notes", json={"dense": STANDIN_NAME}).raise_for_status()
    documents = [{"id": name, "text": text} for name, text in TEXTS.items()]
    api.post("/v1/indexes/notes/documents", json=documents).raise_for_status()
    encode()
    assert api.get("/v1/indexes/notes").raise_for_status().json()["documents"]["encoded"] == len(TEXTS)
    return api


def search(api: httpx.Client, **more: Any) -> dict[str, Any]:
    body = {"query": QUERY, "size": 5, **more}
    answer: dict[str, Any] = api.post("/v1/indexes/notes/search", json=body).raise_for_status().json()
    return answer


def scores(answer: dict[str, Any]) -> dict[str, float]:
    return {hit["id"]: hit["score"] for hit in answer["hits"]}


@pytest.mark.parametrize("mode", ["hybrid", "sparse", "lexical"])
def test_the_best_are_ordered_by_both_scores(notes: httpx.Client, model_process: uvicorn.Server, mode: str) -> None:
    model = load_dense_encoder(KNOWN, Path("unused"))
    query = model.encode_queries([QUERY])[0]
    cosines = dict(zip(TEXTS, (model.encode_passages(list(TEXTS.values())) @ query).tolist(), strict=True))
    plain = search(notes, mode=mode)
    for weight in (0.0, 0.3, 1.0):
        found = search(notes, mode=mode, rerank={"weight": weight}, fields=["text"])
        assert found["rerank"] == {"applied": True, "model": "dense", "scored": len(plain["hits"]), "reason": None}
        wanted = interpolate_scores(list(scores(plain).items()), cosines, weight)
        assert scores(found) == pytest.approx(dict(wanted), abs=0.01)
        for hit in found["hits"]:
            assert hit["scores"]["dense"] == pytest.approx(cosines[hit["id"]], abs=0.01)
            assert hit["text"] == TEXTS[hit["id"]]
            assert hit["passage"]["text"]
    assert "rerank" not in plain


@pytest.mark.parametrize("mode", ["sparse", "hybrid"])
def test_a_reranked_score_is_explained_and_its_words_are_marked(
    notes: httpx.Client, model_process: uvicorn.Server, mode: str
) -> None:
    options = {"mode": mode, "explain": True, "highlight": True}
    plain = {hit["id"]: hit for hit in search(notes, **options)["hits"]}
    reranked = search(notes, rerank={"top": 3, "weight": 0.6}, **options)["hits"]
    assert sum("reranking" in hit for hit in reranked) == 3
    for hit in reranked:
        same = plain[hit["id"]]
        assert hit["highlight"] == same["highlight"]
        assert hit["why"] == same["why"]
        assert hit.get("fusion") == same.get("fusion")
        assert "reranking" not in same
        parts = hit.get("reranking")
        if parts is None:
            assert hit["score"] == same["score"]
            continue
        assert {name: part["share"] for name, part in parts.items()} == {"list": 0.4, "opinion": 0.6}
        assert sum(part["contribution"] for part in parts.values()) == pytest.approx(hit["score"], rel=1e-12)


def test_only_the_top_is_scored_and_the_size_stays(notes: httpx.Client, model_process: uvicorn.Server) -> None:
    plain = [hit["id"] for hit in search(notes)["hits"]]
    found = search(notes, rerank={"top": 2, "weight": 1.0})
    assert found["rerank"]["scored"] == 2
    assert sorted(hit["id"] for hit in found["hits"][:2]) == sorted(plain[:2])
    assert [hit["id"] for hit in found["hits"][2:]] == plain[2:]
    assert len(search(notes, size=1, rerank={})["hits"]) == 1


@pytest.mark.parametrize("mode", ["hybrid", "sparse"])
def test_pages_are_cut_out_of_the_reranked_list(notes: httpx.Client, model_process: uvicorn.Server, mode: str) -> None:
    whole = search(notes, mode=mode, rerank={})["hits"]
    by_offset = [search(notes, mode=mode, rerank={}, size=2, offset=at)["hits"] for at in (0, 2, 4)]
    assert [hit for page in by_offset for hit in page] == whole
    by_cursor, cursor = [], "*"
    while cursor is not None:
        page = search(notes, mode=mode, rerank={}, size=2, cursor=cursor)
        by_cursor += page["hits"]
        cursor = page["cursor"]
    assert by_cursor == whole
    assert page["end"] == "matches"


def test_feedback_moves_the_query(notes: httpx.Client, model_process: uvicorn.Server) -> None:
    before = search(notes, rerank={"weight": 1.0})
    after = search(notes, rerank={"weight": 1.0, "feedback": {"documents": 1, "weight": 1.0}})
    assert after["hits"][0]["id"] == before["hits"][0]["id"]
    assert after["hits"][0]["scores"]["dense"] == pytest.approx(1.0, abs=0.01), "the query is now this document"


def test_a_model_that_reads_query_and_passage(notes: httpx.Client, model_process: uvicorn.Server) -> None:
    found = search(notes, rerank={"model": "cross-encoder", "weight": 1.0})
    lengths = [len(TEXTS[hit["id"]]) for hit in found["hits"]]
    assert lengths == sorted(lengths)
    assert search(notes, rerank={"model": "cross-encoder"})["hits"] == found["hits"], "the setting is the default"


def test_a_listwise_model_reads_fewer_documents_by_default(notes: httpx.Client, model_process: uvicorn.Server) -> None:
    """Nine prompts for a hundred documents exceed every deadline of a search."""
    few = search(notes, rerank={"model": "listwise"})
    assert few["rerank"] == {"applied": True, "model": "listwise", "scored": 2, "reason": None}
    plain = list(scores(search(notes)))
    assert list(scores(few))[2:] == plain[2:]
    chosen = search(notes, rerank={"model": "listwise", "top": 4})
    assert chosen["rerank"]["scored"] == 4


def test_a_model_that_the_process_lacks(notes: httpx.Client, model_process: uvicorn.Server, pool: ModelPool) -> None:
    del pool.scorers["listwise"]
    refused = search(notes, rerank={"model": "listwise"})
    assert refused["rerank"] == {"applied": False, "model": "listwise", "scored": 0, "reason": "model_refused"}


def test_documents_without_vectors_keep_their_place(
    notes: httpx.Client, model_process: uvicorn.Server, eventually: Eventually
) -> None:
    notes.put("/v1/indexes/notes/documents/new", json={"text": QUERY}).raise_for_status()
    eventually(lambda: "new" in scores(search(notes)), 60, "it is found by keyword")
    found = search(notes, size=6, rerank={})
    assert found["rerank"]["applied"]
    (hit,) = [hit for hit in found["hits"] if hit["id"] == "new"]
    assert "dense" not in hit["scores"]


def test_without_a_model_process_the_answer_comes_as_it_is(notes: httpx.Client) -> None:
    """The process hangs: its socket listens, but accepts no connection."""
    notes_plain = search(notes)
    for model in ("dense", "cross-encoder"):
        found = search(notes, rerank={"model": model})
        assert not found["rerank"]["applied"]
        assert found["rerank"]["reason"] in ("model_timeout", "model_resting")
        assert scores(found) == scores(notes_plain)
    assert notes.get("/readyz").status_code == 200
    options = ["--rerank", "--api", str(notes.base_url)]
    done = run_sparsewell("search", QUERY, "-i", "notes", *options, environment=os.environ)
    assert "Not reranked: model_" in done.stdout


def test_an_index_whose_dense_encoder_has_no_table_keeps_its_order(notes: httpx.Client) -> None:
    found = search(notes, rerank={"model": "table"})
    assert found["rerank"] == {"applied": False, "model": "table", "scored": 0, "reason": "no_dense_table"}
    assert scores(found) == scores(search(notes))


NO_RERANKS: list[Any] = [
    {"top": 0},
    {"weight": 1.1},
    {"weight": "x"},
    {"model": "gpt"},
    {"more": 1},
    {"feedback": {"documents": 0}},
    {"feedback": {"weight": 0}},
    {"model": "cross-encoder", "feedback": {}},
    "dense",
]


def test_what_is_no_rerank(api: httpx.Client, subtests: pytest.Subtests) -> None:
    for bad in NO_RERANKS:
        with subtests.test(bad=bad):
            answer = api.post("/v1/indexes/notes/search", json={"query": "x", "rerank": bad})
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_limits_and_indexes_without_vectors(api: httpx.Client) -> None:
    api.put("/v1/indexes/notes", json={}).raise_for_status()
    for rerank, code in (({}, "no_dense_vectors"), ({"top": 201}, "rerank_too_many")):
        answer = api.post("/v1/indexes/notes/search", json={"query": "x", "rerank": rerank})
        assert (answer.status_code, answer.json()["code"]) == (422, code)
