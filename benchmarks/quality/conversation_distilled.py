"""Share, decay and rarity of earlier turns, fitted by distillation: the scores of whole questions teach follow-ups.

    python -m benchmarks conversation_distilled DATA --json benchmarks/results/conversation-distilled.json

A study of DiSCo's idea (arXiv 2410.14609) for a query side without a model. DiSCo trains a query encoder so that a
conversation scores passages as its rewritten question does. Here only three numbers are fitted: the parameters of
`services.query.expansion.ConversationMemory` with the least KL divergence between both distributions over the best
passages of the whole question. Judgements take no part in the fit.

Conversations are those of `benchmarks.quality.conversations`, derived by rule. Share and rarity are fitted on the other
collections, to follow-ups and to whole queries after another topic. Decay needs several turns: it is fitted on half of
the meetings of qmsum_meetings and reported on the other half. Sparse lists are exact, lexical lists come from a real
node (docs/decisions/0274).
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.collections import (
    CANDIDATE_COUNT,
    LexicalIndex,
    encode_collection_windows,
    judged_arguments,
    open_lexical_index,
    open_sample,
)
from benchmarks.measuring import run_benchmark
from benchmarks.quality.conversations import (
    SERIES_COLLECTION,
    Conversation,
    derive_conversations,
    lexical_queries_in_context,
    sparse_query_in_context,
)
from benchmarks.quality.feedback import fuse_named_lists
from benchmarks.service import open_node, read_opensearch_version
from cli.relevance.exact_search import ExactIndex
from cli.relevance.metrics import measure_rankings
from models.judged_collection import JudgedCollection
from models.registry import load_encoder
from models.significance import compare_rankings
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.index_spec import IndexSpec
from services.opensearch.client import SyncSearchClient
from services.opensearch.stored_document import document_vector
from services.query.expansion import ConversationMemory
from services.settings import Settings

FOLLOW_UPS, OTHER_TOPIC = "follow-ups", "other topic"
SHARES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
RARITIES: Final = (0.0, 0.5, 1.0, 1.5, 2.0)
DECAYS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
# The parameters that NDCG@10 chose (docs/decisions/0156), before distillation changed the decay.
BEFORE: Final = ConversationMemory(share=0.5, decay=0.5, rarity=1.0)
GRID: Final = [ConversationMemory(share, BEFORE.decay, rarity) for share, rarity in product(SHARES, RARITIES)]
# The best score of each side is this logit, so that both distributions are about as sharp.
SHARPNESS: Final = 10.0
Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DistilledSet:
    """The conversations of a collection, with the exact index that scores them."""

    collection: JudgedCollection
    conversations: Mapping[str, list[Conversation]]
    index: ExactIndex
    table: QueryTable
    max_added: int

    def divergences(self, conversations: Sequence[Conversation], memories: Sequence[ConversationMemory]) -> Scores:
        """Return the mean divergence over conversations of each memory, [memories]."""
        total = np.zeros(len(memories))
        for conversation in conversations:
            teacher = self.index.scores(self.table.encode(conversation.whole).by_id()).astype(np.float64)
            best = np.argsort(-teacher, kind="stable")[:CANDIDATE_COUNT]
            wanted = _log_softmax(teacher[best])
            for at, memory in enumerate(memories):
                found = _log_softmax(
                    self.index.scores(self.sparse_query(conversation, memory))[best].astype(np.float64)
                )
                total[at] += float((np.exp(wanted) * (wanted - found)).sum())
        return total / max(1, len(conversations))

    def sparse_query(self, conversation: Conversation, memory: ConversationMemory) -> dict[int, float]:
        """Return the weights of a follow-up with its turns as context."""
        return sparse_query_in_context(conversation, memory, self.table, self.max_added)

    def ndcg(
        self, conversations: Sequence[Conversation], memory: ConversationMemory, lexical: LexicalIndex
    ) -> dict[str, float]:
        """Return NDCG@10 of the hybrid list of each conversation."""
        sparse = {
            c.query: self.index.search(self.sparse_query(c, memory), CANDIDATE_COUNT) for c in conversations
        }  # fmt: skip
        queries = lexical_queries_in_context(conversations, memory, self.table)
        lists = fuse_named_lists(sparse, lexical.lists(queries, CANDIDATE_COUNT))
        judged = {c.query: self.collection.judgements[c.query] for c in conversations}
        return {q: row["ndcg@10"] for q, row in measure_rankings(judged, lists).by_query.items()}


def _log_softmax(scores: Scores) -> Scores:
    best = float(scores.max(initial=0.0))
    logits = scores * (SHARPNESS / best) if best > 0 else scores
    result: Scores = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    return result


def conversation_distilled(argv: list[str] | None = None) -> None:
    """Fit the parameters of earlier turns to the scores of whole questions, and report them on other sets."""
    parser = judged_arguments("conversation_distilled", conversation_distilled.__doc__)
    run_benchmark("conversation_distilled", parser, measure, argv)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fitted parameters of each set, and NDCG@10 with them and with those of before."""
    encoder = load_encoder(arguments.encoder, threads=arguments.threads)
    table = QueryTable.load(resolve_model_directory(arguments.encoder))
    top_k = IndexSpec.model_validate({}).document_top_k
    subjects: dict[str, DistilledSet] = {}
    for label in arguments.collections.split(","):
        collection = open_sample(arguments.data, label)
        windows = encode_collection_windows(collection, encoder, arguments.cache)
        index = ExactIndex({document: document_vector(own, top_k) for document, own in windows.items()})
        conversations = derive_conversations(label.partition("/")[0], collection)
        subjects[label] = DistilledSet(collection, conversations, index, table, Settings().max_added_pieces)
    series = {name: own for name, own in subjects.items() if name.partition("/")[0] == SERIES_COLLECTION}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        return {
            "opensearch": read_opensearch_version(settings),
            "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
            "share_and_rarity": report_fit(
                {name: own for name, own in subjects.items() if name not in series}, search, settings
            ),
            "decay": {name: fit_decay(own, search, settings) for name, own in series.items()},
        }


def _describe(memory: ConversationMemory) -> dict[str, float]:
    return {"share": memory.share, "decay": memory.decay, "rarity": memory.rarity}


def report_fit(subjects: Mapping[str, DistilledSet], search: SyncSearchClient, settings: Settings) -> dict[str, Any]:
    """Return for each collection the parameters that the other collections chose, and both figures."""
    divergences = {
        name: sum(own.divergences(found, GRID) for found in own.conversations.values())
        for name, own in subjects.items()
    }
    figures: dict[str, dict[str, tuple[dict[str, float], dict[str, float]]]] = {}
    chosen: dict[str, ConversationMemory] = {}
    for name, own in subjects.items():
        others = np.array([row for other, row in divergences.items() if other != name])
        chosen[name] = GRID[int(others.mean(axis=0).argmin())]
        with open_lexical_index(search, settings, own.collection) as lexical:
            figures[name] = {
                kind: (own.ndcg(found, BEFORE, lexical), own.ndcg(found, chosen[name], lexical))
                for kind, found in own.conversations.items()
            }
        print(name, _describe(chosen[name]), flush=True)
    report: dict[str, Any] = {"chosen": {name: _describe(memory) for name, memory in chosen.items()}}
    for kind in (FOLLOW_UPS, OTHER_TOPIC):
        sides = [
            {f"{name}/{query}": value for name, rows in figures.items() for query, value in rows[kind][side].items()}
            for side in (0, 1)
        ]
        report[kind] = {
            "by_collection": {
                name: {"before": _mean(rows[kind][0]), "distilled": _mean(rows[kind][1])}
                for name, rows in figures.items()
            },
            "distilled_against_before": compare_rankings(*sides).figures(),
        }
    return report


def fit_decay(subject: DistilledSet, search: SyncSearchClient, settings: Settings) -> dict[str, Any]:
    """Fit the decay on every second meeting, and report NDCG@10 on the others."""
    memories = [replace(BEFORE, decay=decay) for decay in DECAYS]
    conversations = subject.conversations[FOLLOW_UPS]
    meetings = sorted({c.query.rpartition("-")[0] for c in conversations})
    fitted_on = set(meetings[::2])
    fit = [c for c in conversations if c.query.rpartition("-")[0] in fitted_on]
    held_out = [c for c in conversations if c.query.rpartition("-")[0] not in fitted_on]
    means = subject.divergences(fit, memories)
    best = memories[int(means.argmin())]
    reported = {FOLLOW_UPS: held_out, OTHER_TOPIC: subject.conversations[OTHER_TOPIC]}
    result: dict[str, Any] = {
        "divergence": {f"{decay}": round(float(value), 4) for decay, value in zip(DECAYS, means, strict=True)},
        "chosen": best.decay,
        "fitted_on": len(fit),
    }
    with open_lexical_index(search, settings, subject.collection) as lexical:
        for kind, own in reported.items():
            before, after = (subject.ndcg(own, memory, lexical) for memory in (BEFORE, best))
            result[kind] = {
                "conversations": len(own),
                "before": _mean(before),
                "distilled": _mean(after),
                "distilled_against_before": compare_rankings(before, after).figures(),
            }
    return result


def _mean(values: Mapping[str, float]) -> float:
    return round(sum(values.values()) / len(values), 5)
