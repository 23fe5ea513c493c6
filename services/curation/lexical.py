"""What rules make of the keyword query: the same words where no rule holds, alternatives where one does."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.curation.matching import Span
from services.opensearch.queries import lexical_query


def curated_lexical(text: str, spans: Sequence[Span], also: Mapping[str, float]) -> dict[str, Any]:
    """The query of a text, cut where the spans are, and of words beside it (`also`: as in `lexical_query`).

    BM25 sums over words, so the parts together score what the whole would. Words and what stands for them are
    alternatives, of which a document counts the best (Lucene's DisjunctionMaxQuery): one that has them all is not about
    it twice. What is added is a phrase if it has several words: "infarction" alone is no synonym of "heart attack".
    """
    if not spans:
        return lexical_query(text, also)
    clauses: list[dict[str, Any]] = []
    at = 0
    for span in spans:
        if text[at : span.start].strip():
            clauses.append(lexical_query(text[at : span.start]))
        if span.factor:
            clauses.append(_alternatives(span))
        at = span.end
    if text[at:].strip():
        clauses.append(lexical_query(text[at:]))
    clauses += [_match(word, boost) for word, boost in also.items()]
    if not clauses:
        return {"match_none": {}}
    return clauses[0] if len(clauses) == 1 else {"bool": {"should": clauses}}


def _alternatives(span: Span) -> dict[str, Any]:
    own = _phrase(span.text, span.factor) if span.phrase else _match(span.text, span.factor)
    if not span.added:
        return own
    added = [_phrase(one.text, one.weight * span.factor) for one in span.added]
    return {"dis_max": {"queries": [own, *added]}}


def _match(text: str, boost: float) -> dict[str, Any]:
    return {"match": {"lexical": {"query": text} | _boost(boost)}}


def _phrase(text: str, boost: float) -> dict[str, Any]:
    return {"match_phrase": {"lexical": {"query": text} | _boost(boost)}}


def _boost(boost: float) -> dict[str, float]:
    return {} if boost == 1 else {"boost": boost}
