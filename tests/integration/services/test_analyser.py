"""OpenSearch analyses a text word by word as it does in one piece, in any script."""

import random
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import orjson
import pytest

from services.errors import SparsewellError
from services.index_spec import Language
from services.opensearch.analysis import analyse_terms_call, max_terms, read_analysed_terms, split_on_white_space
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.languages import LANGUAGES, lexical_analysis, lexical_field
from services.settings import Settings

ALPHABETS = (
    "abcXYZ 019._-'’\n\t#*",
    "éàß ñ\u0301\u0308a b",
    "中文字 あいカタ한글 ab1",
    "😀👩\u200d🇫🇷#️⃣*\u20e3 a1",
    "ไทยภาษา ab ລາວ",
    "русский текст ёй .'",
    "1\u202f0 \u00a0²½ª\u2028x\x1c\x85\u3000y",
    "अनुच्छेद עברית ا ع ب \" '",
    "".join(map(chr, random.Random(7).sample(range(1, 0xD800), 60))) + "  𠮷𝒳",
)


SAMPLES: dict[Language, str] = {
    "arabic": "الكتب الجديدة في المكتبة ٢٠٢٤",
    "armenian": "գրքերը նոր գրադարանում են",
    "basque": "liburu berriak liburutegian daude eta",
    "bengali": "নতুন বইগুলি গ্রন্থাগারে আছে ২০২৪",
    "brazilian": "os livros novos da biblioteca municipais",
    "bulgarian": "новите книги са в библиотеката",
    "catalan": "l'arbre i els llibres nous d'una biblioteca",
    "cjk": "東京都の図書館 and the ｶﾅ 한국어 도서관",
    "czech": "nových knihách v knihovnami jsou",
    "danish": "bøgerne ligger i bibliotekerne og husene",
    "dutch": "de fietsen en kinderen van de bibliotheken ei kind",
    "english": "The foxes' running dogs weren't John's and were quickly jumping",
    "estonian": "raamatud on raamatukogudes ja majades",
    "finnish": "kirjastoissa olevat kirjat ovat uusia",
    "french": "L'étoile du nord n'est pas aujourd'hui dans les bibliothèques nationales",
    "galician": "os libros novos das bibliotecas nacionais",
    "german": "Die Häuser der größten Bibliotheken mit neuen Büchern",
    "greek": "τα νέα βιβλία της βιβλιοθήκης ΕΙΝΑΙ καλά",
    "hindi": "नई किताबें पुस्तकालयों में हैं २०२४",
    "hungarian": "az új könyvek a könyvtárakban vannak",
    "indonesian": "buku-buku baru di perpustakaan yang membacakan",
    "irish": "an t-athair agus na hÉireann d'fhear nÉireannach",
    "italian": "dell'amico nell'estate i libri delle biblioteche",
    "latvian": "jaunās grāmatas ir bibliotēkās un mājās",
    "lithuanian": "naujos knygos yra bibliotekose ir namuose",
    "norwegian": "bøkene ligger i bibliotekene og husene",
    "persian": "کتاب\u200cهای جدید در کتابخانه است ۲۰۲۴",
    "portuguese": "os livros novos das bibliotecas nacionais",
    "romanian": "cărțile noi sunt în bibliotecile orașelor",
    "russian": "новые книги лежат в библиотеках и домах",
    "sorani": "کتێبەکان لە کتێبخانەکەدا ٢٠٢٤",
    "spanish": "los libros nuevos de las bibliotecas nacionales",
    "standard": "The foxes' running, weren't JOHN'S words",
    "swedish": "böckerna ligger i biblioteken och husen",
    "thai": "หนังสือใหม่อยู่ในห้องสมุด",
    "turkish": "Türkiye'nin yeni kitapları KÜTÜPHANELERDE ve IŞIK",
}


def named(settings: dict[str, Any], language: Language) -> dict[str, Any]:
    """Return settings of a language under names of its own, so that one index holds all languages."""
    named: dict[str, Any] = orjson.loads(orjson.dumps(settings).replace(b"sparsewell_", f"{language}_".encode()))
    return named


@pytest.fixture
def search(settings: Settings) -> Iterator[SyncSearchClient]:
    """Create an index with the analysers of all languages, and a field for each."""
    parts = [named(lexical_analysis(language), language) for language in LANGUAGES]
    analysis: dict[str, Any] = {
        kind: {name: value for part in parts for name, value in part[kind].items()} for kind in parts[0]
    }
    fields = {language: named(lexical_field(language), language) for language in LANGUAGES}
    with closing(SyncSearchClient(settings)) as client:
        if not has_thai(client):
            # the test server's Java lacks the boundaries of Thai words (docs/decisions/0010)
            analysis["analyzer"]["thai_lexical"]["tokenizer"] = "standard"
        body = {"settings": {"analysis": analysis}, "mappings": {"properties": fields}}
        client.send(Call("PUT", f"/{settings.index_prefix}", orjson.dumps(body)))
        yield client


def has_thai(client: SyncSearchClient) -> bool:
    try:
        client.send(Call("POST", "/_analyze", orjson.dumps({"tokenizer": "thai", "text": "x"})))
    except SparsewellError:
        return False
    return True


def analyse(client: SyncSearchClient, path: str, **body: Any) -> list[tuple[str, int, int, int]]:
    tokens = client.send(Call("POST", f"{path}/_analyze", orjson.dumps(body)))["tokens"]
    return [(token["token"], token["start_offset"], token["end_offset"], token["position"]) for token in tokens]


def test_each_language_has_the_terms_of_opensearch_and_their_folded_forms(
    search: SyncSearchClient, settings: Settings, subtests: pytest.Subtests
) -> None:
    assert SAMPLES.keys() == set(LANGUAGES)
    for language, text in SAMPLES.items():
        with subtests.test(language=language):
            pairs = "search_analyzer" in lexical_field(language)  # a text also has single characters
            how = {"analyzer": f"{language}_lexical_query"} if pairs else {"field": language}
            own = analyse(search, f"/{settings.index_prefix}", text=text, **how)
            if language == "standard":
                theirs = analyse(search, "", analyzer="standard", text=text)
            else:
                theirs = analyse(search, f"/{settings.index_prefix}", analyzer=language, text=text)
            assert set(theirs) <= set(own)
            places = {token[1:] for token in theirs}
            assert all(token[1:] in places for token in own)
            assert len(own) == len(theirs) or not text.isascii()


def test_queries_have_pairs_of_characters_and_texts_single_ones_as_well(
    search: SyncSearchClient, settings: Settings
) -> None:
    for language in ("standard", "cjk"):
        path, analyser = f"/{settings.index_prefix}", f"{language}_lexical_query"
        for text, expected in (("東京都", ["東京", "京都"]), ("都", ["都"]), ("한국어 が", ["한국", "국어", "が"])):
            assert [token[0] for token in analyse(search, path, analyzer=analyser, text=text)] == expected
        indexed = analyse(search, path, field=language, text="東京都 a")
        assert sorted(indexed, key=lambda token: token[1:3]) == [
            ("東", 0, 1, 0), ("東京", 0, 2, 0), ("京", 1, 2, 1), ("京都", 1, 3, 1), ("都", 2, 3, 2),
            *([("a", 4, 5, 3)] if language == "standard" else []),  # a stop word of OpenSearch's analyser `cjk`
        ]  # fmt: skip


def test_forms_of_a_word_share_their_folded_form(search: SyncSearchClient, settings: Settings) -> None:
    def terms(language: str, text: str) -> list[str]:
        return [token[0] for token in analyse(search, f"/{settings.index_prefix}", field=language, text=text)]

    for language in ("english", "standard"):
        assert terms(language, "cafe") == ["cafe"]
        for text in ("café", "CAFÉ", unicodedata.normalize("NFD", "Café")):
            assert terms(language, text) == ["café", "cafe"]
        assert terms(language, "Böhm") == ["böhm", "bohm"]
        assert terms(language, "L\u2019Étoile") == terms(language, "L'Étoile") == terms(language, "l'étoile")
        assert terms(language, "x\u0331") == ["x\u0331", "x"]  # Unicode has no composed letter
    assert terms("english", "naïve running") == ["naïv", "naiv", "run"]
    assert terms("standard", "Αθήνα") == ["αθήνα", "αθηνα"]
    for text in ("Ελλάδα", "йод", "が"):
        assert terms("standard", unicodedata.normalize("NFD", text)) == terms("standard", text)


@pytest.mark.parametrize("analyser", ["english", "standard", "french", "cjk"])
def test_words_alone_have_the_terms_that_they_have_in_their_text(
    search: SyncSearchClient, settings: Settings, analyser: str
) -> None:
    rng = random.Random(1)
    mixed = [first + second for first in ALPHABETS for second in rng.sample(ALPHABETS, 3)]
    texts = ["".join(rng.choice(letters) for _ in range(rng.randint(1, 200))) for letters in mixed]
    for text in ["x" * 600 + " dogs " + "é" * 600, *texts]:
        whole = Call("POST", f"/{settings.index_prefix}/_analyze", orjson.dumps({"field": analyser, "text": text}))
        units = [at for at, character in enumerate(text) for _ in range(1 + (character > "\uffff"))] + [len(text)]
        expected = [
            (token["token"], units[token["start_offset"]], units[token["end_offset"]])
            for token in search.send(whole)["tokens"]
        ]
        found = split_on_white_space(text)
        distinct = list(dict.fromkeys(word.text for word in found))
        call = analyse_terms_call(settings.index_prefix, analyser, distinct, 10)
        terms = read_analysed_terms(search.send(call), distinct) if distinct else {}
        one_by_one = [
            (term.text, word.start + term.start, word.start + term.end)
            for word in found
            for term in terms.get(word.text, ())
        ]
        assert one_by_one == expected, text
        for word, made in terms.items():
            assert len(made) <= max_terms(word), word
