"""Spelling: suggest words of the index for misspelt words of a query.

A correction proposes the closest term of the index for a query word that the index lacks (optimal string alignment
distance). If the lexical list has hits, only words that the encoder does not know are looked up, for example "expresso"
in "expresso machine". Such a word may occur in a few documents, whose authors misspelt it. It is corrected only to a
far more frequent word that documents have beside other words of the query. So a query of common words costs nothing,
and no word that the encoder knows is replaced. A suggestion never fails a response: after an error or half of the
remaining time, the response has none. The query itself is neither changed nor searched again. See docs/decisions/0178
and 0255.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from query_api.search.context import SearchContext
from query_api.search.executor import complete_hits
from query_api.search.query_builder import excluded_ids
from services.errors import SparsewellError
from services.opensearch.analysis import (
    UnknownWord,
    blank_stop_words,
    merge_unknown_words,
    read_similar_terms,
    read_term_counts,
    similar_terms_body,
    split_unusual_words,
    term_counts_body,
)
from services.opensearch.queries import SearchPlan
from services.query.suggest import fold_text
from services.telemetry.metrics import SEARCH_FALLBACKS

# Words of at least this length may differ by two edits, shorter ones by one.
_TWO_EDITS_CHARACTERS: Final = 6
# A piece and one of these is a real word too: an encoder has "bias" and not "biases".
_ENDINGS: Final = frozenset({"s", "es", "ed", "d", "ing", "ly"})
# A word that occurs is misspelt if this many times as many documents have the other word.
_RARE_FACTOR: Final = 10


@dataclass(frozen=True, slots=True)
class Correction:
    """A stretch of the query, characters `start` to `end` (exclusive), and its suggested replacement."""

    typed: str
    suggested: str
    start: int
    end: int


async def did_you_mean(contexts: Sequence[SearchContext], *, lexical_empty: bool) -> dict[str, Any]:
    """Return the `did_you_mean` member of a response, if there is one, for a search with a lexical list.

    Every suggested word occurs in documents that the search may find under its filter.
    """
    first = contexts[0]
    request = first.request
    if not (request.did_you_mean and request.is_first):
        return {}
    words, beside = request.query, ""
    if not lexical_empty:
        known = {span for context in contexts for span in _known_words(context, request.query)}
        words, others = split_unusual_words(request.query, known)
        is_english = all(context.generation.spec.language == "english" for context in contexts)
        beside = blank_stop_words(others) if is_english else others
        if not (words.strip() and beside.strip()):
            return {}
    # A suggestion tells that no document of the index has a word, so document-level security allows no suggestion.
    searched = [context for context in contexts if context.generation.suggests and context.is_unrestricted]
    if not searched:
        return {}
    corrections: list[Correction] = []
    try:
        async with asyncio.timeout((first.timeout - first.stopwatch.passed) / 2):
            corrections = await _look_up_corrections(searched, words, beside)
    except (SparsewellError, TimeoutError) as error:
        SEARCH_FALLBACKS.labels("spelling", error.code if isinstance(error, SparsewellError) else "timeout").inc()
    first.stopwatch.lap("opensearch")
    if not corrections:
        return {}
    member = {"query": apply_corrections(request.query, corrections), "words": [asdict(word) for word in corrections]}
    return {"did_you_mean": member}


def _known_words(context: SearchContext, text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of the encoder's pieces, alone and with an ending.

    Some encoders put white space before a word, which does not belong to the word.
    """
    before = (0, 0)
    for _, start, end in context.table.spans(text):
        piece = text[start:end].lstrip()
        if before[1] == start and piece.lower() in _ENDINGS:
            yield before[0], end
        before = end - len(piece), end
        yield before


async def _look_up_corrections(contexts: Sequence[SearchContext], words: str, beside: str) -> list[Correction]:
    """Look up terms similar to misspelt words, and the number of documents that have each.

    `words`: the query with spaces in place of words that are not looked up. `beside`: its other words; empty: no
    document has a word of the query.
    """
    first = contexts[0]
    fields = [context.generation.spec.spelling_field for context in contexts]
    physical = [context.generation.physical for context in contexts]
    similar = [
        SearchPlan(
            index,
            similar_terms_body(field, words, first.timeout, folds=context.generation.folds, all_words=not beside),
        )
        for context, index, field in zip(contexts, physical, fields, strict=True)
    ]
    answers = await first.executor.lists(similar)
    for answer in answers:
        complete_hits(answer, first.stopwatch)
    unknown = merge_unknown_words(read_similar_terms(answer, words) for answer in answers)
    if not unknown:
        return []
    plans = [
        SearchPlan(
            index,
            term_counts_body(field, unknown, beside, context.selection.clauses, excluded_ids(context), first.timeout),
        )
        for context, index, field in zip(contexts, physical, fields, strict=True)
    ]
    typed: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    for answer in await first.executor.lists(plans):
        complete_hits(answer, first.stopwatch)
        for total, counts in zip((typed, documents), read_term_counts(answer, unknown), strict=True):
            total.update(counts)
    return find_corrections(words, unknown, typed, documents)


def find_corrections(
    query: str, unknown: Iterable[UnknownWord], typed: Mapping[str, int], documents: Mapping[str, int]
) -> list[Correction]:
    """Return the closest term for each misspelt word that has one; at equal distance the term of most documents.

    `typed` maps a word to the number of visible documents that have it in any form, `documents` a similar term to the
    number that hold it. A word that occurs is corrected only to a far more frequent term (`_RARE_FACTOR`). Accents are
    no difference, and the suggestion has the form of the documents.
    """
    corrections = []
    for word in unknown:
        letters = fold_text(word.term)
        max_edits = 2 if len(letters) >= _TWO_EDITS_CHARACTERS else 1
        counts = _written_forms({term: documents.get(term, 0) for term in word.similar_terms})
        least = max(1, _RARE_FACTOR * typed.get(word.term, 0))
        candidates = [
            (edit_distance(letters, fold_text(term)), -count, term) for term, count in counts.items() if count >= least
        ]
        best = min(candidates, default=None)
        if best is not None and 0 < best[0] <= max_edits:
            corrections.append(Correction(query[word.start : word.end], best[2], word.start, word.end))
    return corrections


def _written_forms(documents: Mapping[str, int]) -> dict[str, int]:
    """Return the number of documents by term as it is written: `Böhm` counts for `böhm` and not for its folded form."""
    written = dict(documents)
    for term, count in documents.items():
        folded = fold_text(term)
        if folded != term and folded in written:
            written[folded] = max(0, written[folded] - count)
    return written


def apply_corrections(query: str, corrections: Sequence[Correction]) -> str:
    """Return the query with the corrections in place."""
    parts, at = [], 0
    for correction in corrections:
        parts += [query[at : correction.start], correction.suggested]
        at = correction.end
    return "".join([*parts, query[at:]])


def edit_distance(first: str, second: str) -> int:
    """Count the letters deleted, inserted, substituted or swapped with a neighbour (optimal string alignment)."""
    previous: list[int] = []
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        before_previous, previous, row = previous, row, [i]
        for j, other in enumerate(second, 1):
            distance = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                distance = min(distance, before_previous[j - 2] + 1)
            row.append(distance)
    return row[-1]
