"""Compare the scores of keyword search with BM25 from the definition, in several languages, with folded forms.

OpenSearch analyses the texts; the scores are computed here. A place of a text may have two terms: a word with accents
and its folded form, or a character and a pair. Sources, Lucene 10: BM25Similarity (k1 1.2, b .75) and SynonymQuery: the
forms of a query's word are one term, with the sum of their frequencies and the larger document frequency. The length of
a text counts every term (`discount_overlaps` is off). Lengths below 40 are stored exactly (SmallFloat).
"""

import math
import random
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import orjson
import pytest

from services.index_spec import Language
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import refresh_call
from services.opensearch.queries import lexical_query
from tests.congruence.node_index import NodeIndex, fresh_index

K1, B = 1.2, 0.75
# Lucene computes in float32.
RELATIVE = 1e-5
LONGEST = 39
# One text in each list has the words without accents or in another case; words that are stop words are among them.
WORDS: dict[Language, str] = {
    "english": "café cafe CAFÉ Böhm bohm the running runs naïve naive L\u2019Étoile L'etoile x\u0331 sea",
    "french": "l'étoile étoiles etoile côte cote côté cafés café le où ou été ete mer",
    "german": "Straße strasse Häuser Haus Haeuser hauser Böhm Boehm die über uber café cafe Meer",
    "spanish": "año ano canción canciones cancion el más mas mar niño nino",
    "turkish": "ışık isik IŞIK İstanbul'da istanbul çok cok deniz göl gol",
    "greek": "Αθήνα αθηνα ΑΘΗΝΑ θάλασσα θαλασσα και café cafe",
    "russian": "книга книги ёж еж йод и café море",
    "standard": "東京都 京都 東 図書館 Αθήνα αθηνα café cafe ｶﾞ が sea the",
    "cjk": "東京都 京都 東 図書館 ｶﾞ が sea the café",
}


def expected_scores(
    query: Sequence[Sequence[str]], texts: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, tuple[float, int]]:
    """Return the score of each text that has a term of the query. Texts and query are lists of the terms by place."""
    counts = {name: Counter(term for place in places for term in place) for name, places in texts.items()}
    lengths = {name: sum(held.values()) for name, held in counts.items()}
    filled = [name for name, length in lengths.items() if length]
    mean = sum(lengths.values()) / len(filled)
    scores = dict.fromkeys(texts, 0.0)
    for forms in query:
        having = max(sum(form in held for held in counts.values()) for form in forms)
        rarity = math.log(1 + (len(filled) - having + 0.5) / (having + 0.5))
        for name, held in counts.items():
            if found := sum(held[form] for form in forms):
                norm = K1 * (1 - B + B * lengths[name] / mean)
                scores[name] += rarity * found / (found + norm)
    return {name: score for name, score in scores.items() if score}


def analyse(index: NodeIndex, text: str, **how: str) -> list[list[str]]:
    """Return the terms of each place of a text."""
    call = Call("POST", f"/{index.generation.physical}/_analyze", orjson.dumps({"text": text} | how))
    places: dict[int, list[str]] = {}
    for token in index.client.send(call)["tokens"]:
        places.setdefault(token["position"], []).append(token["token"])
    return list(places.values())


@pytest.mark.parametrize("language", WORDS)
def test_keyword_scores_are_bm25_of_words_and_their_folded_forms(
    search_client: SyncSearchClient, language: Language
) -> None:
    rng = random.Random(language)
    words = WORDS[language].split()
    words += [unicodedata.normalize("NFD", word) for word in words if not word.isascii()]
    texts = {str(n): " ".join(rng.choices(words, k=rng.randint(1, 9))) for n in range(60)}
    with fresh_index(search_client, language=language) as index:
        lines = [
            line
            for name, text in texts.items()
            for line in ({"index": {"_id": name}}, {"text": text, "state": "encoded"})
        ]
        body = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        answer = search_client.send(Call("POST", f"/{index.generation.physical}/_bulk", body, ndjson=True))
        assert not answer["errors"]
        search_client.send(refresh_call(index.generation.physical))
        analysed = {name: analyse(index, text, field="lexical") for name, text in texts.items()}
        assert max(sum(map(len, places)) for places in analysed.values()) <= LONGEST
        how = {"analyzer": "sparsewell_lexical_query"} if language in {"standard", "cjk"} else {"field": "lexical"}
        queries = [*words, *(" ".join(rng.sample(words, 2)) for _ in range(20))]
        two_forms = matched = 0
        for query, hits in zip(queries, index.ask([lexical_query(each) for each in queries], 100), strict=True):
            forms = analyse(index, query, **how)
            expected = expected_scores(forms, analysed)
            assert dict(hits) == pytest.approx(expected, rel=RELATIVE), (query, forms)
            two_forms += any(len(place) > 1 for place in forms)
            matched += len(hits)
        assert matched > len(queries)
        assert two_forms or language in {"russian", "greek"}
