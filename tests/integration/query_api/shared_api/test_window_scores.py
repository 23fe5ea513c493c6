"""Indexes that keep the vectors of windows: scores by the best window, passages, explanations and refusals."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from query_api.search.passages import text_fragment

Eventually = Callable[[Callable[[], object], float, str], None]
FILLER = "Nothing to see here, only filler. " * 30
# Two words are apart in one document and together in another. The merged vectors do not differ in this.
DOCUMENTS = [
    {"id": "apart", "text": f"A lighthouse. {FILLER} A supersonic aeroplane."},
    {"id": "together", "title": "Both", "text": f"{FILLER} A supersonic lighthouse. {FILLER}"},
    {"id": "short", "text": "A lighthouse keeper."},
    {"id": "none", "text": FILLER},
]


@pytest.fixture
def windows() -> str:
    return "both"


@pytest.fixture
def index(windows: str, api: httpx.Client, encode: Callable[[], None]) -> httpx.Client:
    declared = {"windows": windows, "window": {"pieces": 32, "overlap": 4}}
    made = api.put("/v1/indexes/long", json=declared)
    assert (made.status_code, made.json()["windows"]) == (201, windows)
    write(api, encode, DOCUMENTS)
    return api


def write(api: httpx.Client, encode: Callable[[], None], documents: list[dict[str, str]]) -> None:
    job = api.post("/v1/indexes/long/documents", json=documents).json()["job"]["id"]
    encode()
    assert api.get(f"/v1/jobs/{job}").json()["finished"]


def search(api: httpx.Client, status: int = 200, **body: Any) -> dict[str, Any]:
    response = api.post("/v1/indexes/long/search", json={"query": "supersonic lighthouse"} | body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_the_best_window_scores_and_is_the_passage(
    index: httpx.Client, encode: Callable[[], None], eventually: Eventually
) -> None:
    for mode in ("sparse", "hybrid"):
        for more in ({}, {"two_phase": {"threshold": 1.0}}, {"prune": 0.1}):
            hits = search(index, mode=mode, score_by="window", explain=True, highlight=True, **more)["hits"]
            found = {hit["id"]: hit for hit in hits}
            best = found["together"]
            assert hits[0] == best
            assert best["scores"]["sparse"] == pytest.approx(best["passage"]["score"], rel=1e-6)
            assert "supersonic lighthouse" in best["passage"]["text"]
            words = [DOCUMENTS[1]["text"][s["start"] : s["end"]] for s in best["highlight"]["text"]]
            assert {"supersonic", "lighthouse"} <= set(words)
            assert "fragment" not in best["passage"]
            for hit in hits:
                parts = [why["contribution"] for why in hit["why"] if why["list"] == "sparse"]
                assert sum(parts) == pytest.approx(hit["scores"].get("sparse", 0), rel=1e-6)
                assert hit["passage"]["score"] == pytest.approx(hit["scores"].get("sparse", 0), rel=1e-6)
            apart = {why["piece"] for why in found["apart"]["why"] if why["list"] == "sparse"}
            assert not {"super", "lighthouse"} <= apart, "no window of it has both"
    # the declaration sets the default: an index with both kinds scores by window
    assert search(index, mode="sparse")["hits"] == search(index, mode="sparse", score_by="window")["hits"]
    by_document = {hit["id"]: hit for hit in search(index, mode="sparse", score_by="document", explain=True)["hits"]}
    pieces = {why["piece"] for why in by_document["apart"]["why"]}
    assert {"super", "lighthouse"} <= pieces
    assert by_document["apart"]["score"] > by_document["apart"]["passage"]["score"]
    linked = search(index, passage={"fragment": True})["hits"][0]["passage"]
    assert linked["fragment"] == text_fragment(linked["text"])
    # counts are of documents, and a rewritten document has only the windows of its new text
    write(index, encode, [{"id": "together", "text": "A garden."}])
    assert search(index, mode="sparse")["hits"][0]["id"] != "together"
    counts = index.get("/v1/indexes/long").json()["documents"]
    assert counts == {"pending": 0, "encoded": len(DOCUMENTS), "dead": 0, "deleted": 0}
    assert index.delete("/v1/indexes/long/documents/short").status_code == 204
    eventually(
        lambda: "short" not in [hit["id"] for hit in search(index, mode="sparse")["hits"]], 10, "it is found no more"
    )


@pytest.mark.parametrize(("windows", "missing"), [("merged", "window"), ("nested", "document")])
def test_what_an_index_has_no_vectors_for_is_refused(index: httpx.Client, windows: str, missing: str) -> None:
    hits = search(index, mode="sparse", explain=True)["hits"]
    assert {hit["id"] for hit in hits} >= {"apart", "together", "short"}
    for hit in hits:
        assert sum(why["contribution"] for why in hit["why"]) == pytest.approx(hit["score"], rel=1e-6)
    refused = search(index, 422, mode="hybrid", score_by=missing)
    assert refused["code"] == "not_scored_by"
    assert "reindex --windows" in refused["detail"]
    assert search(index, 422, score_by="paragraph")["code"] == "invalid_request"
    exported = index.get("/v1/indexes/long/export", params={"vectors": True}).text.splitlines()
    assert len(exported) == len(DOCUMENTS) + 1
    assert '"window_vectors"' not in "".join(exported)


def test_several_indexes_are_scored_alike(api: httpx.Client, encode: Callable[[], None]) -> None:
    for name in ("merged", "nested", "both"):
        assert api.put(f"/v1/indexes/{name}", json={"windows": name, "window": {"pieces": 32, "overlap": 4}}).is_success
        job = api.post(f"/v1/indexes/{name}/documents", json=DOCUMENTS).json()["job"]["id"]
        encode()
        assert api.get(f"/v1/jobs/{job}").json()["finished"]

    def scores(*indexes: str, **more: Any) -> Any:
        body = {"indexes": indexes, "query": "supersonic lighthouse", "mode": "sparse", "passage": False} | more
        answer = api.post("/v1/search", json=body)
        if answer.status_code != 200:
            return answer.json()["code"]
        found: dict[str, dict[str, float]] = {}
        for hit in answer.json()["hits"]:
            found.setdefault(hit["index"], {})[hit["id"]] = hit["score"]
        return found

    by_window, by_document = scores("nested", "both"), scores("both", "merged")
    assert by_window["nested"] == by_window["both"]
    assert by_document["merged"] == by_document["both"] != by_window["both"]
    assert scores("nested", "merged") == "not_scored_by"
    assert scores("nested", "merged", score_by="window") == "not_scored_by"
    assert scores("nested", "merged", mode="lexical").keys() == {"nested", "merged"}


def test_a_document_of_too_many_windows_is_dead_with_the_reason(api: httpx.Client, encode: Callable[[], None]) -> None:
    """The service does not cut the document, and lexical search finds it."""
    assert api.put("/v1/indexes/long", json={"windows": "nested", "window": {"pieces": 16, "overlap": 8}}).is_success
    documents = [{"id": "much", "text": "lighthouse " + "a " * 80_000}, {"id": "little", "text": "a lighthouse"}]
    write(api, encode, documents)
    (dead,) = api.get("/v1/indexes/long/dead-letters").json()["dead"]
    assert (dead["id"], dead["error"]["code"]) == ("much", "too_many_windows")
    assert "4,096" in dead["error"]["reason"]
    found = search(api, query="lighthouse", mode="lexical", passage=False)["hits"]
    assert {hit["id"] for hit in found} == {"much", "little"}
    assert [hit["id"] for hit in search(api, query="lighthouse", mode="sparse")["hits"]] == ["little"]
