"""Follow a document from its POST to a sparse hit through the API, Redis, a real worker and OpenSearch."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from infra.processes import ChildProcess

DOCUMENTS = [
    {"id": "mkdtemp", "title": "tempfile.mkdtemp", "text": "Create a unique temporary directory and return its name."},
    {"id": "sleep", "title": "time.sleep", "text": "Delay execution for a given number of seconds."},
    {"id": "copytree", "title": "shutil.copytree", "text": "Recursively copy a directory tree. " * 120},
]
Eventually = Callable[[Callable[[], object], float, str], None]


@pytest.fixture
def index(api: httpx.Client, worker: ChildProcess, eventually: Eventually) -> str:
    assert api.put("/v1/indexes/docs", json={"window": {"pieces": 64, "overlap": 8}}).status_code == 201
    job = api.post("/v1/indexes/docs/documents", json=DOCUMENTS).json()["job"]["id"]
    eventually(lambda: api.get(f"/v1/jobs/{job}").json()["finished"], 60, "the documents are encoded")
    assert api.get(f"/v1/jobs/{job}").json()["states"]["encoded"] == 3
    return "docs"


def search(api: httpx.Client, index: str, **body: Any) -> dict[str, Any]:
    response = api.post(f"/v1/indexes/{index}/search", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_every_mode_finds_what_was_indexed_and_accounts_for_its_scores(api: httpx.Client, index: str) -> None:
    for mode in ("sparse", "lexical", "hybrid"):
        answer = search(api, index, query="a unique temporary name", mode=mode, explain=True)
        hit = answer["hits"][0]
        assert (hit["id"], hit["state"]) == ("mkdtemp", "encoded")
        assert hit["passage"]["text"] == DOCUMENTS[0]["text"]
        for name, score in hit["scores"].items():
            total = sum(why["contribution"] for why in hit["why"] if why["list"] == name)
            assert total == pytest.approx(score, rel=1e-5)
        assert set(answer["timings_ms"]) == {
            "encode",
            "opensearch",
            "engine",
            "fuse",
            "rerank",
            "shape",
            "total",
        }
        assert {piece["piece"] for piece in answer["pieces"]} == {"a", "unique", "temporary", "name"}
    assert hit["scores"].keys() == {"sparse", "lexical"}


def test_a_long_document_is_windowed_and_its_passage_has_offsets(api: httpx.Client, index: str) -> None:
    hit = search(api, index, query="copy a tree recursively", mode="sparse")["hits"][0]
    passage = hit["passage"]
    assert hit["id"] == "copytree"
    assert passage["windows"] > 10
    assert DOCUMENTS[2]["text"][passage["start"] : passage["end"]] == passage["text"]
    assert len(passage["text"]) < 600


def test_size_fields_and_weights(api: httpx.Client, index: str) -> None:
    hits = search(api, index, query="directory", size=1, fields=["text"], passage=False)["hits"]
    assert len(hits) == 1
    assert hits[0].keys() == {"id", "score", "scores", "state", "text"}
    only_lexical = search(api, index, query="directory", weights={"sparse": 0, "lexical": 1})["hits"]
    lexical = search(api, index, query="directory", mode="lexical")["hits"]
    assert [hit["id"] for hit in only_lexical] == [hit["id"] for hit in lexical]


def test_a_replaced_document_is_found_by_its_new_text_only(
    api: httpx.Client, index: str, eventually: Eventually
) -> None:
    job = api.put(f"/v1/indexes/{index}/documents/sleep", json={"text": "An umbrella stand."}).json()["job"]["id"]
    eventually(lambda: api.get(f"/v1/jobs/{job}").json()["finished"], 60, "the new text is encoded")
    assert search(api, index, query="umbrella", mode="sparse")["hits"][0]["id"] == "sleep"
    assert "sleep" not in [hit["id"] for hit in search(api, index, query="seconds", mode="sparse")["hits"]]


def test_a_deleted_document_is_found_no_more(api: httpx.Client, index: str, eventually: Eventually) -> None:
    assert api.delete(f"/v1/indexes/{index}/documents/sleep").status_code == 204
    eventually(
        lambda: "sleep" not in [h["id"] for h in search(api, index, query="seconds delay")["hits"]], 10, "it is gone"
    )
