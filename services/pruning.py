"""Query pieces that weigh little: left out, or kept for a second phase.

A sparse search costs what the postings of the query's pieces are long, and light pieces have the longest. Leaving out
those below a share of the heaviest weight is called `max_ratio` in OpenSearch's neural-search. Scoring them only for
the documents that the heavy ones found is that plugin's two-phase processor, and the second step of Two-Step SPLADE
(Lassance et al., ECIR 2024).
"""

from dataclasses import replace

from services.query_table import QueryVector


def pruned(query: QueryVector, share: float) -> QueryVector:
    """The query without pieces that weigh less than `share` (0 to 1) of its heaviest; `pruned` of it names them.

    The heaviest piece always stays. 0 leaves the query as it is.
    """
    if share == 0 or not query.ids:
        return query
    kept, dropped = split(query, share)
    return replace(kept, pruned=query.pruned + tuple(zip(dropped.ids, dropped.weights, strict=True)))


def split(query: QueryVector, threshold: float) -> tuple[QueryVector, QueryVector]:
    """The pieces of at least `threshold` (0 to 1) of the heaviest weight, and the others. Both keep their order."""
    least = threshold * max(query.weights, default=0.0)
    return (
        _only(query, [at for at, weight in enumerate(query.weights) if weight >= least]),
        _only(query, [at for at, weight in enumerate(query.weights) if weight < least]),
    )


def _only(query: QueryVector, places: list[int]) -> QueryVector:
    return replace(
        query, ids=tuple([query.ids[at] for at in places]), weights=tuple([query.weights[at] for at in places])
    )
