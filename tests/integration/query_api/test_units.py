"""Chapters and passages as hits: the best of all, pages, explanations, highlights, rules and refusals."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from typing import Any

import httpx
import pytest

from indexer.encoding import WindowedDocument, cut_talk_windows
from models.encoder import Encoder
from models.registry import load_encoder
from query_api.schemas.search_response import SearchAnswer
from services.documents.document import joined_text, raw_version
from services.encoders.manifest import WindowSettings
from services.encoders.vectors import merge_max
from services.index_spec import Generation, IndexNames, TalkSettings
from services.opensearch.bulk import Write, WriteOutcome, write_bulk
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import read_generation, refresh_call, resolve_alias_call
from services.opensearch.journal import encoded_write
from services.opensearch.stored_document import EncodedWindow, StoredDocument
from services.settings import Settings
from services.talk.model import Chapter, Chaptering

WORDS = ("whale", "sea", "storm", "island", "captain", "anchor", "rope", "sail", "night", "fire")
# (passages add nothing to document scores here; another test covers these additions)
TALK = {"passage_in_lexical": 0}
SPEC = {"fields": {"year": "number"}, "talk": TALK, "window": {"pieces": 24, "overlap": 4}}
PATH = "/v1/indexes/talks/search"
QUERY = "the captain of the whale and the storm"


def episodes(count: int = 14) -> dict[str, dict[str, Any]]:
    """Return stored documents. Every fourth is not a talk and has no chapters."""
    rng, found = random.Random(3), {}
    for n in range(count):
        text, chapters = "", []
        for number in range(rng.randint(1, 5)):
            start = len(text)
            topic = rng.sample(WORDS, 3)
            text += "".join(f"The {rng.choice(topic)} and the {rng.choice(WORDS)}. " for _ in range(rng.randint(2, 9)))
            chapters.append(Chapter(f"On {topic[0]} {number}", start, len(text), float(start), float(len(text))))
        source = {"title": f"Episode {n}", "text": text, "state": "pending", "version": 1, "metadata": {"year": n}}
        found[f"e{n:02d}"] = source | {"made": [] if n % 4 == 3 else chapters}
    return found


EPISODES = episodes()
ENCODER = load_encoder("standin")


@pytest.fixture(scope="module")
def service(
    new_service: Callable[..., AbstractContextManager[tuple[httpx.Client, Settings]]],
) -> Iterator[tuple[httpx.Client, Settings]]:
    """Create a service of indexes with two shards."""
    with new_service(shards=2) as (client, settings):
        yield client, settings


@pytest.fixture(scope="module")
def talks(service: tuple[httpx.Client, Settings]) -> httpx.Client:
    """Create an index of talks whose documents are encoded as by a worker."""
    api, settings = service
    made = api.put("/v1/indexes/talks", json=SPEC)
    assert (made.status_code, made.json()["windows"]) == (201, "both")
    fill(settings, "talks", EPISODES)
    return api


def fill(settings: Settings, index: str, sources: Mapping[str, dict[str, Any]]) -> list[Write]:
    with closing(SyncSearchClient(settings)) as client:
        generation = read_generation(client.send(resolve_alias_call(IndexNames(settings.index_prefix), index)), index)
        writes = [_encoded(generation, ENCODER, name, dict(one)) for name, one in sources.items()]
        assert {verdict.outcome for verdict in write_bulk(client, writes, 1024**2, 10)} == {WriteOutcome.STORED}
        client.send(refresh_call(generation.physical))
    return writes


def _encoded(generation: Generation, encoder: Encoder, name: str, source: dict[str, Any]) -> Write:
    chaptering = Chaptering("tiling", source.pop("made"))
    stored = StoredDocument(name, raw_version(1), source)
    cut = cut_talk_windows(encoder, generation.window, stored, chaptering, TalkSettings.model_validate({}))
    assert isinstance(cut, WindowedDocument)
    vectors = encoder.encode(cut.windows)
    windows = [EncodedWindow(w.start, w.end, vector) for w, vector in zip(cut.windows, vectors, strict=True)]
    of_talk = chaptering if generation.spec.talk is not None else None
    return encoded_write(generation, stored, windows, chaptering=of_talk)


def search(api: httpx.Client, status: int = 200, **body: Any) -> dict[str, Any]:
    response = api.post(PATH, json={"query": QUERY} | body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def key(hit: Mapping[str, Any], unit: str) -> tuple[str, int]:
    return hit["id"], hit["chapter"]["number"] if unit == "chapter" else hit["passage"]["window"]


def ranking(api: httpx.Client, unit: str, **more: Any) -> list[tuple[tuple[str, int], float]]:
    return [(key(hit, unit), hit["score"]) for hit in search(api, unit=unit, **more)["hits"]]


def predicted(api: httpx.Client, unit: str, query: Mapping[int, float]) -> dict[tuple[str, int], float]:
    """Compute the sparse score of every chapter or passage that has one, from the stored vectors."""
    found = {}
    for name, one in EPISODES.items():
        stored = StoredDocument(name, 1, {name: value for name, value in one.items() if name != "made"})
        window = WindowSettings(pieces=24, overlap=4)
        cut = cut_talk_windows(
            ENCODER, window, stored, Chaptering("tiling", one["made"]), TalkSettings.model_validate({})
        )
        assert isinstance(cut, WindowedDocument)
        vectors = ENCODER.encode(cut.windows)
        shift = len(joined_text(one["title"], one["text"])) - len(one["text"])
        if unit == "passage":
            by_number = {at: [vector] for at, vector in enumerate(vectors)}
        else:
            by_number = {
                number: [
                    vector
                    for w, vector in zip(cut.windows, vectors, strict=True)
                    if chapter.start < w.end - shift <= chapter.end
                ]
                for number, chapter in enumerate(one["made"], 1)
            }
        for number, own in by_number.items():
            score = merge_max(own).dot(query)
            if score > 0:
                found[name, number] = score
    return found


@pytest.mark.parametrize("unit", ["chapter", "passage"])
def test_the_best_of_all_documents_are_found_in_order(talks: httpx.Client, unit: str) -> None:
    answer = search(talks, unit=unit, mode="sparse", size=100, explain=True)
    assert answer["unit"] == unit
    query = {piece["id"]: piece["weight"] for piece in answer["pieces"] if not piece["pruned"]}
    expected = predicted(talks, unit, query)
    found = {key(hit, unit): hit["score"] for hit in answer["hits"]}
    assert len(found) == len(answer["hits"]) == min(100, len(expected))
    least = min(found.values())
    assert found == pytest.approx({one: expected[one] for one in found}, rel=1e-5)
    assert not [one for one, score in expected.items() if score > least * 1.0001 and one not in found]
    for mode in ("sparse", "lexical"):
        whole = ranking(talks, unit, mode=mode, size=100)
        assert [score for _, score in whole] == sorted((score for _, score in whole), reverse=True)
        assert len({document for (document, _), _ in whole}) < len(whole), "several of one document"
        assert ranking(talks, unit, mode=mode, size=7) == whole[:7]
        second = search(talks, unit=unit, mode=mode, size=7, offset=7)
        assert [key(hit, unit) for hit in second["hits"]] == [one for one, _ in whole[7:14]]
        assert second["end"] is None
        last = search(talks, unit=unit, mode=mode, size=7, offset=len(whole) - 3)
        assert len(whole) < 100, "all there are"
        assert (len(last["hits"]), last["end"]) == (3, "matches")
        few = ranking(talks, unit, mode=mode, size=100, per_document=1)
        assert [document for (document, _), _ in few] == list(dict.fromkeys(document for (document, _), _ in whole))


@pytest.mark.parametrize("unit", ["chapter", "passage"])
def test_two_lists_together_give_no_more_of_a_document(talks: httpx.Client, unit: str) -> None:
    whole = ranking(talks, unit, size=100)
    for most in (1, 2):
        counts = Counter(document for (document, _), _ in ranking(talks, unit, size=100, per_document=most))
        assert set(counts) == {document for (document, _), _ in whole}
        assert max(counts.values()) == most


@pytest.mark.parametrize("unit", ["chapter", "passage"])
def test_a_hit_says_where_and_why(talks: httpx.Client, unit: str) -> None:
    for mode in ("sparse", "lexical", "hybrid"):
        answer = search(talks, unit=unit, mode=mode, explain=True, highlight=True, fields=["title", "text"])
        assert SearchAnswer.model_validate(answer).unit == unit
        hits = answer["hits"]
        assert len(hits) == 10
        for hit in hits:
            text, passage = hit["text"], hit["passage"]
            assert passage["text"] == text[passage["start"] : passage["end"]]
            chapters = EPISODES[hit["id"]]["made"]
            if chapters:
                number = hit["chapter"]["number"]
                assert hit["chapter"] == chapters[number - 1].as_json(number)
                assert hit["chapter"]["start"] <= passage["start"] < passage["end"] <= hit["chapter"]["end"]
            else:
                assert "chapter" not in hit
            for name in ("sparse", "lexical"):
                added = [why["contribution"] for why in hit["why"] if why["list"] == name]
                assert sum(added) == pytest.approx(hit["scores"].get(name, 0), rel=1e-5), (mode, name)
            if mode == "hybrid":
                assert sum(part["contribution"] for part in hit["fusion"].values()) == pytest.approx(hit["score"])
            if unit == "passage" and "sparse" in hit["scores"]:
                assert passage["score"] == pytest.approx(hit["scores"]["sparse"], rel=1e-5)
            marked = {text[span["start"] : span["end"]].lower() for span in hit["highlight"]["text"]}
            assert marked
            assert marked <= {"captain", "whale", "storm", "and", "the"}


@pytest.mark.parametrize("unit", ["chapter", "passage"])
def test_hybrid_is_the_two_lists_fused(talks: httpx.Client, unit: str) -> None:
    lists = {mode: dict(ranking(talks, unit, mode=mode, size=30)) for mode in ("sparse", "lexical")}
    scaled: dict[tuple[str, int], float] = {}
    for scores in lists.values():
        low, high = min(scores.values()), max(scores.values())
        for one, score in scores.items():
            scaled[one] = scaled.get(one, 0) + 0.5 * (score - low) / (high - low)
    expected = sorted(scaled.items(), key=lambda pair: (-pair[1], pair[0]))
    found = ranking(talks, unit, candidates=30, size=30)
    assert dict(found) == pytest.approx(dict(expected[:30]), abs=1e-5)
    assert ranking(talks, unit, candidates=30, size=10, offset=10) == found[10:20]


def test_filters_rules_and_fields_hold_for_chapters_and_passages(talks: httpx.Client) -> None:
    few = search(talks, unit="passage", filter={"field": "year", "range": {"lt": 4}}, size=50, fields=["metadata.year"])
    assert {hit["metadata"]["year"] for hit in few["hits"]} <= {0, 1, 2, 3}
    before = dict(ranking(talks, "chapter", mode="lexical", size=50, explain=True))
    rules = {
        "results": [{"match": "every", "hide": ["e00"], "pin": [{"id": "e01", "position": 1}]}],
        "boosts": [{"filter": {"field": "year", "is": 2}, "factor": 3}],
        "fields": {"title": 2},
    }
    put = talks.put("/v1/indexes/talks/curation", json={"rules": rules})
    assert put.status_code in (200, 201), put.text
    answer = search(talks, unit="chapter", mode="lexical", size=50, explain=True)
    after = {key(hit, "chapter"): hit["score"] for hit in answer["hits"]}
    assert before.keys() - after.keys() == {one for one in before if one[0] == "e00"}
    for one, score in after.items():
        assert score == pytest.approx(before[one] * (3 if one[0] == "e02" else 1), rel=1e-5)
    for hit in answer["hits"]:
        assert sum(why["contribution"] for why in hit["why"]) == pytest.approx(hit["score"], rel=1e-5)
    talks.put("/v1/indexes/talks/curation", json={"rules": {}}, headers={"if-match": "*"}).raise_for_status()
    skipped = {(one["kind"], one["reason"]) for one in answer["curation"]["skipped"]}
    assert skipped == {("results", "by_unit"), ("field", "by_unit")}


def test_documents_name_the_chapter_of_their_passage(talks: httpx.Client) -> None:
    for hit in search(talks, size=24)["hits"]:
        chapters = EPISODES[hit["id"]]["made"]
        assert ("chapter" in hit) == bool(chapters)
        if chapters:
            assert hit["chapter"]["start"] <= hit["passage"]["start"] < hit["chapter"]["end"]
    assert "unit" not in search(talks)
    assert "chapter" not in search(talks, passage=False)["hits"][0]
    by_address = talks.get(PATH, params={"q": QUERY, "unit": "chapter", "size": 3}).json()
    assert by_address["hits"] == search(talks, unit="chapter", size=3)["hits"]


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("cursor", {"cursor": "*"}),
    ("sort", {"sort": [{"field": "year"}]}),
    ("facets", {"facets": {"year": {"terms": 3}}}),
    ("rerank", {"rerank": {}}),
    ("feedback", {"feedback": {}}),
    ("like", {"like": ["e00"]}),
    ("two_phase", {"two_phase": True}),
    ("score_by", {"score_by": "window"}),
    ("query", {"query": " ", "filter": {"field": "year", "is": 1}}),
    ("per_document", {"unit": "document", "per_document": 2}),
]


def test_what_does_not_fit_is_refused_by_name(talks: httpx.Client) -> None:
    for member, body in REFUSED:
        refused = search(talks, 422, **({"unit": "chapter"} | body))
        assert (refused["code"], refused["member"]) == ("not_by_unit", member), body
        assert f"`{member}`" in refused["detail"]
    assert search(talks, 422, unit="sentence")["code"] == "invalid_request"
    assert search(talks, 422, unit="passage", per_document=101)["code"] == "invalid_request"
    across = talks.post("/v1/search", json={"indexes": ["talks"], "query": "x", "unit": "chapter"})
    assert across.json()["code"] == "not_across_indexes"


def test_an_index_without_talk_has_passages_by_meaning_where_it_keeps_their_vectors(
    service: tuple[httpx.Client, Settings],
) -> None:
    api, settings = service
    for name in ("nested", "merged"):
        assert api.put(f"/v1/indexes/{name}", json={"windows": name, "window": {"pieces": 24, "overlap": 4}}).is_success
    source = {name: value for name, value in EPISODES["e03"].items() if name != "metadata"}
    (written,) = fill(settings, "nested", {"e03": source})
    windows = len(written.source["windows"])

    def ask(index: str, **body: Any) -> Any:
        return api.post(f"/v1/indexes/{index}/search", json={"query": QUERY} | body).json()

    assert windows > 1
    assert len(ask("nested", unit="passage", mode="sparse")["hits"]) == windows
    assert (ask("nested", unit="passage")["code"], ask("nested", unit="passage")["member"]) == ("not_by_unit", "mode")
    assert ask("nested", unit="chapter", mode="sparse")["member"] == "unit"
    assert ask("merged", unit="passage", mode="sparse")["member"] == "unit"


def test_titles_and_the_best_parts_count_in_keyword_search_where_that_is_declared(
    talks: httpx.Client, service: tuple[httpx.Client, Settings]
) -> None:
    api, settings = service
    factors = {"titles_in_lexical": 0.75, "chapter_in_lexical": 0.5, "passage_in_lexical": 0.25}
    assert api.put("/v1/indexes/weighed", json=SPEC | {"talk": factors}).status_code == 201
    fill(settings, "weighed", EPISODES)

    def lexical(index: str, **more: Any) -> dict[str, dict[str, Any]]:
        body = {"query": QUERY, "mode": "lexical", "size": 50, "explain": True} | more
        answer = api.post(f"/v1/indexes/{index}/search", json=body)
        assert answer.status_code == 200, answer.text
        return {hit["id"]: hit for hit in answer.json()["hits"]}

    plain, weighed = lexical("talks"), lexical("weighed")
    best = {
        unit: {one: hit["score"] for one, hit in lexical("talks", unit=unit, per_document=1).items()}
        for unit in ("chapter", "passage")
    }
    assert plain.keys() == weighed.keys()
    for one, hit in weighed.items():
        given = {"chapter_title": 0.0, "chapter": 0.0, "passage": 0.0}
        for why in hit["why"]:
            for origin, share in (why["origins"] or {} if "origins" in why else {}).items():
                given[origin] += share
        assert given["chapter"] == pytest.approx(0.5 * best["chapter"].get(one, 0), rel=1e-4)
        assert given["passage"] == pytest.approx(0.25 * best["passage"][one], rel=1e-4)
        assert hit["score"] == pytest.approx(plain[one]["score"] + sum(given.values()), rel=1e-4)
        assert sum(why["contribution"] for why in hit["why"]) == pytest.approx(hit["score"], rel=1e-5)
        titles = " ".join(chapter.title for chapter in EPISODES[one]["made"])
        assert (given["chapter_title"] > 0) == bool({"captain", "whale", "storm"} & set(titles.split()))
    # chapters and passages have the same scores in other searches
    for unit in ("chapter", "passage"):
        for one, hit in lexical("weighed", unit=unit, per_document=1).items():
            assert hit["score"] == pytest.approx(best[unit][one], rel=1e-6)
    assert lexical("weighed", query="whale " * 201).keys() <= plain.keys()
