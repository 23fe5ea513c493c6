"""What fits into the context of a generator: whole passages, extracts, or chunks as vectors within a budget.

    python -m benchmarks context_budget DATA --json benchmarks/results/context-budget.json

A study of REFRAG's arithmetic (arXiv 2509.01092). REFRAG gives a decoder one vector for each chunk of k tokens, and the
tokens of the few chunks that matter, so more passages fit. Its decoder must be trained to read such vectors;
none is trained here. Measured is what the budget holds: the share of a query's judged relevant documents whose text, or
extract, or chunk vectors are in the context, documents in the order of a hybrid search that the dense table reranks.

- `whole`: whole documents, the last one cut;
- `extract`: the two sentences of each document that share the most query weight, which any generator can read;
- `vectors, k`: a quarter of the budget holds whole documents, the rest one vector for each k pieces.

The unit is a piece of the encoder's tokeniser.
"""

import argparse
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from benchmarks.collections import CANDIDATE_COUNT, judged_arguments, search_lexical_lists
from benchmarks.measuring import run_benchmark
from benchmarks.quality.feedback_learned import (
    COLLECTIONS,
    ByQuery,
    StudyCollection,
    StudyEncoder,
    compare_collections,
    mean_of,
    mean_of_means,
)
from benchmarks.service import open_node, read_opensearch_version
from models.judged_collection import open_collection
from services.documents.document import joined_text
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.opensearch.client import SyncSearchClient

BUDGETS: Final = (512, 2048)
CHUNKS: Final = (8, 16, 32)
WHOLE_SHARE: Final = 0.25
EXTRACT_SENTENCES: Final = 2
_SENTENCE = re.compile(r"[^.!?]+[.!?]*\s*")


def context_budget(argv: list[str] | None = None) -> None:
    """Measure how many relevant documents fit into a budget of pieces, whole, as extracts and as chunk vectors."""
    with tempfile.TemporaryDirectory(prefix="sparsewell-") as folder:
        parser = judged_arguments("context_budget", context_budget.__doc__)
        parser.set_defaults(cache=Path(folder), collections=COLLECTIONS)
        run_benchmark("context_budget", parser, measure, argv)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the share of relevant documents in the context, by budget and form."""
    encoder = StudyEncoder.open(resolve_model_directory(arguments.encoder))
    found: dict[int, dict[str, dict[str, ByQuery]]] = {budget: {} for budget in BUDGETS}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        version = read_opensearch_version(settings)
        for name in arguments.collections.split(","):
            collection = open_collection(arguments.data / name)
            lexical = search_lexical_lists(search, settings, collection, CANDIDATE_COUNT)
            own = StudyCollection.of(collection, encoder, arguments.cache, lexical)
            texts = {document.id: joined_text(document.title, document.text) for document in collection.documents()}
            for budget in BUDGETS:
                for form, by_query in shares_in_context(own, texts, budget).items():
                    found[budget].setdefault(form, {})[name] = by_query
    return {
        "opensearch": version,
        "encoder": {"name": encoder.start.manifest.name, "fingerprint": encoder.start.manifest.fingerprint},
        "share_of_relevant_documents": {
            f"{budget} pieces": {
                form: {
                    "mean": round(mean_of_means(by_collection.values()), 4),
                    "by_collection": {name: round(mean_of(values), 4) for name, values in by_collection.items()},
                    "against_whole": compare_collections(forms["whole"], by_collection),
                }
                for form, by_collection in forms.items()
            }
            for budget, forms in found.items()
        },
    }


def shares_in_context(own: StudyCollection, texts: Mapping[str, str], budget: int) -> dict[str, ByQuery]:
    """Return for each form the share of each query's relevant documents that the context holds."""
    lengths = {name: len(own.table.ids(text)) for name, text in texts.items()}
    shares: dict[str, ByQuery] = {}
    for query, grades in own.collection.known_judgements().items():
        relevant = {document for document, grade in grades.items() if grade > 0}
        if not relevant:
            continue
        ranked = own.first[query]
        weights = own.queries[query].by_id()
        whole = [lengths[document] for document in ranked]
        contexts = {
            "whole": ranked[: fitting(whole, budget)],
            "extract": ranked[
                : fitting([extract_length(texts[document], weights, own.table) for document in ranked], budget)
            ],
        }
        for chunk in CHUNKS:
            first = fitting(whole, int(WHOLE_SHARE * budget))
            vectors = [math.ceil(length / chunk) for length in whole[first:]]
            rest = fitting(vectors, budget - int(WHOLE_SHARE * budget))
            contexts[f"vectors, {chunk}"] = ranked[: first + rest]
        for form, documents in contexts.items():
            shares.setdefault(form, {})[query] = len(relevant & set(documents)) / len(relevant)
    return shares


def fitting(lengths: Sequence[int], budget: int) -> int:
    """Return how many documents begin within the budget; the last one may be cut."""
    used = 0
    for count, length in enumerate(lengths):
        if used >= budget:
            return count
        used += length
    return len(lengths)


def extract_length(text: str, weights: Mapping[int, float], table: QueryTable) -> int:
    """Return the pieces of the sentences that share the most query weight."""
    scored = []
    for sentence in _SENTENCE.findall(text):
        ids = table.ids(sentence)
        scored.append((sum(weights.get(piece, 0.0) for piece in set(ids)), len(ids)))
    scored.sort(key=lambda pair: -pair[0])
    return sum(length for _, length in scored[:EXTRACT_SENTENCES])
