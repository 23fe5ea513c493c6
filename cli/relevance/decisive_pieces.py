"""The pieces that decided the queries which gained or lost.

`explain_changes` explains the queries that changed the most between two searches of a live index. It takes the judged
document whose rank changed the most, and its rival: the best document without a positive grade that overtook it. The
API explains both documents in both searches. The pieces that separate their scores the most are the decisive ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import log2
from typing import TYPE_CHECKING, Any, Final

from cli.relevance.metrics import Ranking, break_ties

if TYPE_CHECKING:
    from models.significance import PairedComparison

# Explained queries of each comparison and direction. Each costs two searches.
MAX_EXPLAINED_QUERIES: Final = 5
# Pieces of each list.
MAX_PIECES: Final = 5

# Return the explained hits of a query's text.
Explain = Callable[[str], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class DecisivePiece:
    """A piece of a list with its contribution to the scores of the judged document and of its rival.

    `list`: `sparse`, `lexical` (pieces are words), `fusion` or `reranking` (pieces are lists or models).
    """

    list: str
    piece: str
    document: float
    rival: float


@dataclass(frozen=True, slots=True)
class ExplainedChange:
    """A query that gained or lost.

    `document`: the judged document; `rival`: the document that overtook it, None if there is none. A rank counts from
    1 and is None for a document that was not found. `before` and `after` are the decisive pieces of each search; they
    are empty if the first page of hits lacks one of the two documents.
    """

    query: str
    text: str
    document: str
    ranks: tuple[int | None, int | None]
    rival: str | None
    rival_ranks: tuple[int | None, int | None]
    before: list[DecisivePiece]
    after: list[DecisivePiece]

    def as_json(self) -> dict[str, Any]:
        """Return the change for a report, with contributions of five digits."""
        members = asdict(self)
        for side in ("before", "after"):
            for piece in members[side]:
                piece |= {name: round(piece[name], 5) for name in ("document", "rival")}
        return members


def explain_changes(
    comparison: "PairedComparison",
    queries: Mapping[str, str],
    grades: Mapping[str, Mapping[str, int]],
    rankings: tuple[Mapping[str, Ranking], Mapping[str, Ranking]],
    explain: tuple[Explain, Explain],
) -> Iterator[ExplainedChange]:
    """Explain the queries that gained and lost the most, the gained first.

    `rankings` and `explain` belong to the searches before and after. An `explain` gets the text of a query and returns
    the explained hits of its first page.
    """
    for changes in (comparison.gained, comparison.lost):
        for change in changes[:MAX_EXPLAINED_QUERIES]:
            name = change.query
            ranks = tuple(rank_documents(side.get(name, ())) for side in rankings)
            found = find_document_and_rival(grades[name], ranks[0], ranks[1])
            if found is None:
                continue
            document, rival = found
            before, after = (
                [] if rival is None else decisive_pieces(side(queries[name]), document, rival) for side in explain
            )
            yield ExplainedChange(
                name,
                queries[name],
                document,
                (ranks[0].get(document), ranks[1].get(document)),
                rival,
                (None, None) if rival is None else (ranks[0].get(rival), ranks[1].get(rival)),
                before,
                after,
            )


def rank_documents(ranking: Ranking) -> dict[str, int]:
    """Return the rank of each document, from 1, with ties in the order of the measures."""
    return {document: rank for rank, (document, _) in enumerate(break_ties(ranking), 1)}


def find_document_and_rival(
    grades: Mapping[str, int], before: Mapping[str, int], after: Mapping[str, int]
) -> tuple[str, str | None] | None:
    """Return the judged document that moved the most, and the best document that overtook it in the worse ranking.

    A move counts by the gain of DCG. Returns None if no judged document moved.
    """

    def moved(document: str) -> float:
        return grades[document] * abs(_discount(after.get(document)) - _discount(before.get(document)))

    document = max((name for name, grade in grades.items() if grade > 0), key=moved, default=None)
    if document is None or not moved(document):
        return None
    worse, better = (after, before) if _is_better(before, after, document) else (before, after)
    overtaken = (
        name
        for name, rank in sorted(worse.items(), key=lambda entry: entry[1])
        if grades.get(name, 0) <= 0
        and rank < worse.get(document, len(worse) + 1)
        and better.get(name, len(better) + 1) > better[document]
    )
    return document, next(overtaken, None)


def decisive_pieces(hits: Sequence[Mapping[str, Any]], document: str, rival: str) -> list[DecisivePiece]:
    """Return the pieces of each list whose contributions to two explained hits differ the most, the largest first.

    The lists `sparse` and `lexical` have their own scales, so each has its own pieces. The lists `fusion` and
    `reranking` hold the parts of the whole score, by list or model.
    """
    by_id = {hit["id"]: hit for hit in hits}
    if document not in by_id or rival not in by_id:
        return []
    ours, theirs = (_contributions(by_id[name]) for name in (document, rival))
    pieces = [
        DecisivePiece(kind, piece, ours.get((kind, piece), 0.0), theirs.get((kind, piece), 0.0))
        for kind, piece in {**ours, **theirs}
    ]
    pieces.sort(key=lambda piece: abs(piece.document - piece.rival), reverse=True)
    kinds = dict.fromkeys(piece.list for piece in pieces)
    different = [piece for piece in pieces if piece.document != piece.rival]
    return [piece for kind in kinds for piece in [each for each in different if each.list == kind][:MAX_PIECES]]


def _contributions(hit: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Return the contribution of each piece by list. Entries of one word in several fields are added."""
    summed: dict[tuple[str, str], float] = {}
    for entry in hit["why"]:
        key = (str(entry["list"]), str(entry["piece"]))
        summed[key] = summed.get(key, 0.0) + float(entry["contribution"])
    for kind in ("fusion", "reranking"):
        for name, part in (hit.get(kind) or {}).items():
            summed[kind, str(name)] = float(part["contribution"])
    return summed


def _is_better(ranks: Mapping[str, int], other_ranks: Mapping[str, int], document: str) -> bool:
    return _discount(ranks.get(document)) > _discount(other_ranks.get(document))


def _discount(rank: int | None) -> float:
    """Return the discount of DCG at a rank; 0 for a document that was not found."""
    return 0.0 if rank is None else 1 / log2(rank + 1)
