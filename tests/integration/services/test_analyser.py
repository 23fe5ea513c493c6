"""OpenSearch analyses a text word by word as it does in one piece, in any script."""

import random
from collections.abc import Iterator
from contextlib import closing

import orjson
import pytest

from services.opensearch.analysis import analyse_terms_call, max_terms, read_analysed_terms, split_on_white_space
from services.opensearch.client import Call, SyncSearchClient
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


@pytest.fixture
def search(settings: Settings) -> Iterator[SyncSearchClient]:
    fields = {name: {"type": "text", "analyzer": name} for name in ("english", "standard")}
    with closing(SyncSearchClient(settings)) as client:
        client.send(Call("PUT", f"/{settings.index_prefix}", orjson.dumps({"mappings": {"properties": fields}})))
        yield client


@pytest.mark.parametrize("analyser", ["english", "standard"])
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
