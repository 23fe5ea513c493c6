"""What rules make of the keyword query: the same words where no rule holds, alternatives where one does."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.curation.matching import Span
from services.opensearch.queries import KeywordField, lexical_query


def curated_lexical(
    text: str,
    spans: Sequence[Span],
    also: Mapping[str, float],
    title: float = 1.0,
    field: KeywordField = "lexical",
) -> dict[str, Any]:
    """The query of a text, cut where the spans are, and of words beside it (`also`: as in `lexical_query`).

    BM25 sums over words, so the parts together score what the whole would. Words and what stands for them are
    alternatives, of which a document counts the best (Lucene's DisjunctionMaxQuery): one that has them all is not about
    it twice. What is added is a phrase if it has several words: "infarction" alone is no synonym of "heart attack".

    `title`: how often the words of titles count. They are counted once with the text; what is above 1 is a factor of
    BM25 over titles alone, which finds no document that the text's words do not find. Of another `field` than the
    documents' own, titles do not count.
    """
    words = _over(field, text, spans, also)
    if title == 1 or field != "lexical":
        return words
    of_titles = {"bool": {"should": [_over("title_words", text, spans, also)], "boost": title - 1}}
    return {"bool": {"should": [words, of_titles]}}


def _over(field: KeywordField, text: str, spans: Sequence[Span], also: Mapping[str, float]) -> dict[str, Any]:
    if not spans:
        return lexical_query(text, also, field)
    clauses: list[dict[str, Any]] = []
    at = 0
    for span in spans:
        if text[at : span.start].strip():
            clauses.append(lexical_query(text[at : span.start], field=field))
        if span.factor:
            clauses.append(_alternatives(field, span))
        at = span.end
    if text[at:].strip():
        clauses.append(lexical_query(text[at:], field=field))
    clauses += [_match(field, word, boost) for word, boost in also.items()]
    if not clauses:
        return {"match_none": {}}
    return clauses[0] if len(clauses) == 1 else {"bool": {"should": clauses}}


def _alternatives(field: KeywordField, span: Span) -> dict[str, Any]:
    own = _phrase(field, span.text, span.factor) if span.phrase else _match(field, span.text, span.factor)
    if not span.added:
        return own
    added = [_phrase(field, one.text, one.weight * span.factor) for one in span.added]
    return {"dis_max": {"queries": [own, *added]}}


def _match(field: KeywordField, text: str, boost: float) -> dict[str, Any]:
    return {"match": {field: {"query": text} | _boost(boost)}}


def _phrase(field: KeywordField, text: str, boost: float) -> dict[str, Any]:
    return {"match_phrase": {field: {"query": text} | _boost(boost)}}


def _boost(boost: float) -> dict[str, float]:
    return {} if boost == 1 else {"boost": boost}
