"""Keyword search folds case, accents, apostrophes and Unicode forms in each language; exact forms come first."""

import secrets
import unicodedata
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from services.index_spec import Language
from services.settings import Settings
from tests.integration.older_index import create_older_index

CAFES = {
    "plain": "the cafe opened",
    "accent": "the café opened",
    "parts": "the cafe\u0301 opened",
    "capitals": "A CAFÉ",
}
# By language: documents, and the ids that each query finds. Equal documents are in one set, better ones come first.
FOUND: dict[Language, tuple[Mapping[str, str], Mapping[str, list[set[str]]]]] = {
    "english": (
        {"star": "L'Étoile", "typographic": "L\u2019Étoile", "letter": "L\u02bcÉtoile", "flat": "L'Etoile"},
        {
            "L\u2019Étoile": [{"star", "typographic", "letter"}, {"flat"}],
            "l\u02bce\u0301toile": [{"star", "typographic", "letter"}, {"flat"}],
            "L'ETOILE": [{"flat"}, {"star", "typographic", "letter"}],
        },
    ),
    "french": (
        {"star": "L'Étoile", "curly": "L\u2019étoile", "letter": "l\u02bcétoiles", "cote": "cote", "côte": "côte"},
        {
            "etoile": [{"star", "curly", "letter"}],  # the stemmer removes the accents of longer words
            "ÉTOILES": [{"star", "curly", "letter"}],
            "côte": [{"côte"}, {"cote"}],
            "cote": [{"cote"}, {"côte"}],
        },
    ),
    "german": (
        {"sharp": "Die Straße", "double": "Die Strasse", "umlaut": "Das Haus", "plural": "Die Häuser"},
        {
            "strasse": [{"sharp", "double"}],
            "STRASSE": [{"sharp", "double"}],
            "Straße": [{"sharp", "double"}],
            "hauser": [{"umlaut", "plural"}],
            "Häuser": [{"umlaut", "plural"}],
            "Haeuser": [{"umlaut", "plural"}],
        },
    ),
    "spanish": (
        {"year": "el año", "plain": "el ano", "song": "las canciones", "one": "una canción"},
        {"año": [{"year"}, {"plain"}], "ano": [{"plain"}, {"year"}], "cancion": [{"song", "one"}]},
    ),
    "turkish": (
        {"dotless": "IŞIK", "lower": "ışık", "ascii": "isik", "dotted": "İstanbul'da", "city": "istanbul"},
        {
            "ışık": [{"dotless", "lower"}, {"ascii"}],
            "isik": [{"ascii"}, {"dotless", "lower"}],
            "İSTANBUL": [{"dotted", "city"}],
        },
    ),
    "greek": (
        {"accent": "Η Αθήνα", "capitals": "ΑΘΗΝΑ", "parts": unicodedata.normalize("NFD", "Αθήνα")},
        {"αθηνα": [{"accent", "capitals", "parts"}], "Αθήνα": [{"accent", "capitals", "parts"}]},
    ),
    "arabic": (
        {"vowels": "كِتَاب", "plain": "كتاب", "article": "الكتاب", "hamza": "أحمد"},
        {"كتاب": [{"vowels", "plain", "article"}], "احمد": [{"hamza"}]},
    ),
    "hindi": (
        {"books": "किताबें", "book": "किताब", "year": "२०२४"},
        {"किताब": [{"books", "book"}], "2024": [{"year"}]},
    ),
    "russian": ({"new": "новые книги", "other": "йод"}, {"книга": [{"new"}], "и\u0306од": [{"other"}], "иод": []}),
    "standard": (
        {
            "tokyo": "東京都の図書館", "kyoto": "京都の図書館", "east": "東", "korean": "한국어", "wide": "ｃａｆé",
            "greek": "Αθήνα",
        },
        {
            "東京": [{"tokyo"}],  # a pair, not its characters
            "京都": [{"kyoto"}, {"tokyo"}],
            "東": [{"east"}, {"tokyo"}],
            "국어": [{"korean"}],
            "CAFE": [{"wide"}],
            "αθηνα": [{"greek"}],
        },
    ),
    "cjk": (
        {"tokyo": "東京都", "kyoto": "京都"},
        {"東京": [{"tokyo"}], "京都": [{"kyoto"}, {"tokyo"}], "都": [{"kyoto"}, {"tokyo"}]},
    ),
}  # fmt: skip


def make(api: httpx.Client, language: str, texts: Mapping[str, str], index: str = "") -> str:
    """Create an index with the texts by id, and return its path."""
    path = f"/v1/indexes/{index or f'folded{secrets.token_hex(4)}'}"
    if not index:
        api.put(path, json={"language": language}).raise_for_status()
    documents = [{"id": key, "text": text} for key, text in texts.items()]
    job = api.post(f"{path}/documents", json=documents).raise_for_status().json()["job"]["id"]
    assert api.get(f"/v1/jobs/{job}").json()["accepted"] == len(texts)  # the job status refreshes the index
    return path


def search(api: httpx.Client, path: str, query: str, **options: Any) -> list[dict[str, Any]]:
    body = {"query": query, "mode": "lexical", "size": 100} | options
    hits: list[dict[str, Any]] = api.post(f"{path}/search", json=body).raise_for_status().json()["hits"]
    return hits


def ranked(api: httpx.Client, path: str, query: str) -> list[set[str]]:
    """Return the ids of the hits, best first; hits of one score are in one set."""
    groups: dict[float, set[str]] = {}
    for hit in search(api, path, query):
        groups.setdefault(hit["score"], set()).add(hit["id"])
    return [groups[score] for score in sorted(groups, reverse=True)]


@pytest.mark.parametrize("language", FOUND)
def test_forms_of_a_word_are_found_and_the_exact_one_is_first(api: httpx.Client, language: Language) -> None:
    texts, expected = FOUND[language]
    path = make(api, language, texts)
    assert {query: ranked(api, path, query) for query in expected} == dict(expected)


@pytest.mark.parametrize("language", ["english", "standard", "italian", "turkish"])
def test_accents_case_and_unicode_forms(api: httpx.Client, language: str) -> None:
    path = make(api, language, CAFES | {"bohm": "Bohm wrote", "böhm": "Böhm wrote", "capitals": "the CAFÉ opened"})
    accents = {"accent", "parts", "capitals"}
    for query in ("café", "CAFÉ", "cafe\u0301"):
        assert ranked(api, path, query) == [accents, {"plain"}], query
    for query in ("cafe", "Cafe"):
        assert ranked(api, path, query) == [{"plain"}, accents], query
    assert ranked(api, path, "Bohm") == [{"bohm"}, {"böhm"}]
    assert ranked(api, path, "Böhm") == [{"böhm"}, {"bohm"}]


def test_marks_and_contributions_are_of_the_original_characters(api: httpx.Client) -> None:
    text = "👩\u200d👧 Un cafe\u0301, L\u2019E\u0301toile; İzmir x\u0331 ｂａré."
    path = make(api, "english", {"marked": text})
    for query, words in (
        ("cafe", ["cafe\u0301"]),
        ("café", ["cafe\u0301"]),
        ("l'étoile", ["L\u2019E\u0301toile"]),
        ("LETOILE l\u02bcetoile", ["L\u2019E\u0301toile"]),
        ("izmir X", ["İzmir", "x\u0331"]),
        ("bare", ["ｂａré"]),
    ):
        (hit,) = search(api, path, query, highlight=True, explain=True)
        spans = hit["highlight"]["text"]
        assert [text[span["start"] : span["end"]] for span in spans] == words, query
        assert hit["highlight"]["elsewhere"] == []
        assert sum(why["contribution"] for why in hit["why"]) == pytest.approx(hit["score"], rel=1e-6)
        assert all(why["piece"].isascii() for why in hit["why"])


def test_words_of_greek_and_of_pairs_are_marked_and_explained(api: httpx.Client) -> None:
    texts = {"accent": "Η Αθήνα", "plain": "Η Αθηνα", "pairs": "東京都の図書館、東"}
    path = make(api, "standard", texts)
    for query, words in (
        ("Αθήνα", {"accent": ["Αθήνα"], "plain": ["Αθηνα"]}),
        ("αθηνα", {"accent": ["Αθήνα"], "plain": ["Αθηνα"]}),
        ("図書館", {"pairs": ["図書館"]}),
        ("東", {"pairs": ["東", "東"]}),
    ):
        hits = search(api, path, query, highlight=True, explain=True)
        marked = {
            hit["id"]: [texts[hit["id"]][span["start"] : span["end"]] for span in hit["highlight"]["text"]]
            for hit in hits
        }
        assert marked == words
        for hit in hits:
            assert sum(why["contribution"] for why in hit["why"]) == pytest.approx(hit["score"], rel=1e-6)


def test_question_words_are_left_out_in_every_form(api: httpx.Client) -> None:
    path = make(api, "english", {"noise": "What's don't how do what's", "subject": "Pause the program."})
    for apostrophe in ("'", "\u2019", "\u02bc"):
        assert ranked(api, path, f"What{apostrophe}s how don{apostrophe}t pause") == [{"subject"}]


def test_a_language_that_opensearch_lacks_is_refused_with_the_list(api: httpx.Client) -> None:
    answer = api.put("/v1/indexes/klingon", json={"language": "klingon"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    (error,) = answer.json()["errors"]
    assert error["where"] == "body.language"
    assert all(name in error["message"] for name in ("arabic", "german", "standard", "thai", "turkish"))


def test_thai_words_are_found_or_the_runtime_is_named(api: httpx.Client) -> None:
    """The test server's Java may lack the boundaries of Thai words."""
    answer = api.put("/v1/indexes/thai", json={"language": "thai"})
    if answer.status_code == 422:
        assert answer.json()["code"] == "language_unavailable"
        assert "jdk.localedata" in answer.json()["detail"]
    else:
        path = make(api, "thai", {"library": "หนังสือใหม่อยู่ในห้องสมุด"}, index="thai")
        assert ranked(api, path, "หนังสือ") == [{"library"}]


def test_an_index_of_an_older_version_keeps_its_analysis(api: httpx.Client, settings: Settings) -> None:
    """OpenSearch's own analysers remain, and search, marks and corrections work with them."""
    name = f"older{secrets.token_hex(4)}"
    path = f"/v1/indexes/{name}"
    create_older_index(api, settings, name)
    make(api, "english", CAFES | {"whales": "running whales"}, index=name)
    assert api.get(path).json()["folds"] is False
    assert ranked(api, path, "cafe") == [{"plain"}]
    assert {hit["id"] for hit in search(api, path, "café")} == {"accent", "capitals"}
    (hit,) = search(api, path, "run", highlight=True)
    assert [(span["start"], span["end"]) for span in hit["highlight"]["text"]] == [(0, 7)]
    answer = api.post(f"{path}/search", json={"query": "whalse", "mode": "lexical"}).json()
    assert answer["did_you_mean"]["query"] == "whales"
