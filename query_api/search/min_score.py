"""The least match of a hit in a list (`min_score`), on a scale that means the same in every index.

A fused score compares hits of one search only: the best hit of each list gets 1, also for words that no document has.
`min_score` cuts each list before fusion, sorting and counting, by a match between 0 and 1 (docs/decisions/0258):

* sparse: the score divided by the weight of the query and by the encoder's `full_match`, the median score of a text for
  its own first words. Both factors take the encoder and the weights of the index out of the score.
* lexical: the share of the query's words that the document has. BM25 scores depend on the number and the lengths of the
  documents of an index, so they have no common scale.

A hit of a hybrid search matches well enough in one of the lists. For example, a document with `mower` and `blade` has
the lexical match 2/3 for the query `sharpen mower blade`, in an index of ten documents as in one of a million.

`min_score` costs time: OpenSearch computes the score of every match instead of the best hundred alone, and a sparse
list has one phase. So it is off by default.
"""

import math
from typing import Final

from query_api.schemas.search_request import SearchRequest
from services.encoders.manifest import Manifest
from services.encoders.query_table import QueryVector
from services.errors import InvalidInput
from services.opensearch.queries import Clause

# OpenSearch rounds shares of words down. Up to this length of a query the number of words is given, rounded up.
_EXACT_WORDS: Final = 32


def check_min_score(request: SearchRequest, manifest: Manifest) -> None:
    """Check that hits of the request have a match, in units of its encoder.

    Raises InvalidInput (`min_score_without_words`, `min_score_uncalibrated`).
    """
    if request.min_score is None:
        return
    if request.browses:
        raise InvalidInput("min_score_without_words", "`min_score` is for a search by words; `query` is empty.")
    if request.mode != "lexical" and manifest.full_match is None:
        raise InvalidInput(
            "min_score_uncalibrated",
            f"The encoder {manifest.name} has no scale for `min_score`: `sparsewell encoders calibrate` measures it. "
            "The mode `lexical` needs none.",
        )


def cut_sparse(query: Clause, vector: QueryVector, manifest: Manifest, min_score: float | None) -> Clause:
    """Return the sparse query without the documents that match less. `vector`: the query with its weights.

    OpenSearch scores every matching document then: block-max skipping needs the best hits alone. Boosts of curation
    rules multiply the scores that remain, so they make no document match better.
    """
    if min_score is None or manifest.full_match is None:
        return query
    least = min_score * manifest.full_match * sum(vector.weights)
    return {"function_score": {"query": query, "min_score": least}}


def required_words(words: str, min_score: float | None) -> list[Clause]:
    """Return the clause of documents with this share of the words; none without `min_score`.

    Synonyms of curation rules and words of earlier turns add to a score, but stand for no word of the query. The clause
    is a filter, which changes no score.
    """
    if min_score is None:
        return []
    match = {"query": words, "minimum_should_match": minimum_should_match(min_score)}
    return [{"match": {"lexical": match}}]


def minimum_should_match(share: float) -> str:
    """Return OpenSearch's condition for a share of the words, rounded up.

    `3<2` means: of more than three words, two. A query of one word needs it. Longer queries than 32 words have the
    share rounded down, which is at most one word less.
    """
    # Products of floats miss whole numbers by a little: 100 * 0.57 is 56.99999999999999.
    exact = [f"{words - 1}<{math.ceil(round(words * share, 6))}" for words in range(2, _EXACT_WORDS + 1)]
    return " ".join([*exact, f"{_EXACT_WORDS}<{math.floor(round(100 * share, 6))}%"])
