"""Curation rules through the REST API: searches apply them, and each change is a version."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import pytest

from benchmarks.service import encode_documents, fill_generation
from models.registry import load_encoder
from services.documents.document import Document
from services.index_spec import IndexNames, IndexSpec
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import create_generation_call, read_generation, resolve_alias_call, swap_alias_call
from services.settings import Settings

PATH = "/v1/indexes/docs/curation"
JSON = {"content-type": "application/json"}
TEXTS = {
    "attack": "Signs of a heart attack and what to do.",
    "infarct": "Myocardial infarction: signs and treatment.",
    "other": "An infarction of the spleen. Signs are few.",
    "york": "A house in New York.",
    "new": "New houses near York, quite new ones.",
    "garden": "A garden for roses and signs.",
}
HEART = {"synonyms": [{"words": ["heart attack", "myocardial infarction"], "weight": 0.5}]}


@pytest.fixture
def index(api: httpx.Client, settings: Settings) -> str:
    """Create an index with documents encoded as by a worker."""
    assert api.put("/v1/indexes/docs", json={"fields": {"initial": "keyword"}}).status_code == 201
    fill_index(settings, [Document(one, text, one, {"initial": one[0]}) for one, text in TEXTS.items()])
    return "docs"


def fill_index(settings: Settings, documents: list[Document], name: str = "docs") -> None:
    with closing(SyncSearchClient(settings)) as client:
        generation = read_generation(client.send(resolve_alias_call(IndexNames(settings.index_prefix), name)), name)
        fill_generation(client, settings, generation, encode_documents(load_encoder("standin"), documents))


def put(api: httpx.Client, rules: dict[str, Any], version: int | None = None, **more: Any) -> httpx.Response:
    headers = {} if version is None else {"if-match": f'"{version}"'}
    return api.put(PATH, json={"rules": rules, **more}, headers=headers)


def search(api: httpx.Client, query: str, **options: Any) -> dict[str, Any]:
    answer = api.post("/v1/indexes/docs/search", json={"query": query, **options})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert isinstance(found, dict)
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


def test_rules_are_versions_changed_by_who_has_read_the_newest(api: httpx.Client, index: str) -> None:
    empty = api.get(PATH)
    assert (empty.status_code, empty.headers["etag"]) == (200, '"0"')
    assert empty.json() == {"index": "docs", "version": 0, "at": None, "note": "", "rules": {}}
    assert "curation" not in search(api, "signs")

    first = put(api, HEART, note="asked for by cardiology")
    assert (first.status_code, first.headers["etag"], first.json()["version"]) == (200, '"1"', 1)
    assert first.json()["rules"] == HEART
    assert api.get(PATH).json() == first.json()
    again = put(api, HEART)  # the same rules from any sender change nothing
    assert again.json() == first.json()

    blind = put(api, {"terms": [{"term": "signs", "factor": 2}]})
    assert (blind.status_code, blind.json()["code"], blind.json()["version"]) == (409, "stale_curation", 1)
    second = put(api, {"terms": [{"term": "signs", "factor": 2}]}, 1)
    assert second.json()["version"] == 2
    late = put(api, HEART, 1)
    assert (late.status_code, late.json()["code"]) == (409, "stale_curation")
    assert api.put(PATH, json={"rules": {}}, headers={"if-match": "*"}).json()["version"] == 3

    listed = api.get(f"{PATH}/versions").json()
    assert [(one["version"], one["note"]) for one in listed["versions"]] == [
        (3, ""),
        (2, ""),
        (1, "asked for by cardiology"),
    ]
    assert api.get(f"{PATH}/versions/1").json() == first.json()
    assert api.get(f"{PATH}/versions/3").json()["rules"] == {}
    missing = api.get(f"{PATH}/versions/4")
    assert (missing.status_code, missing.json()["code"]) == (404, "curation_version_not_found")


def test_a_synonym_finds_by_keyword_and_by_meaning_and_is_explained(api: httpx.Client, index: str) -> None:
    assert "infarct" not in ids(search(api, "heart attack", mode="lexical"))
    assert "infarct" not in ids(search(api, "heart attack", mode="sparse"))
    put(api, HEART)
    for mode in ("lexical", "sparse", "hybrid"):
        answer = search(api, "heart attack", mode=mode, explain=True)
        assert answer["curation"] == {
            "version": 1,
            "applied": [{"kind": "synonym", "rule": 0, "matched": "heart attack"}],
        }
        assert {"attack", "infarct"} <= set(ids(answer))
        for hit in answer["hits"]:
            for name, score in hit["scores"].items():
                parts = [why for why in hit["why"] if why["list"] == name]
                assert sum(why["contribution"] for why in parts) == pytest.approx(score, rel=1e-5), (mode, hit)
                added = {"synonym" in why.get("origins", {}) for why in parts}
                assert added == {hit["id"] != "attack"}, (mode, hit)
        plain = search(api, "heart attack", mode=mode, curation=False)
        assert "curation" not in plain
        assert "infarct" not in ids(plain)
    found = {hit["id"]: hit for hit in search(api, "heart attack", mode="lexical", highlight=True)["hits"]}
    marked = [TEXTS["infarct"][one["start"] : one["end"]] for one in found["infarct"]["highlight"]["text"]]
    assert marked == ["Myocardial", "infarction"]
    # "infarction" alone is not a synonym
    assert "other" not in ids(search(api, "heart attack", mode="lexical"))
    pieces = {one["piece"]: list(one["origins"]) for one in search(api, "heart attack", explain=True)["pieces"]}
    assert (pieces["heart"], pieces["my"]) == (["query"], ["synonym"])


def test_a_synonyms_weight_is_that_of_its_score(api: httpx.Client, index: str) -> None:
    unexpanded = {
        mode: search(api, "myocardial infarction", mode=mode)["hits"][0]["score"] for mode in ("sparse", "lexical")
    }
    put(api, HEART)
    sparse = {hit["id"]: hit["score"] for hit in search(api, "heart attack", mode="sparse")["hits"]}
    assert sparse["infarct"] == pytest.approx(unexpanded["sparse"] * 0.5, rel=1e-5)
    # lexical search treats the synonym as a phrase: its score differs from that of two words and is halved
    put(api, {"synonyms": [{"from": ["xyz"], "to": ["myocardial infarction"]}]}, 1)
    whole = search(api, "xyz", mode="lexical")["hits"][0]["score"]
    put(api, HEART, 2)
    lexical = {hit["id"]: hit["score"] for hit in search(api, "heart attack", mode="lexical")["hits"]}
    assert lexical["infarct"] == pytest.approx(whole * 0.5, rel=1e-5)


def test_a_query_that_no_rule_concerns_is_answered_as_before(api: httpx.Client, index: str) -> None:
    before = {mode: search(api, "new signs of york", mode=mode) for mode in ("sparse", "lexical", "hybrid")}
    put(api, {"synonyms": [{"from": ["xyz"], "to": ["abc"]}], "terms": [{"term": "zzz", "weight": 1}]})
    for mode, old in before.items():
        new = search(api, "new signs of york", mode=mode)
        assert new["curation"] == {"version": 1, "applied": []}
        assert new["hits"] == old["hits"]


def test_cutting_a_keyword_query_where_a_rule_holds_does_not_change_its_scores(api: httpx.Client, index: str) -> None:
    query = "signs of a heart attack, in New York's houses"
    before = search(api, query, mode="lexical")
    put(api, {"synonyms": [{"from": ["heart attack", "new york"], "to": ["zebra"]}]})
    after = search(api, query, mode="lexical")
    assert len(after["curation"]["applied"]) == 2
    assert ids(after) == ids(before)
    assert [hit["score"] for hit in after["hits"]] == pytest.approx([hit["score"] for hit in before["hits"]], rel=1e-6)


def test_a_protected_phrase_and_the_weight_of_a_term(api: httpx.Client, index: str) -> None:
    assert set(ids(search(api, "new york", mode="lexical"))) == {"york", "new"}
    put(api, {"terms": [{"term": "new york", "phrase": True, "factor": 3}, {"term": "roses", "weight": 50}]})
    phrase = search(api, "new york", mode="lexical", explain=True)
    assert ids(phrase) == ["york"]
    assert [(why["piece"], list(why["origins"])) for why in phrase["hits"][0]["why"]] == [('"new york"', ["override"])]
    sparse = search(api, "new york", mode="sparse", explain=True)
    assert all(one["origins"]["override"] > 0 for one in sparse["pieces"])
    weights = {one["piece"]: one["weight"] for one in sparse["pieces"]}
    own = search(api, "new york", mode="sparse", explain=True, curation=False)["pieces"]
    assert weights == {one["piece"]: pytest.approx(3 * one["weight"]) for one in own}
    heavy = search(api, "signs roses", mode="sparse", explain=True)
    assert ids(heavy)[0] == "garden"
    assert heavy["pieces"][0]["weight"] == pytest.approx(50)


def test_pinned_and_hidden_results(api: httpx.Client, index: str, eventually: Callable[..., None]) -> None:
    before = ids(search(api, "signs"))
    assert set(before) == {"attack", "infarct", "other", "garden"}
    results = [
        {
            "query": "Signs",
            "pin": [
                {"id": "york", "position": 1},
                {"id": "garden", "position": 2},
                {"id": "nobody", "position": 3},
            ],
        },
        {"query": "signs", "match": "contains", "hide": ["attack"]},
    ]
    put(api, {"results": results})
    for mode in ("sparse", "lexical", "hybrid"):
        answer = search(api, "signs!", mode=mode, explain=True)
        assert ids(answer)[:2] == ["york", "garden"]
        assert set(ids(answer)[2:]) == {"infarct", "other"}
        assert [hit.get("pinned") for hit in answer["hits"]] == [True, True, None, None]
        york, garden = answer["hits"][:2]
        assert (york["score"], york["scores"], york["why"]) == (0.0, {}, [])
        assert (york["passage"]["text"], york["title"]) == (TEXTS["york"], "york")
        assert garden["scores"] and garden["score"] >= 0  # its own score, from the lists that contain it
        assert answer["curation"]["skipped"] == [
            {"kind": "results", "rule": 0, "what": "nobody", "reason": "not_found"}
        ]
        assert "attack" not in ids(search(api, "the signs of", mode=mode))
        assert ids(search(api, "signs", mode=mode, size=1)) == ["york"]
        assert len(search(api, "signs", mode=mode, size=3)["hits"]) == 3
        # a filter excludes documents, pinned or not
        only = {"field": "initial", "any_of": ["g", "i"]}
        assert ids(search(api, "signs", mode=mode, filter=only)) == ["infarct", "garden"]
    assert "attack" in ids(search(api, "heart"))
    assert ids(search(api, "signs", curation=False)) == before
    # a deleted document is not shown, pinned or not
    assert api.delete("/v1/indexes/docs/documents/york").status_code == 204
    eventually(lambda: "york" not in ids(search(api, "signs")), 60, "a deleted document is not pinned any more")


MANY = [f"m{n:02}" for n in range(23)]
PINS = [("p1", 2), ("gone", 3), ("p2", 7), ("m05", 9), ("p3", 22), ("p4", 90)]


@pytest.fixture
def many(api: httpx.Client, settings: Settings) -> str:
    """Create 23 documents that match "signs", and others that are pinned among them."""
    assert api.put("/v1/indexes/docs").status_code == 201
    documents = [Document(one, f"signs {'word ' * n}") for n, one in enumerate(MANY)]
    documents += [Document(f"p{n}", "nothing of it") for n in range(1, 5)]
    fill_index(settings, documents)
    put(api, {"results": [{"query": "signs", "pin": [{"id": one, "position": place} for one, place in PINS]}]})
    return "docs"


@pytest.mark.parametrize("mode", ["sparse", "lexical", "hybrid"])
def test_pinned_documents_have_their_places_whatever_the_page(api: httpx.Client, many: str, mode: str) -> None:
    ranked = [one for one in ids(search(api, "signs", mode=mode, size=50, curation=False)) if one != "m05"]
    whole = ids(search(api, "signs", mode=mode, size=50))
    assert sorted(whole) == sorted([*MANY, "p1", "p2", "p3", "p4"])
    assert [one for one in whole if one in ranked] == ranked
    assert {one: whole.index(one) + 1 for one, place in PINS if one in whole} == {
        "p1": 2,
        "p2": 7,
        "m05": 9,
        "p3": 22,
        "p4": 27,  # the ranked documents end before this position
    }
    for size in (1, 4, 8, 9):
        by_offset = [
            ids(search(api, "signs", mode=mode, size=size, offset=at)) for at in range(0, len(whole) + 2 * size, size)
        ]
        by_cursor, cursor = [], "*"
        while cursor:
            answer = search(api, "signs", mode=mode, size=size, cursor=cursor)
            by_cursor.append(ids(answer))
            cursor = answer["cursor"]
        for pages in (by_offset, by_cursor):
            assert [one for page in pages for one in page] == whole
        assert all(len(page) == size for page in by_cursor[:-1])


@pytest.mark.parametrize("mode", ["sparse", "lexical", "hybrid"])
def test_pages_of_pinned_documents_alone_go_on(api: httpx.Client, many: str, mode: str) -> None:
    put(api, {"results": [{"match": "every", "pin": [{"id": "p1", "position": 1}, {"id": "p2", "position": 2}]}]}, 1)
    first = search(api, "signs", mode=mode, size=2, cursor="*")
    assert ids(first) == ["p1", "p2"]
    rest = search(api, "signs", mode=mode, size=50, cursor=first["cursor"])
    assert sorted(ids(rest)) == MANY
    assert rest["cursor"] is None


def test_pages_by_cursor_go_on_by_the_rules_of_the_first(api: httpx.Client, many: str) -> None:
    whole = ids(search(api, "signs", size=20))
    first = search(api, "signs", size=10, cursor="*")
    put(api, {"results": [{"query": "signs", "hide": [*MANY[:20], "p2"]}]}, 1)
    assert len(ids(search(api, "signs", size=20))) == 3
    second = search(api, "signs", size=10, cursor=first["cursor"])
    assert second["curation"]["version"] == 1
    assert ids(first) + ids(second) == whole


def test_hidden_documents_leave_pages_full(api: httpx.Client, index: str) -> None:
    put(api, {"results": [{"match": "every", "hide": ["attack", "infarct"]}]})
    for mode in ("sparse", "lexical", "hybrid"):
        assert set(ids(search(api, "signs", mode=mode, size=2))) == {"other", "garden"}


@pytest.mark.parametrize("mode", ["sparse", "lexical", "hybrid"])
def test_in_a_search_of_several_indexes_each_has_its_own_rules(
    api: httpx.Client, index: str, settings: Settings, mode: str
) -> None:
    assert api.put("/v1/indexes/more").status_code == 201
    fill_index(settings, [Document(one, text) for one, text in TEXTS.items()], "more")
    results = [{"match": "every", "hide": ["attack"], "pin": [{"id": "york", "position": 1}]}]
    put(api, HEART | {"results": results})
    request = {"indexes": ["docs", "more"], "query": "heart attack", "mode": mode, "explain": True}
    answer = api.post("/v1/search", json=request).raise_for_status().json()
    found = [(hit["index"], hit["id"]) for hit in answer["hits"]]
    assert ("docs", "attack") not in found and ("more", "attack") in found
    assert ("docs", "infarct") in found and ("more", "infarct") not in found
    assert found[0] != ("docs", "york") and not any(hit.get("pinned") for hit in answer["hits"])
    assert list(answer["curation"]) == ["docs"]
    assert answer["curation"]["docs"]["skipped"] == [
        {"kind": "results", "rule": 0, "what": "york", "reason": "several_indexes"}
    ]
    for hit in answer["hits"]:
        for name, score in hit["scores"].items():
            shares = [why["contribution"] for why in hit["why"] if why["list"] == name]
            assert sum(shares) == pytest.approx(score, rel=1e-5)
    plain = api.post("/v1/search", json=request | {"curation": False}).raise_for_status().json()
    assert ("docs", "attack") in [(hit["index"], hit["id"]) for hit in plain["hits"]]


def test_a_dry_run_shows_what_would_change_and_writes_nothing(api: httpx.Client, index: str) -> None:
    put(api, HEART)
    rules = HEART | {"results": [{"query": "signs", "pin": [{"id": "york", "position": 1}], "hide": ["attack"]}]}
    body = {"rules": rules, "queries": ["signs", "heart attack", " ", "roses"], "size": 3, "mode": "lexical"}
    answer = api.post(f"{PATH}/dry-run", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["version"], found["changed"]) == (1, 1)
    signs, heart, empty, roses = found["queries"]
    assert signs["changed"] and not heart["changed"] and not roses["changed"]
    assert (heart["overlap"], heart["before"]) == (1.0, heart["after"])
    assert signs["after"][0] == "york"
    assert {"id": "york", "place": 1} in signs["entered"]
    assert 0 <= signs["overlap"] < 1
    assert signs["curation"] == {
        "version": 0,
        "applied": [{"kind": "results", "rule": 0, "matched": "signs"}],
        "hidden": 1,
    }
    assert empty["error"]["code"] == "empty_query"
    assert api.get(PATH).json()["version"] == 1
    assert ids(search(api, "signs"))[0] != "york"
    # an index without stored rules
    api.put("/v1/indexes/bare")
    bare = api.post("/v1/indexes/bare/curation/dry-run", json={"rules": HEART, "queries": ["heart attack"]})
    assert (bare.json()["version"], bare.json()["changed"]) == (0, 0)


BAD_RULES: list[tuple[dict[str, Any], dict[str, str], int, str]] = [
    ({"rules": {"synonyms": [{"words": ["a"]}]}}, {}, 422, "invalid_request"),
    ({"rules": {"unknown": []}}, {}, 422, "invalid_request"),
    ({"rules": {}, "note": "x" * 501}, {}, 422, "invalid_request"),
    ({"rules": {"terms": [{"term": "ꙮ", "weight": 1}]}}, {}, 422, "bad_curation"),
    ({"rules": HEART}, {"if-match": "soon"}, 422, "bad_if_match"),
    ({"rules": HEART}, {"if-match": '"9"'}, 409, "stale_curation"),
]


def test_bad_rules_are_refused(api: httpx.Client, subtests: pytest.Subtests) -> None:
    api.put("/v1/indexes/docs")
    for body, headers, status, code in BAD_RULES:
        with subtests.test(body=body, headers=headers, status=status, code=code):
            refused = api.put(PATH, json=body, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (status, code)
            assert api.get(PATH).json()["version"] == 0


def test_bodies_that_are_no_rules(api: httpx.Client) -> None:
    api.put("/v1/indexes/docs")
    json = {"content-type": "application/json"}
    nan = api.put(PATH, content=b'{"rules": {"synonyms": [{"words": ["a", "b"], "weight": NaN}]}}', headers=json)
    assert nan.status_code == 422
    half = api.put(PATH, content=b'{"rules": {"synonyms": [{"words": ["a", "\\ud800"]}]}}', headers=json)
    assert half.status_code == 422
    large = {"synonyms": [{"words": [f"{n} {'long' * 40}", f"{n}"]} for n in range(2000)]}
    refused = put(api, large)
    assert (refused.status_code, refused.json()["code"]) == (413, "curation_too_large")
    many = api.post(f"{PATH}/dry-run", json={"rules": {}, "queries": ["x"] * 51})
    assert (many.status_code, many.json()["code"]) == (422, "invalid_request")
    size = api.post(f"{PATH}/dry-run", json={"rules": {}, "queries": ["x"], "size": 1000})
    assert size.json()["queries"][0]["error"]["code"] == "size_too_large"
    half = api.post(f"{PATH}/dry-run", content=b'{"rules": {}, "queries": ["a \\ud800 b"]}', headers=JSON)
    assert half.json()["queries"][0]["error"]["code"] == "bad_query"
    for method, path in (("GET", ""), ("GET", "/versions"), ("PUT", ""), ("POST", "/dry-run")):
        body = {"rules": {}, "queries": ["x"]} if method == "POST" else {"rules": {}}
        nowhere = api.request(method, f"/v1/indexes/nowhere/curation{path}", json=None if method == "GET" else body)
        assert (nowhere.status_code, nowhere.json()["code"]) == (404, "index_not_found")


def test_an_index_that_is_made_again_has_no_rules(api: httpx.Client, index: str) -> None:
    put(api, {"results": [{"match": "every", "hide": ["attack"]}]})
    assert api.delete("/v1/indexes/docs").status_code == 204
    api.put("/v1/indexes/docs")
    assert api.get(PATH).json()["version"] == 0
    job = api.post("/v1/indexes/docs/documents", json=[{"id": "attack", "text": "signs"}]).json()["job"]["id"]
    assert api.get(f"/v1/jobs/{job}").json()["accepted"] == 1
    assert ids(search(api, "signs", mode="lexical")) == ["attack"]
    assert put(api, HEART).json()["version"] == 1


def test_only_so_many_versions_are_kept(api: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("services.opensearch.curation_records", "query_api.curation"):
        monkeypatch.setattr(f"{module}.MAX_KEPT_VERSIONS", 3)
    api.put("/v1/indexes/docs")
    for version in range(6):
        rules = {"terms": [{"term": "signs", "factor": version + 2}]}
        assert put(api, rules, version).json()["version"] == version + 1
    assert [one["version"] for one in api.get(f"{PATH}/versions").json()["versions"]] == [6, 5, 4, 3]
    assert api.get(f"{PATH}/versions/2").status_code == 404


def test_of_writers_at_once_one_wins(api: httpx.Client) -> None:
    api.put("/v1/indexes/docs")

    def write(n: int) -> int:
        return put(api, {"terms": [{"term": "signs", "factor": n + 2}]}, 0).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(write, range(8)))
    assert answers == [200] + [409] * 7
    assert api.get(PATH).json()["version"] == 1


BOOST = {"boosts": [{"filter": {"field": "initial", "any_of": ["g", "o"]}, "factor": 8}]}
HALF = {"boosts": [{"filter": {"not": {"field": "initial", "is": "a"}}, "factor": 0.5}]}
MODES = ("sparse", "lexical", "hybrid")


def adds_up(answer: dict[str, Any]) -> None:
    for hit in answer["hits"]:
        for name, score in hit["scores"].items():
            parts = [why["contribution"] for why in hit["why"] if why["list"] == name]
            assert sum(parts) == pytest.approx(score, rel=1e-5), (hit["id"], name)
        if "fusion" in hit:
            assert sum(part["contribution"] for part in hit["fusion"].values()) == pytest.approx(hit["score"])


def test_boosts_multiply_the_scores_of_documents_in_each_list(api: httpx.Client, index: str) -> None:
    """The boosts apply with two phases, pruning, pages, a filter, an order and a batch."""
    query = "signs of an attack"
    before = {mode: search(api, query, mode=mode) for mode in MODES}
    put(api, {"boosts": BOOST["boosts"] + HALF["boosts"]})
    for mode in MODES:
        answer = search(api, query, mode=mode, explain=True)
        assert ids(answer) != ids(before[mode]) and set(ids(answer)) == set(ids(before[mode]))
        adds_up(answer)
        assert answer["curation"]["applied"] == [
            {"kind": "boost", "rule": 0, "matched": 'initial any_of ["g","o"]'},
            {"kind": "boost", "rule": 1, "matched": '{"not":{"field":"initial","is":"a"}}'},
        ]
        plain = {hit["id"]: hit["scores"] for hit in before[mode]["hits"]}
        for hit in answer["hits"]:
            factor = (8 if hit["id"][0] in "go" else 1) * (1 if hit["id"][0] == "a" else 0.5)
            assert hit["scores"] == {name: pytest.approx(score * factor) for name, score in plain[hit["id"]].items()}
            shares = [why for why in hit["why"] if "boost" in why.get("origins", {})]
            assert len(shares) == len(hit["scores"]) * {"a": 0, "i": 1}.get(hit["id"][0], 2)
        for more in ({"two_phase": {"threshold": 0.9}}, {"prune": 0.5}):
            found = search(api, query, mode=mode, explain=True, **more)
            adds_up(found)
            assert "prune" in more or ids(found) == ids(answer)
        for size in (1, 2):
            given, cursor = [], "*"
            while cursor:
                page = search(api, query, mode=mode, size=size, cursor=cursor)
                given, cursor = given + ids(page), page["cursor"]
            assert given == ids(answer)
        only = search(api, query, mode=mode, filter={"field": "initial", "any_of": ["a", "g"]})
        assert set(ids(only)) == {"attack", "garden"}
        assert ids(search(api, query, mode=mode, sort=[{"field": "_score"}], among="candidates")) == ids(answer)
        pair = [
            {"index": "docs", "query": query, "mode": mode},
            {"index": "docs", "query": query, "curation": False},
        ]
        batch = api.post("/v1/search/batch", json={"searches": pair}).raise_for_status().json()["answers"]
        assert [ids(one["answer"]) for one in batch] == [ids(answer), ids(before["hybrid"])]
        assert search(api, query, mode=mode, curation=False)["hits"] == before[mode]["hits"]
    assert "boost" not in str(search(api, "", filter={"field": "initial", "exists": True}, explain=False)["curation"])


def test_boosts_hold_in_a_search_of_several_indexes_and_for_what_is_pinned(
    api: httpx.Client, index: str, settings: Settings
) -> None:
    assert api.put("/v1/indexes/more").status_code == 201
    fill_index(settings, [Document(one, text) for one, text in TEXTS.items()], "more")
    put(api, BOOST | {"results": [{"query": "signs", "pin": [{"id": "other", "position": 1}]}]})
    for mode in MODES:
        asked = {"indexes": ["more", "docs"], "query": "signs of roses", "mode": mode, "explain": True, "size": 20}
        adds_up(api.post("/v1/search", json=asked).raise_for_status().json())
        asked |= {"indexes": ["docs", "more"]}
        answer = api.post("/v1/search", json=asked).raise_for_status().json()
        adds_up(answer)
        scores = {(hit["index"], hit["id"]): hit["scores"] for hit in answer["hits"]}
        # this request differs from that to the other index, so `docs` uses its own word statistics
        alone = search(api, "signs of roses", mode=mode)["hits"]
        assert {hit["id"]: hit["scores"] for hit in alone} == {
            one: scores[name, one] for name, one in scores if name == "docs"
        }
        if mode == "sparse":
            assert scores["docs", "garden"]["sparse"] == pytest.approx(8 * scores["more", "garden"]["sparse"])
        pinned = search(api, "signs", mode=mode, explain=True)
        assert (pinned["hits"][0]["id"], pinned["hits"][0]["pinned"]) == ("other", True)
        adds_up(pinned)


def test_a_boost_by_a_field_that_another_index_declares_otherwise_is_left_out(
    api: httpx.Client, index: str, settings: Settings
) -> None:
    """The result is the same on every page. With a point in time the service sends a request to each index.

    A date field would refuse a number.
    """
    for name, kind, year in (("numbers", "number", 3), ("dates", "date", "2024-01-01")):
        api.put(f"/v1/indexes/{name}", json={"fields": {"year": kind}}).raise_for_status()
        fill_index(settings, [Document(f"{name}{n}", "signs " * n, "", {"year": year}) for n in (1, 2)], name)
    boosts = [{"filter": {"field": "year", "range": {"gte": 2}}, "factor": 2}]
    api.put("/v1/indexes/numbers/curation", json={"rules": {"boosts": boosts}}).raise_for_status()
    for cursor in (None, "*"):
        request = {"indexes": ["numbers", "dates"], "query": "signs", "cursor": cursor, "mode": "lexical"}
        answer = api.post("/v1/search", json=request).raise_for_status().json()
        scores = {hit["id"]: hit["score"] for hit in answer["hits"]}
        assert scores["numbers1"] == scores["dates1"]
        skipped = {"kind": "boost", "rule": 0, "what": 'year range {"gte":2}', "reason": "several_indexes"}
        assert answer["curation"]["numbers"] == {"version": 1, "applied": [], "skipped": [skipped]}


def test_words_of_the_title_count_more(api: httpx.Client, settings: Settings) -> None:
    api.put("/v1/indexes/docs")
    documents = [
        Document("named", "All about flowers, and where to buy them, and what they are.", "Roses"),
        Document("said", "Roses and roses.", "A garden"),
        Document("other", "Nothing of it.", "Houses"),
    ]
    fill_index(settings, documents)
    before = {mode: search(api, "roses", mode=mode) for mode in MODES}
    assert ids(before["lexical"]) == ["said", "named"]
    put(api, {"fields": {"title": 3}})
    found = search(api, "roses", mode="lexical", explain=True, highlight=True)
    assert ids(found) == ["named", "said"]
    assert found["curation"]["applied"] == [{"kind": "field", "rule": 0, "matched": "title"}]
    adds_up(found)
    adds_up(search(api, "roses", explain=True))
    title = [why for why in found["hits"][0]["why"] if "title" in why.get("origins", {})]
    assert [why["piece"] for why in title] == ["rose"]
    assert found["hits"][1]["score"] == before["lexical"]["hits"][0]["score"]  # its title has no match
    # a doubled excess weight doubles the title's share
    put(api, {"fields": {"title": 5}}, 1)
    more = search(api, "roses", mode="lexical", explain=True)
    share = next(why for why in more["hits"][0]["why"] if "title" in why.get("origins", {}))
    assert share["contribution"] == pytest.approx(2 * title[0]["contribution"], rel=1e-6)
    # with a synonym whose words occur in a title
    put(api, {"fields": {"title": 5}, "synonyms": [{"from": ["blossom"], "to": ["roses"]}]}, 2)
    adds_up(search(api, "a blossom", mode="lexical", explain=True))
    assert ids(search(api, "a blossom", mode="lexical")) == ["named", "said"]
    assert search(api, "roses", mode="sparse")["hits"] == before["sparse"]["hits"]
    put(api, {"fields": {"title": 1}}, 3)
    assert api.get(PATH).json()["rules"] == {}
    assert search(api, "roses", mode="lexical")["hits"] == before["lexical"]["hits"]


def test_boosts_are_held_against_the_index_and_tried_before_they_are_stored(api: httpx.Client, index: str) -> None:
    def refused(boosts: list[Any]) -> tuple[int, str, str | None]:
        answer = put(api, {"boosts": boosts})
        return answer.status_code, answer.json()["code"], answer.json().get("where")

    unknown = {"filter": {"field": "colour", "is": "red"}, "factor": 2}
    assert refused([*BOOST["boosts"], unknown]) == (422, "undeclared_metadata", "boosts.1.filter")
    number = {"filter": {"field": "initial", "is": 5}, "factor": 2}
    assert refused([number]) == (422, "bad_filter", "boosts.0.filter.is")
    long = {"filter": {"all": [{"field": "initial", "is": "a"}] * 60}, "factor": 2}
    assert refused([long, long]) == (422, "bad_curation", "boosts")
    for factor in (0, 1, 11, -1, None):
        assert refused([{"filter": {"field": "initial", "is": "a"}, "factor": factor}])[:2] == (422, "invalid_request")
    assert put(api, {"fields": {"title": 0.5}}).json()["code"] == "invalid_request"
    body = {"rules": BOOST, "queries": ["signs", "new york"], "mode": "lexical"}
    tried = api.post(f"{PATH}/dry-run", json=body).raise_for_status().json()
    assert [one["changed"] for one in tried["queries"]] == [True, False]
    assert tried["queries"][0]["curation"]["applied"][0]["kind"] == "boost"
    assert api.post(f"{PATH}/dry-run", json=body | {"rules": {"boosts": [unknown]}}).status_code == 422
    assert api.get(PATH).json()["version"] == 0


def test_what_another_generation_lacks_is_skipped_and_said(api: httpx.Client, index: str, settings: Settings) -> None:
    """After a reindexing that drops a field, or a rollback to an older release's generation, searches continue."""
    put(api, BOOST | {"fields": {"title": 3}})
    names = IndexNames(settings.index_prefix)
    with closing(SyncSearchClient(settings)) as client:
        now = read_generation(client.send(resolve_alias_call(names, "docs")), "docs")
        other = now.model_copy(
            update={"number": 2, "physical": names.physical("docs", 2), "spec": IndexSpec(), "titles": False}
        )
        client.send(create_generation_call(other, settings, []))
        fill_generation(
            client,
            settings,
            other,
            encode_documents(load_encoder("standin"), [Document("garden", TEXTS["garden"], "roses")]),
        )
        client.send(swap_alias_call(now, other))
    dry = api.post(f"{PATH}/dry-run", json={"rules": {}, "queries": ["roses"]})  # this request reloads the index
    assert dry.json()["queries"][0]["after"] == ["garden"]
    answer = search(api, "roses", explain=True)
    adds_up(answer)
    assert answer["curation"] == {
        "version": 1,
        "applied": [],
        "skipped": [
            {"kind": "boost", "rule": 0, "what": 'initial any_of ["g","o"]', "reason": "unfit"},
            {"kind": "field", "rule": 0, "what": "title", "reason": "unfit"},
        ],
    }
    refused = put(api, {"fields": {"title": 2}}, 1)
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_curation")
    assert "sparsewell reindex docs" in refused.json()["detail"]
