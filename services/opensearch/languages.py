"""Analysers of lexical search: one for each language that OpenSearch brings, with folding of accents.

OpenSearch's own analysers cannot be extended, so each is rebuilt from its parts (the table `_CHAINS`), and a test
compares the terms of both. Three parts are added (docs/decisions/0255):

- A character filter composes decomposed letters (NFC) and makes one apostrophe of the typographic ones.
- A word with accents gives two terms at its place, its own and its folded form: `Böhm` gives `böhm` and `bohm`. A word
  without accents gives the same single term as before, so scores of plain English text stay.
- `standard` and `cjk` index Chinese, Japanese and Korean as pairs of characters and as single ones. A query is cut into
  pairs alone; a single character between other signs finds the single ones.

A search for `bohm` finds both forms. The similarity counts the second term in the length of the text
(`discount_overlaps` is off), so of two equal texts the one with the exact form is first, whichever form is searched.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from services.errors import InvalidInput
from services.index_spec import Language

LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
# Analyser of the words of a text as they are written, with their folded forms: for spelling.
WRITTEN_WORDS: Final = "sparsewell_written"
# Analyser of the folded forms alone, for the words of a misspelt query.
FOLDED_WORDS: Final = "sparsewell_folded"
_LEXICAL: Final = "sparsewell_lexical"
_LEXICAL_QUERY: Final = "sparsewell_lexical_query"
COMPOSE: Final = "sparsewell_compose"
_MARKS, _GREEK = "sparsewell_marks", "sparsewell_greek"
# `asciifolding` leaves combining marks and Greek. Lucene's lower case of Greek takes the accents from Greek letters.
_FOLD: Final = (_MARKS, "asciifolding", _GREEK)
# A character filter makes an ASCII apostrophe of each.
APOSTROPHES: Final = "\u2019\u2018\u02bc\uff07\u201b"
# Latin, Greek, Cyrillic and kana. Other marks on Latin letters are only removed from the folded form. The whole list of
# Unicode has 13,000 characters and would be in the cluster state once for each index; this one has about 6 KiB.
_COMPOSED_RANGES: Final = ((0xC0, 0x180), (0x386, 0x3CF), (0x400, 0x460), (0x1E80, 0x1EFA), (0x3041, 0x30FF))


@dataclass(frozen=True, slots=True)
class _Chain:
    """The filters of a language's analyser before and after folding, their settings, and the tokenizer."""

    before: tuple[str, ...] = ("lowercase", "stop")
    stems: tuple[str, ...] = ("stem",)
    stemmer: str = ""
    articles: str = ""  # the elided articles of a custom elision filter
    tokenizer: str = "standard"


_INDIC = ("lowercase", "decimal_digit", "indic_normalization")
_CHAINS: Final[dict[Language, _Chain]] = {
    "arabic": _Chain(("lowercase", "decimal_digit", "stop", "arabic_normalization")),
    "armenian": _Chain(),
    "basque": _Chain(),
    "bengali": _Chain((*_INDIC, "bengali_normalization", "stop")),
    "brazilian": _Chain(),
    "bulgarian": _Chain(),
    "catalan": _Chain(("elision", "lowercase", "stop"), articles="d l m n s t"),
    "cjk": _Chain(("cjk_width", "lowercase", "cjk_bigram", "stop"), stems=()),
    "czech": _Chain(),
    "danish": _Chain(),
    "dutch": _Chain(("lowercase", "stop", "dutch_override")),
    "english": _Chain(("possessive", "lowercase", "stop")),
    "estonian": _Chain(),
    "finnish": _Chain(),
    "french": _Chain(
        ("elision", "lowercase", "stop"),
        stemmer="light_french",
        articles="l m t qu n s j d c jusqu quoiqu lorsqu puisqu",
    ),
    "galician": _Chain(),
    "german": _Chain(("lowercase", "stop", "german_normalization"), stemmer="light_german"),
    "greek": _Chain(("own_lowercase", "stop")),
    "hindi": _Chain((*_INDIC, "hindi_normalization", "stop")),
    "hungarian": _Chain(),
    "indonesian": _Chain(),
    "irish": _Chain(("hyphenation", "elision", "own_lowercase", "stop"), articles="d m b"),
    "italian": _Chain(
        ("elision", "lowercase", "stop"),
        stemmer="light_italian",
        articles="c l all dall dell nell sull coll pell gl agl dagl degl negl sugl un m t s v d",
    ),
    "latvian": _Chain(),
    "lithuanian": _Chain(),
    "norwegian": _Chain(),
    "persian": _Chain(
        ("lowercase", "decimal_digit", "arabic_normalization", "persian_normalization", "stop"), stems=()
    ),
    "portuguese": _Chain(stemmer="light_portuguese"),
    "romanian": _Chain(),
    "russian": _Chain(),
    "sorani": _Chain(("sorani_normalization", "lowercase", "decimal_digit", "stop")),
    "spanish": _Chain(stemmer="light_spanish"),
    "standard": _Chain(("cjk_width", "lowercase", "cjk_bigram"), stems=()),
    "swedish": _Chain(),
    "thai": _Chain(("lowercase", "decimal_digit", "stop"), stems=(), tokenizer="thai"),
    "turkish": _Chain(("apostrophe", "own_lowercase", "stop")),
}


def lexical_field(language: Language) -> dict[str, Any]:
    """Return the mapping of a field of lexical search."""
    field = {"type": "text", "analyzer": _LEXICAL}
    return field | {"search_analyzer": _LEXICAL_QUERY} if "cjk_bigram" in _CHAINS[language].before else field


def lexical_analysis(language: Language) -> dict[str, Any]:
    """Return the `analysis` settings of an index: the analysers of its language, of written and of folded words."""
    chain, standard = _CHAINS[language], _CHAINS["standard"].before
    filters = _language_filters(language, chain)
    before = [f"sparsewell_{name}" if f"sparsewell_{name}" in filters else name for name in chain.before]
    variants = {
        "sparsewell_variants": _variants([f"sparsewell_{name}" for name in chain.stems]),
        "sparsewell_written_variants": _variants([]),
        _MARKS: {"type": "pattern_replace", "pattern": "[\u0300-\u036f]+", "replacement": ""},
        _GREEK: {"type": "lowercase", "language": "greek"},
    }
    character_filters = [COMPOSE]
    joiners = {}
    if language == "persian":  # a zero-width non-joiner separates the parts of a word
        joiners = {"sparsewell_joiners": {"type": "mapping", "mappings": ["\\u200C=>\\u0020"]}}
        character_filters += joiners
    analysers = {
        _LEXICAL: _analyser(chain.tokenizer, [*before, "sparsewell_variants"], character_filters),
        WRITTEN_WORDS: _analyser("standard", [*standard, "sparsewell_written_variants"], [COMPOSE]),
        FOLDED_WORDS: _analyser("standard", [*standard, *_FOLD], [COMPOSE]),
    }
    if "cjk_bigram" in before:
        filters["sparsewell_pairs"] = {"type": "cjk_bigram", "output_unigrams": True}
        analysers[_LEXICAL_QUERY] = analysers[_LEXICAL]
        indexed = ["sparsewell_pairs" if name == "cjk_bigram" else name for name in before]
        analysers[_LEXICAL] = _analyser(chain.tokenizer, [*indexed, "sparsewell_variants"], character_filters)
    return {"char_filter": COMPOSING | joiners, "filter": filters | variants, "analyzer": analysers}


def lexical_similarity() -> dict[str, Any]:
    """Return the `similarity` settings of an index: BM25 that counts folded forms in the length of a text."""
    return {"default": {"type": "BM25", "discount_overlaps": False}}


def refused_language(error: InvalidInput, language: Language) -> InvalidInput:
    """Return the error of an index that OpenSearch refused to create; a clear one if it lacks the language's words.

    Lucene finds Thai words with tables of the Java runtime, which a runtime without `jdk.localedata` lacks.
    """
    if language != "thai" or error.code != "opensearch_refused":
        return error
    return InvalidInput(
        "language_unavailable",
        "OpenSearch runs on a Java runtime without the word boundaries of Thai: run it on one with the module "
        "jdk.localedata, or declare another language.",
    )


def join_analyses(*parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return analysis settings that hold the character filters, filters, analysers and normalisers of all parts."""
    kinds = dict.fromkeys(kind for part in parts for kind in part)
    return {kind: {name: value for part in parts for name, value in part.get(kind, {}).items()} for kind in kinds}


def _analyser(tokenizer: str, filters: list[str], character_filters: list[str]) -> dict[str, Any]:
    return {"type": "custom", "tokenizer": tokenizer, "char_filter": character_filters, "filter": filters}


def _variants(stems: list[str]) -> dict[str, Any]:
    """Return the filter that gives the term of a word and of its folded form; equal terms are one."""
    own, folded = ", ".join(stems), ", ".join([*_FOLD, *stems])
    if not own:
        return {"type": "multiplexer", "filters": [folded], "preserve_original": True}
    return {"type": "multiplexer", "filters": [own, folded], "preserve_original": False}


def _language_filters(language: Language, chain: _Chain) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    if "stop" in chain.before:
        words = "_english_" if language == "cjk" else f"_{language}_"
        filters["sparsewell_stop"] = {"type": "stop", "stopwords": words}
    if chain.stems:
        filters["sparsewell_stem"] = {"type": "stemmer", "language": chain.stemmer or language}
    if chain.articles:
        filters["sparsewell_elision"] = {
            "type": "elision", "articles": chain.articles.split(), "articles_case": language != "irish",
        }  # fmt: skip
    if "possessive" in chain.before:
        filters["sparsewell_possessive"] = {"type": "stemmer", "language": "possessive_english"}
    if "own_lowercase" in chain.before:
        filters["sparsewell_own_lowercase"] = {"type": "lowercase", "language": language}
    if "hyphenation" in chain.before:
        filters["sparsewell_hyphenation"] = {"type": "stop", "stopwords": ["h", "n", "t"], "ignore_case": True}
    if "dutch_override" in chain.before:
        rules = ["fiets=>fiets", "bromfiets=>bromfiets", "ei=>eier", "kind=>kinder"]
        filters["sparsewell_dutch_override"] = {"type": "stemmer_override", "rules": rules}
    return filters


def _composed_characters() -> Iterator[str]:
    """Yield the rules that compose letters, and that replace apostrophes, in the form of a mapping filter."""
    for first, end in _COMPOSED_RANGES:
        for code in range(first, end):
            decomposed = unicodedata.normalize("NFD", chr(code))
            if len(decomposed) > 1 and unicodedata.normalize("NFC", decomposed) == chr(code):
                yield f"{decomposed}=>{chr(code)}"
    for apostrophe in APOSTROPHES:
        yield f"{apostrophe}=>'"


# The definition of the character filter `COMPOSE`.
COMPOSING: Final[dict[str, Any]] = {COMPOSE: {"type": "mapping", "mappings": list(_composed_characters())}}
