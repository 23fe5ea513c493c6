"""Highlights through the live API: the marks of the lexical list equal Lucene's, character by character."""

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from query_api.app import create_app
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.opensearch.client import AsyncSearchClient, Call
from services.settings import Settings

FILLER = "Nothing to see here. "
DOCUMENTS = [
    {"id": "dogs", "title": "The dog's running", "text": "He ran; she runs. A runner's dogs, running 🐕 dogs."},
    {
        "id": "marks",
        "title": "Cafe\u0301 naïve",
        "text": "👩\u200d👩\u200d👧 Un cafe\u0301, un café: naïve naïveté 1\u202f000 x\u0301.",
    },
    {"id": "han", "title": "中文", "text": "我们用中文字 and ひらがな カタカナ 한국어 ไทย 𠮷野家。"},
    {"id": "long", "text": FILLER * 200 + "The tunnel of winds blew. " + FILLER * 200 + "A lighthouse."},
    {
        "id": "odd",
        "title": "U.S.A.",
        "text": "o'neil's (generalization) of generalizations\tU.S.A.'s\u00a0state-of-the-art _x_ a²b #️⃣",
    },
    {"id": "untitled", "text": "generous generations; general, generally"},
]
QUERIES = (
    "the running dog",
    "run runs",
    "café naïve 👩\u200d👩\u200d👧",
    "中文 字 カタカナ ไทย 𠮷",
    "tunnel wind generous",
    "lighthouse winds",
    "generalization usa U.S.A. o'neil's",
    "1\u202f000 a²b x\u0301",
    "general generation",
)


@pytest.fixture
def language() -> str:
    return "english"


@pytest.fixture
def index(language: str, api: httpx.Client, encode: Callable[[], None]) -> str:
    declared = {"language": language, "window": {"pieces": 64, "overlap": 8}}
    assert api.put("/v1/indexes/marked", json=declared).status_code == 201
    job = api.post("/v1/indexes/marked/documents", json=DOCUMENTS).json()["job"]["id"]
    encode()
    assert api.get(f"/v1/jobs/{job}").json()["finished"]
    return "marked"


def search(api: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    response = api.post("/v1/indexes/marked/search", json={"highlight": True, "explain": True} | body)
    assert response.status_code == 200, response.text
    hits: list[dict[str, Any]] = response.json()["hits"]
    return hits


def whole_analysis(opensearch_url: str, settings: Settings, text: str) -> list[tuple[str, int, int]]:
    """Return OpenSearch's analysis of a whole text, in character offsets."""
    answer = httpx.post(
        f"{opensearch_url}/{settings.index_prefix}-marked.g000001/_analyze",
        json={"field": "lexical", "text": text},
        timeout=30,
    )
    units = [at for at, character in enumerate(text) for _ in range(1 + (character > "\uffff"))] + [len(text)]
    return [
        (token["token"], units[token["start_offset"]], units[token["end_offset"]]) for token in answer.json()["tokens"]
    ]


def joined(counted: Mapping[str, float], terms: list[tuple[str, int, int]]) -> dict[tuple[int, int], set[str]]:
    """Return the spans of the counted terms. Pairs of characters overlap and are one span."""
    spans: dict[tuple[int, int], set[str]] = {}
    for term, start, end in sorted(terms, key=lambda each: each[1:]):
        if term in counted:
            last = next(reversed(spans), (0, 0))
            pieces = spans.pop(last) if start < last[1] else set()
            spans[last[0] if pieces else start, max(end, last[1] if pieces else 0)] = pieces | {term}
    return spans


def of_list(spans: list[dict[str, Any]], name: str) -> dict[tuple[int, int], set[str]]:
    found = {}
    for span in spans:
        if pieces := {match["piece"] for match in span["matches"] if match["list"] == name}:
            found[span["start"], span["end"]] = pieces
    return found


@pytest.mark.parametrize("language", ["english", "standard", "french"])
def test_keyword_matches_are_those_that_lucene_counted(
    api: httpx.Client, index: str, settings: Settings, opensearch_url: str
) -> None:
    texts = {document["id"]: document for document in DOCUMENTS}
    seen = 0
    for query in QUERIES:
        for hit in search(api, query=query, mode="lexical", fields=["title", "text"]):
            counted = {why["piece"]: why["contribution"] for why in hit["why"]}
            found = hit["highlight"]
            assert found["complete"] is True
            start, end = hit["passage"]["start"], hit["passage"]["end"]
            title = whole_analysis(opensearch_url, settings, texts[hit["id"]].get("title", "") or " ")
            text = whole_analysis(opensearch_url, settings, texts[hit["id"]]["text"])
            expected = joined(counted, title)
            assert of_list(found["title"], "lexical") == expected, (query, hit["id"])
            expected = joined(counted, [each for each in text if start <= each[1] and each[2] <= end])
            assert of_list(found["text"], "lexical") == expected, (query, hit["id"])
            named = [m for span in (*found["title"], *found["text"]) for m in span["matches"]] + found["elsewhere"]
            assert {match["piece"]: match["contribution"] for match in named} == counted
            assert found["expansions"] == []
            seen += len(expected)
    assert seen > 15


def test_sparse_matches_are_words_that_hold_a_piece_that_contributed(api: httpx.Client, index: str) -> None:
    table = QueryTable.load(resolve_model_directory("standin"))
    texts = {document["id"]: document for document in DOCUMENTS}
    expansions = elsewhere = seen = 0
    for query in QUERIES:
        for hit in search(api, query=query, mode="sparse", size=10):
            found, document = hit["highlight"], texts[hit["id"]]
            start, end = hit["passage"]["start"], hit["passage"]["end"]
            named: dict[int, float] = {}
            for spans, text in ((found["title"], document.get("title", "")), (found["text"], document["text"])):
                pieces = table.spans(text)
                for span in spans:
                    word = text[span["start"] : span["end"]]
                    assert word.strip() == word != ""
                    within = {i for i, a, b in pieces if span["start"] <= a and b <= span["end"]}
                    assert {match["id"] for match in span["matches"]} <= within
                    named |= {match["id"]: match["contribution"] for match in span["matches"]}
                    seen += 1
            assert all(start <= span["start"] < span["end"] <= end for span in found["text"])
            own = set(table.ids(f"{document.get('title', '')}\n{document['text']}"))
            shown = set(table.ids(document.get("title", "") + "\n" + document["text"][start:end]))
            assert all(match["id"] not in own for match in found["expansions"])
            assert all(match["id"] in own - shown for match in found["elsewhere"])
            left = {match["id"]: match["contribution"] for match in (*found["expansions"], *found["elsewhere"])}
            why = {why["id"]: why for why in hit["why"]}
            assert named | left == {i: entry["contribution"] for i, entry in why.items()}
            assert {match["id"] for match in found["expansions"]} == {i for i in why if why[i]["expansion"]}
            expansions += len(found["expansions"])
            elsewhere += len(found["elsewhere"])
    assert seen > 15
    assert expansions
    assert elsewhere


def test_a_word_of_both_lists_is_marked_once_with_both_in_an_excerpt(api: httpx.Client, index: str) -> None:
    text = next(document["text"] for document in DOCUMENTS if document["id"] == "long")
    hit = search(api, query="tunnel", size=1, explain=False)[0]
    assert hit["id"] == "long"
    assert "why" not in hit
    (span,) = hit["highlight"]["text"]
    assert text[span["start"] : span["end"]] == "tunnel"
    assert {match["list"] for match in span["matches"]} == {"sparse", "lexical"}
    hit = search(api, query="tunnel wind", size=1, highlight={"characters": 60})[0]
    excerpt = hit["highlight"]["excerpt"]
    assert text[excerpt["start"] : excerpt["end"]] == excerpt["text"]
    assert "tunnel of winds" in excerpt["text"]
    assert len(excerpt["text"]) <= 60 < len(hit["passage"]["text"])
    marked = [text[span["start"] : span["end"]] for span in hit["highlight"]["text"]]
    assert marked == ["tunnel", "winds"]


def test_a_document_that_waits_for_its_vectors_is_marked_too(api: httpx.Client) -> None:
    """No worker runs. Lexical search finds the document, and its words choose the passage."""
    api.put("/v1/indexes/marked")
    job = api.post("/v1/indexes/marked/documents", json=DOCUMENTS[:1]).json()["job"]["id"]
    assert api.get(f"/v1/jobs/{job}").json()["accepted"] == 1  # the job status refreshes the index
    for mode in ("lexical", "hybrid"):
        (hit,) = search(api, query="dogs", mode=mode)
        words = [DOCUMENTS[0]["text"][span["start"] : span["end"]] for span in hit["highlight"]["text"]]
        assert words == ["dogs", "dogs"]


def test_text_beyond_what_one_request_looks_at_is_said_to_be(api: httpx.Client, encode: Callable[[], None]) -> None:
    """The encoder sees a run of emoji as one unknown token. OpenSearch cannot analyse its terms in one request."""
    api.put("/v1/indexes/marked")
    documents = [{"id": "a", "text": "dogs"}, {"id": "b", "text": f"dogs {'🐕' * 10_001} and dogs"}]
    job = api.post("/v1/indexes/marked/documents", json=documents).json()["job"]["id"]
    encode()
    assert api.get(f"/v1/jobs/{job}").json()["finished"]
    hits = {hit["id"]: hit for hit in search(api, query="dogs", mode="lexical")}
    assert hits["b"]["passage"]["text"] == documents[1]["text"]
    assert hits["a"]["highlight"]["complete"] is True
    assert hits["b"]["highlight"]["complete"] is False


@pytest.mark.parametrize(
    "options", [{"highlight": {"characters": 0}}, {"highlight": {"x": 1}}, {"highlight": "yes!"}, {"passage": False}]
)
def test_what_cannot_be_marked_is_refused(api: httpx.Client, options: dict[str, Any]) -> None:
    api.put("/v1/indexes/marked")
    response = api.post("/v1/indexes/marked/search", json={"query": "x", "highlight": True} | options)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


async def test_a_plain_search_asks_for_nothing_more(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain search sends no call of an explained or highlighted search to OpenSearch."""
    sent: list[Call] = []
    send = AsyncSearchClient.send

    async def recorded(self: AsyncSearchClient, call: Call) -> Any:
        sent.append(call)
        return await send(self, call)

    monkeypatch.setattr(AsyncSearchClient, "send", recorded)
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, timeout=30, base_url="http://api") as api,
    ):
        await api.put("/v1/indexes/marked")
        job = (await api.post("/v1/indexes/marked/documents", json=DOCUMENTS)).json()["job"]["id"]
        assert (await api.get(f"/v1/jobs/{job}")).json()["accepted"] == len(DOCUMENTS)
        sent_calls: dict[str, list[tuple[str, bool]]] = {}
        for name, options in (("plain", {}), ("explained", {"explain": True}), ("marked", {"highlight": True})):
            sent.clear()
            answer = await api.post("/v1/indexes/marked/search", json={"query": "dogs", **options})
            assert answer.json()["hits"], answer.text
            sent_calls[name] = [(call.path.rpartition("/")[2], b'"explain"' in (call.body or b"")) for call in sent]
    assert sent_calls == {
        "plain": [("_msearch", False), ("_mget", False)],
        "explained": [("_msearch", False), ("_search", True)],
        "marked": [("_msearch", False), ("_search", True), ("_analyze", False)],
    }
