"""Highlights: which words of the title and of the best passage matched, in which list, and what matched beside them.

The sparse list's words are found here, by the tokeniser. Those of the keyword list need one request more: OpenSearch
analyses the distinct words of all hits, and what it made a term of that BM25 counted is marked.

Which words of a text matched: pieces of the sparse list and terms of the keyword list as stretches of it. Pure.

All offsets count characters (code points), the end exclusive.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from query_api.search.context import Hit, SearchContext, Source
from query_api.search.hits import matched_pieces, word_shares
from query_api.search.passages import encoded_text
from services.opensearch.analysis import TermsByWord, TextWord, limit_words, split_on_white_space

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")
_SPACE = re.compile(r"\s+")
# A piece is widened by so many characters at most: a megabyte of letters is no word.
_MAX_WORD_CHARACTERS = 100

ListName = Literal["sparse", "lexical"]


@dataclass(frozen=True, slots=True)
class Match:
    """What a piece or a term added to the score of its list. `id` is the piece's, None for a term."""

    list: ListName
    piece: str
    contribution: float
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text and what matched there, largest contribution first."""

    start: int
    end: int
    matches: tuple[Match, ...]


def piece_spans(text: str, pieces: Iterable[tuple[int, int, int]], matches: Mapping[int, Match]) -> list[Span]:
    """The words of `text` of which some piece matched, whole; `pieces` are (id, start, end) of all its pieces."""
    found = []
    for i, start, end in pieces:
        match = matches.get(i)
        if match is not None and (around := _whole_word(text, start, end)) is not None:
            found.append(Span(*around, (match,)))
    return found


def term_spans(words: Iterable[TextWord], terms: TermsByWord, matches: Mapping[str, Match]) -> list[Span]:
    """The stretches of a text of which the analyser made a term that matched."""
    found = []
    for word in words:
        for term in terms.get(word.text, ()):
            match = matches.get(term.text)
            if match is not None:
                found.append(Span(word.start + term.start, word.start + term.end, (match,)))
    return found


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, those that overlap as one, each match once. So a word that both lists found is one span."""
    result: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if result and span.start < result[-1].end:
            last = result.pop()
            matches = sorted({*last.matches, *span.matches}, key=lambda match: (-match.contribution, match.list))
            result.append(Span(last.start, max(last.end, span.end), tuple(matches)))
        else:
            result.append(span)
    return result


def best_excerpt(text: str, spans: Sequence[Span], characters: int) -> tuple[int, int]:
    """The stretch of at most `characters` that shows most of what matched, start and end.

    Each list counts as much as the other and each match once. What room is left goes before it, from where a
    sentence begins, and behind it.
    """
    if len(text) <= characters:
        return 0, len(text)
    shares = _list_shares(spans)
    best, first, last = 0.0, 0, 0
    for at, span in enumerate(spans):
        value, seen = 0.0, set[Match]()
        for other in spans[at:]:
            if other.end - span.start > characters:
                break
            value += sum(shares[match] for match in other.matches if match not in seen)
            seen.update(other.matches)
            if value > best + 1e-9:
                best, first, last = value, span.start, other.end
    begin = _excerpt_start(text, max(0, last - characters), first)
    return begin, _excerpt_end(text, max(last, begin), min(len(text), begin + characters))


def _whole_word(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The piece with the letters, digits and marks around it; of a piece of white space nothing is left."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start == end:
        return None
    if _in_word(text[start]):
        earliest = max(0, start - _MAX_WORD_CHARACTERS)
        while start > earliest and _in_word(text[start - 1]):
            start -= 1
    latest = min(len(text), end + _MAX_WORD_CHARACTERS)
    while end < latest and (_is_mark(text[end]) or (_in_word(text[end - 1]) and _in_word(text[end]))):
        end += 1
    return start, end


def _in_word(character: str) -> bool:
    """Letters and digits of scripts that put spaces between words; others have no end of a word that one could see."""
    return (character.isalnum() or _is_mark(character)) and not _unspaced(character)


def _is_mark(character: str) -> bool:
    return character > "\u02ff" and unicodedata.category(character)[0] == "M"


def _unspaced(character: str) -> bool:
    """Thai and Lao, Myanmar, Khmer; kana and Han with their extensions."""
    return (
        "\u0e00" <= character < "\u0f00"
        or "\u1000" <= character < "\u10a0"
        or "\u1780" <= character < "\u1800"
        or "\u2e80" <= character < "\ua000"
        or "\uf900" <= character < "\ufb00"
        or "\U0001b000" <= character < "\U0001b170"
        or "\U00020000" <= character < "\U00040000"
    )


def _list_shares(spans: Iterable[Span]) -> dict[Match, float]:
    """What each match is of all that matched of its list in these spans."""
    every = {match for span in spans for match in span.matches}
    totals: dict[str, float] = {}
    for match in every:
        totals[match.list] = totals.get(match.list, 0.0) + match.contribution
    return {match: match.contribution / totals[match.list] if totals[match.list] > 0 else 0.0 for match in every}


def _excerpt_start(text: str, earliest: int, latest: int) -> int:
    """The last beginning of a sentence or line between two places, else of a word in their second half."""
    sentences = [match.end() for match in _SENTENCE.finditer(text, earliest, latest)]
    if sentences or earliest == 0:
        return sentences[-1] if sentences else 0
    word = _SPACE.search(text, (earliest + latest) // 2, latest)
    return word.end() if word else latest


def _excerpt_end(text: str, earliest: int, latest: int) -> int:
    """The last end of a word between two places, else the second of them."""
    if latest == len(text) or text[latest].isspace():
        return latest
    gap = max(text.rfind(" ", earliest, latest), text.rfind("\n", earliest, latest))
    return latest if gap < 0 else gap


# Characters of titles and passages that one search looks at, best hits first: a hundred windows of ordinary length,
# about 0.1 s of the tokeniser.
MAX_CHARACTERS: Final = 200_000


@dataclass(frozen=True, slots=True)
class _TextPart:
    """A title or a passage, or as much of it as there was room for; it begins at the character `start` of its text."""

    text: str
    start: int
    words: Sequence[TextWord]


@dataclass(frozen=True, slots=True)
class _MatchedHit:
    """A document that was found: its parts that are marked, and what matched in it. `whole`: nothing is left out."""

    encoded_text: str
    title: _TextPart
    passage: _TextPart
    whole: bool
    sparse: Mapping[int, Match]
    lexical: Mapping[str, Match]

    @property
    def words(self) -> Iterable[TextWord]:
        return (*self.title.words, *self.passage.words)


async def highlight(
    context: SearchContext, found: Sequence[tuple[Hit, Source]], hits: Sequence[dict[str, Any]]
) -> None:
    """Adds `highlight` to each hit; `found` are what the hits were shaped from, and each hit has its passage."""
    room = MAX_CHARACTERS
    shown = []
    for (one, source), hit in zip(found, hits, strict=True):
        shown.append(_matched_hit(context, one, source, hit["passage"], room))
        room -= len(shown[-1].title.text) + len(shown[-1].passage.text)
    terms = await _analyse_words(context, shown)
    for document, hit in zip(shown, hits, strict=True):
        hit["highlight"] = _highlight_member(context, document, terms)


def _matched_hit(
    context: SearchContext, one: Hit, source: Source, passage: Mapping[str, Any], room: int
) -> _MatchedHit:
    # (the keyword list of chapters and of passages has no titles of documents)
    title, text = source.get("title", "") if one.number is None else "", passage["text"]
    shown_title = title[:room]
    shown_text = text[: room - len(shown_title)]
    sparse, lexical = {}, {}
    if "sparse" in one.scores:
        common = matched_pieces(context, one, source)
        for i, (query_weight, weight) in common.items():
            sparse[i] = Match("sparse", context.table.piece(i), query_weight * weight, i)
    if "lexical" in one.scores:
        for term, share in word_shares(one.shares).items():
            lexical[term] = Match("lexical", term, share)
    return _MatchedHit(
        own_text=encoded_text(context, one, source),
        title=_TextPart(shown_title, 0, split_on_white_space(shown_title) if lexical else ()),
        passage=_TextPart(shown_text, passage["start"], split_on_white_space(shown_text) if lexical else ()),
        whole=len(shown_title) + len(shown_text) == len(title) + len(text),
        sparse=sparse,
        lexical=lexical,
    )


async def _analyse_words(context: SearchContext, shown: Iterable[_MatchedHit]) -> TermsByWord:
    """The terms of the words that are shown, as far as one request can tell them. No word, no request."""
    distinct = limit_words(dict.fromkeys(word.text for one in shown for word in one.words))
    if not distinct:
        return {}
    context.watch.lap("shape")
    found = await context.engine.terms(context.generation.physical, "lexical", distinct)
    context.watch.lap("opensearch")
    return {word: found.get(word, ()) for word in distinct}


def _highlight_member(context: SearchContext, one: _MatchedHit, terms: TermsByWord) -> dict[str, Any]:
    in_title, in_passage = (_mark(context, one, part, terms) for part in (one.title, one.passage))
    answer: dict[str, Any] = {"title": in_title, "text": in_passage}
    characters = context.request.highlight_characters
    if characters is not None:
        start, end = best_excerpt(one.passage.text, in_passage, characters)
        answer["text"] = [span for span in in_passage if start <= span.start and span.end <= end]
        answer["excerpt"] = {
            "text": one.passage.text[start:end],
            "start": start + one.passage.start,
            "end": end + one.passage.start,
        }
    for name, shift in (("title", 0), ("text", one.passage.start)):
        answer[name] = [_shape_span(span, shift) for span in answer[name]]
    answer |= _unmarked(context, one, [*in_title, *in_passage])
    answer["complete"] = one.whole and all(word.text in terms for word in one.words)
    return answer


def _mark(context: SearchContext, one: _MatchedHit, part: _TextPart, terms: TermsByWord) -> list[Span]:
    pieces = context.table.spans(part.text) if one.sparse else ()
    return merge_spans([*piece_spans(part.text, pieces, one.sparse), *term_spans(part.words, terms, one.lexical)])


def _shape_span(span: Span, shift: int) -> dict[str, Any]:
    matches = [_shape_match(match) for match in span.matches]
    return {"start": span.start + shift, "end": span.end + shift, "matches": matches}


def _shape_match(match: Match) -> dict[str, Any]:
    shown = {"list": match.list, "piece": match.piece, "contribution": match.contribution}
    return shown if match.id is None else shown | {"id": match.id}


def _unmarked(context: SearchContext, one: _MatchedHit, spans: Iterable[Span]) -> dict[str, Any]:
    """What matched beside the marked words: pieces that the encoder added, and words of other parts of the document."""
    marked = {match for span in spans for match in span.matches}
    left = [match for match in (*one.sparse.values(), *one.lexical.values()) if match not in marked]
    left.sort(key=lambda match: -match.contribution)
    pieces = [match.id for match in left if match.id is not None]
    own = context.table.occurring(pieces, one.own_text) if pieces else set()
    return {
        "expansions": [_shape_match(match) for match in left if match.id is not None and match.id not in own],
        "elsewhere": [_shape_match(match) for match in left if match.id is None or match.id in own],
    }
