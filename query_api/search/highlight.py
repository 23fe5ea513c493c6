"""Highlights: which words of the title and of the best passage matched, in which list, and what matched beside them.

The sparse list's words are found here, by the tokeniser. Those of the keyword list need one request more: OpenSearch
analyses the distinct words of all hits, and what it made a term of that BM25 counted is marked.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from query_api.search.context import Hit, SearchContext, Source
from query_api.search.explain import common_pieces, word_shares
from query_api.search.marking import Match, Span, best_stretch, joined, piece_spans, term_spans
from query_api.search.places import own_text
from services.opensearch.analysis import Terms, Word, affordable, words

# Characters of titles and passages that one search looks at, best hits first: a hundred windows of ordinary length,
# about 0.1 s of the tokeniser.
MOST_CHARACTERS: Final = 200_000


@dataclass(frozen=True, slots=True)
class _Part:
    """A title or a passage, or as much of it as there was room for; it begins at the character `start` of its text."""

    text: str
    start: int
    words: Sequence[Word]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A document that was found: its parts that are marked, and what matched in it. `whole`: nothing is left out."""

    own_text: str
    title: _Part
    passage: _Part
    whole: bool
    sparse: Mapping[int, Match]
    lexical: Mapping[str, Match]

    @property
    def words(self) -> Iterable[Word]:
        return (*self.title.words, *self.passage.words)


async def highlight(
    context: SearchContext, found: Sequence[tuple[Hit, Source]], hits: Sequence[dict[str, Any]]
) -> None:
    """Adds `highlight` to each hit; `found` are what the hits were shaped from, and each hit has its passage."""
    room = MOST_CHARACTERS
    shown = []
    for (one, source), hit in zip(found, hits, strict=True):
        shown.append(_shown(context, one, source, hit["passage"], room))
        room -= len(shown[-1].title.text) + len(shown[-1].passage.text)
    terms = await _terms(context, shown)
    for document, hit in zip(shown, hits, strict=True):
        hit["highlight"] = _highlight(context, document, terms)


def _shown(context: SearchContext, one: Hit, source: Source, passage: Mapping[str, Any], room: int) -> _Shown:
    # (the keyword list of chapters and of passages has no titles of documents)
    title, text = source.get("title", "") if one.number is None else "", passage["text"]
    shown_title = title[:room]
    shown_text = text[: room - len(shown_title)]
    sparse, lexical = {}, {}
    if "sparse" in one.scores:
        common = common_pieces(context, one, source)
        for i, (query_weight, weight) in common.items():
            sparse[i] = Match("sparse", context.table.piece(i), query_weight * weight, i)
    if "lexical" in one.scores:
        for term, share in word_shares(one.shares).items():
            lexical[term] = Match("lexical", term, share)
    return _Shown(
        own_text=own_text(context, one, source),
        title=_Part(shown_title, 0, words(shown_title) if lexical else ()),
        passage=_Part(shown_text, passage["start"], words(shown_text) if lexical else ()),
        whole=len(shown_title) + len(shown_text) == len(title) + len(text),
        sparse=sparse,
        lexical=lexical,
    )


async def _terms(context: SearchContext, shown: Iterable[_Shown]) -> Terms:
    """The terms of the words that are shown, as far as one request can tell them. No word, no request."""
    distinct = affordable(dict.fromkeys(word.text for one in shown for word in one.words))
    if not distinct:
        return {}
    context.watch.lap("shape")
    found = await context.engine.terms(context.generation.physical, "lexical", distinct)
    context.watch.lap("opensearch")
    return {word: found.get(word, ()) for word in distinct}


def _highlight(context: SearchContext, one: _Shown, terms: Terms) -> dict[str, Any]:
    in_title, in_passage = (_marked(context, one, part, terms) for part in (one.title, one.passage))
    answer: dict[str, Any] = {"title": in_title, "text": in_passage}
    characters = context.request.highlight_characters
    if characters is not None:
        start, end = best_stretch(one.passage.text, in_passage, characters)
        answer["text"] = [span for span in in_passage if start <= span.start and span.end <= end]
        answer["excerpt"] = {
            "text": one.passage.text[start:end],
            "start": start + one.passage.start,
            "end": end + one.passage.start,
        }
    for name, shift in (("title", 0), ("text", one.passage.start)):
        answer[name] = [_span(span, shift) for span in answer[name]]
    answer |= _unmarked(context, one, [*in_title, *in_passage])
    answer["complete"] = one.whole and all(word.text in terms for word in one.words)
    return answer


def _marked(context: SearchContext, one: _Shown, part: _Part, terms: Terms) -> list[Span]:
    pieces = context.table.spans(part.text) if one.sparse else ()
    return joined([*piece_spans(part.text, pieces, one.sparse), *term_spans(part.words, terms, one.lexical)])


def _span(span: Span, shift: int) -> dict[str, Any]:
    matches = [_match(match) for match in span.matches]
    return {"start": span.start + shift, "end": span.end + shift, "matches": matches}


def _match(match: Match) -> dict[str, Any]:
    shown = {"list": match.list, "piece": match.piece, "contribution": match.contribution}
    return shown if match.id is None else shown | {"id": match.id}


def _unmarked(context: SearchContext, one: _Shown, spans: Iterable[Span]) -> dict[str, Any]:
    """What matched beside the marked words: pieces that the encoder added, and words of other parts of the document."""
    marked = {match for span in spans for match in span.matches}
    left = [match for match in (*one.sparse.values(), *one.lexical.values()) if match not in marked]
    left.sort(key=lambda match: -match.contribution)
    pieces = [match.id for match in left if match.id is not None]
    own = context.table.occurring(pieces, one.own_text) if pieces else set()
    return {
        "expansions": [_match(match) for match in left if match.id is not None and match.id not in own],
        "elsewhere": [_match(match) for match in left if match.id is None or match.id in own],
    }
