"""Highlights: the words of the title and of the passage that matched, by list, and the matches elsewhere.

Words of the sparse list are found by the encoder's tokeniser. Words of the lexical list need one more request:
OpenSearch analyses the distinct words of all hits, and each word that yields a term of the BM25 score is marked. All
offsets count characters (code points); the end is exclusive. `best_excerpt` shortens a passage to the stretch with the
largest share of the matches.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from query_api.ingest.item_blocks import LoopTurns
from query_api.search.context import Hit, SearchContext, Source
from query_api.search.hits import matched_pieces, word_shares
from query_api.search.passages import encoded_text
from services.opensearch.analysis import TermsByWord, TextWord, limit_words, split_on_white_space
from services.opensearch.stored_document import stored_size

ListName = Literal["sparse", "lexical"]
# Characters of titles and passages that one search marks, best hits first: a hundred windows of ordinary length, which
# take the tokeniser about 0.1 s.
MAX_CHARACTERS: Final = 200_000
# A piece is widened to a word by at most this many characters on each side: a megabyte of letters is not a word.
_MAX_WORD_CHARACTERS = 100
# A match begins with the first character of a run of white space, so no run is read twice.
_SENTENCE = re.compile(r"(?<!\s)(?:(?<=[.!?])\s++|[^\S\n]*+\n\s*+)")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Match:
    """A piece or a term and its contribution to the score of its list. `id`: of the piece; None for a term."""

    list: ListName
    piece: str
    contribution: float
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text with its matches, largest contribution first."""

    start: int
    end: int
    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class _TextPart:
    """A title or a passage, or as much of it as is marked. `start`: its offset in the text."""

    text: str
    start: int
    words: Sequence[TextWord]


@dataclass(frozen=True, slots=True)
class _MatchedHit:
    """A hit with the texts to mark and its matches. `whole`: the texts are complete."""

    encoded_text: str
    title: _TextPart
    passage: _TextPart
    whole: bool
    sparse: Mapping[int, Match]
    lexical: Mapping[str, Match]

    @property
    def words(self) -> Iterable[TextWord]:
        """The words of both texts."""
        return (*self.title.words, *self.passage.words)


async def highlight(
    context: SearchContext, hits: Sequence[tuple[Hit, Source]], shaped: Sequence[dict[str, Any]]
) -> None:
    """Add `highlight` to each shaped hit. `hits`: the hits and sources in the same order; each hit has its passage."""
    room, turns = MAX_CHARACTERS, LoopTurns()
    matched = []
    for (hit, source), shaped_hit in zip(hits, shaped, strict=True):
        matched.append(_matched_hit(context, hit, source, shaped_hit["passage"], room))
        await turns.count(stored_size(source))
        room -= len(matched[-1].title.text) + len(matched[-1].passage.text)
    terms = await _analyse_words(context, matched)
    for document, shaped_hit in zip(matched, shaped, strict=True):
        shaped_hit["highlight"] = _highlight_member(context, document, terms)


def _matched_hit(
    context: SearchContext, hit: Hit, source: Source, passage: Mapping[str, Any], room: int
) -> _MatchedHit:
    # The lexical list of chapters and passages does not score titles of documents.
    """Collect the matches of a hit, and as much of its title and passage as `room` characters allow."""
    title, text = source.get("title", "") if hit.number is None else "", passage["text"]
    shown_title = title[:room]
    shown_text = text[: room - len(shown_title)]
    sparse, lexical = {}, {}
    if "sparse" in hit.scores:
        common = matched_pieces(context, hit, source)
        for i, (query_weight, weight) in common.items():
            sparse[i] = Match("sparse", context.table.piece(i), query_weight * weight, i)
    if "lexical" in hit.scores:
        for term, share in word_shares(hit.shares).items():
            lexical[term] = Match("lexical", term, share)
    return _MatchedHit(
        encoded_text=encoded_text(context, hit, source),
        title=_TextPart(shown_title, 0, split_on_white_space(shown_title) if lexical else ()),
        passage=_TextPart(shown_text, passage["start"], split_on_white_space(shown_text) if lexical else ()),
        whole=len(shown_title) + len(shown_text) == len(title) + len(text),
        sparse=sparse,
        lexical=lexical,
    )


async def _analyse_words(context: SearchContext, matched: Iterable[_MatchedHit]) -> TermsByWord:
    """Return the analyser's terms of the shown words, as many as one request allows. Without words, nothing is sent."""
    distinct = limit_words(dict.fromkeys(word.text for hit in matched for word in hit.words))
    if not distinct:
        return {}
    context.stopwatch.lap("shape")
    terms = await context.executor.terms(context.generation.physical, "lexical", distinct)
    context.stopwatch.lap("opensearch")
    return {word: terms.get(word, ()) for word in distinct}


def _highlight_member(context: SearchContext, hit: _MatchedHit, terms: TermsByWord) -> dict[str, Any]:
    """Return the `highlight` member of a hit."""
    in_title, in_passage = (_mark(context, hit, part, terms) for part in (hit.title, hit.passage))
    member: dict[str, Any] = {"title": in_title, "text": in_passage}
    characters = context.request.highlight_characters
    if characters is not None:
        start, end = best_excerpt(hit.passage.text, in_passage, characters)
        member["text"] = [span for span in in_passage if start <= span.start and span.end <= end]
        member["excerpt"] = {
            "text": hit.passage.text[start:end],
            "start": start + hit.passage.start,
            "end": end + hit.passage.start,
        }
    for name, shift in (("title", 0), ("text", hit.passage.start)):
        member[name] = [_shape_span(span, shift) for span in member[name]]
    member |= _unmarked(context, hit, [*in_title, *in_passage])
    member["complete"] = hit.whole and all(word.text in terms for word in hit.words)
    return member


def _mark(context: SearchContext, hit: _MatchedHit, part: _TextPart, terms: TermsByWord) -> list[Span]:
    """Return the spans of a text that either list matched."""
    pieces = context.table.spans(part.text) if hit.sparse else ()
    return merge_spans([*piece_spans(part.text, pieces, hit.sparse), *term_spans(part.words, terms, hit.lexical)])


def _unmarked(context: SearchContext, hit: _MatchedHit, spans: Iterable[Span]) -> dict[str, Any]:
    """Return the matches outside the marked words: the encoder's expansions, and words elsewhere in the document."""
    marked = {match for span in spans for match in span.matches}
    unmarked = [match for match in (*hit.sparse.values(), *hit.lexical.values()) if match not in marked]
    unmarked.sort(key=lambda match: -match.contribution)
    pieces = [match.id for match in unmarked if match.id is not None]
    occurring = context.table.occurring(pieces, hit.encoded_text) if pieces else set()
    return {
        "expansions": [_shape_match(match) for match in unmarked if match.id is not None and match.id not in occurring],
        "elsewhere": [_shape_match(match) for match in unmarked if match.id is None or match.id in occurring],
    }


def _shape_span(span: Span, shift: int) -> dict[str, Any]:
    matches = [_shape_match(match) for match in span.matches]
    return {"start": span.start + shift, "end": span.end + shift, "matches": matches}


def _shape_match(match: Match) -> dict[str, Any]:
    shown = {"list": match.list, "piece": match.piece, "contribution": match.contribution}
    return shown if match.id is None else shown | {"id": match.id}


def piece_spans(text: str, pieces: Iterable[tuple[int, int, int]], matches: Mapping[int, Match]) -> list[Span]:
    """Return the whole words of `text` with a piece that matched. `pieces`: (id, start, end) of all its pieces."""
    spans = []
    for i, start, end in pieces:
        match = matches.get(i)
        if match is not None and (word := _whole_word(text, start, end)) is not None:
            spans.append(Span(*word, (match,)))
    return spans


def _whole_word(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Widen a piece by the letters, digits and marks around it; None for a piece of white space."""
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
    """Return whether a character belongs to a word of a script with spaces; other scripts show no word ends."""
    return (character.isalnum() or _is_mark(character)) and not _unspaced(character)


def _is_mark(character: str) -> bool:
    return character > "\u02ff" and unicodedata.category(character)[0] == "M"


def _unspaced(character: str) -> bool:
    """Return whether the script has no spaces: Thai and Lao, Myanmar, Khmer; kana and Han with extensions."""
    return (
        "\u0e00" <= character < "\u0f00"
        or "\u1000" <= character < "\u10a0"
        or "\u1780" <= character < "\u1800"
        or "\u2e80" <= character < "\ua000"
        or "\uf900" <= character < "\ufb00"
        or "\U0001b000" <= character < "\U0001b170"
        or "\U00020000" <= character < "\U00040000"
    )


def term_spans(words: Iterable[TextWord], terms: TermsByWord, matches: Mapping[str, Match]) -> list[Span]:
    """Return the stretches of a text from which the analyser made a term that matched."""
    spans = []
    for word in words:
        for term in terms.get(word.text, ()):
            match = matches.get(term.text)
            if match is not None:
                spans.append(Span(word.start + term.start, word.start + term.end, (match,)))
    return spans


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Return the spans in order, with overlapping spans joined. A word that both lists matched becomes one span."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if merged and span.start < merged[-1].end:
            last = merged.pop()
            matches = sorted({*last.matches, *span.matches}, key=lambda match: (-match.contribution, match.list))
            merged.append(Span(last.start, max(last.end, span.end), tuple(matches)))
        else:
            merged.append(span)
    return merged


def best_excerpt(text: str, spans: Sequence[Span], characters: int) -> tuple[int, int]:
    """Return start and end of the stretch of at most `characters` with the largest share of the matches.

    Both lists have the same weight, and each match counts once. The remaining room goes before the stretch, back to the
    start of a sentence, and then after it.
    """
    if len(text) <= characters:
        return 0, len(text)
    shares = _list_shares(spans)
    best, first, last = 0.0, 0, 0
    for n, span in enumerate(spans):
        value, seen = 0.0, set[Match]()
        for other in spans[n:]:
            if other.end - span.start > characters:
                break
            value += sum(shares[match] for match in other.matches if match not in seen)
            seen.update(other.matches)
            if value > best + 1e-9:
                best, first, last = value, span.start, other.end
    begin = _excerpt_start(text, max(0, last - characters), first)
    return begin, _excerpt_end(text, max(last, begin), min(len(text), begin + characters))


def _list_shares(spans: Iterable[Span]) -> dict[Match, float]:
    """Return each match's share of its list's contributions in these spans."""
    every = {match for span in spans for match in span.matches}
    totals: dict[str, float] = {}
    for match in every:
        totals[match.list] = totals.get(match.list, 0.0) + match.contribution
    return {match: match.contribution / totals[match.list] if totals[match.list] > 0 else 0.0 for match in every}


def _excerpt_start(text: str, earliest: int, latest: int) -> int:
    """Return the last start of a sentence or line between two offsets, else of a word in their second half."""
    sentences = [match.end() for match in _SENTENCE.finditer(text, earliest, latest)]
    if sentences or earliest == 0:
        return sentences[-1] if sentences else 0
    word = _SPACE.search(text, (earliest + latest) // 2, latest)
    return word.end() if word else latest


def _excerpt_end(text: str, earliest: int, latest: int) -> int:
    """Return the last end of a word between two offsets, else the second offset."""
    if latest == len(text) or text[latest].isspace():
        return latest
    gap = max(text.rfind(" ", earliest, latest), text.rfind("\n", earliest, latest))
    return latest if gap < 0 else gap
