"""Do earlier turns help a query that leaves out what they said? On conversations derived from judged queries.

    python -m benchmarks.conversation DATA --json benchmarks/results/conversation.json

Nobody held these conversations: `benchmarks.derived_conversations` says how follow-ups are made. A follow-up is asked
alone, joined to its turns, with its turns as context (the service's own functions), and as the whole query that it was
made of, which is what a perfect rewriting model would ask. For whole queries after turns about something else, alone
and whole are the same, and what the context loses is the price of a change of topic. Sparse lists are exact, keyword
lists come from a real node.

The series of qmsum_meetings flatter every use of turns: their one relevant document is the meeting that all of them
are about. They have no part in the choice of the parameters.
"""

import argparse
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from benchmarks.collection_windows import collection_windows
from benchmarks.derived_conversations import Conversation, from_overlap, from_series, unrelated
from benchmarks.feedback import fused
from benchmarks.judged import CANDIDATES, arguments
from benchmarks.keyword_lists import KeywordIndex, keyword_index
from benchmarks.record import run
from benchmarks.sample import sampled
from benchmarks.service import node_settings, opensearch_version
from cli.relevance.collection import Collection, Judgements, open_collection
from cli.relevance.exact import ExactIndex
from cli.relevance.metrics import Rankings, measure
from models.registry import load_encoder
from services.conversation import Memory, carried_pieces, carried_words, word_weights
from services.index_spec import IndexSpec
from services.manifest import resolve
from services.opensearch.client import SyncSearch
from services.opensearch.queries import lexical_query
from services.opensearch.stored_windows import document_vector
from services.query_blend import Blend
from services.query_table import QueryTable
from services.settings import Settings

SERIES = "qmsum_meetings"
TURNS = 5
MOST = 1000
MEMORIES: Final[Mapping[str, Memory]] = {
    "context": Memory(),
    **{f"share {s}, rarity {r}": Memory(s, Memory().decay, r) for s, r in product((0.25, 0.5, 0.75, 1.0), (0, 1, 2))},
    **{f"decay {decay}": Memory(decay=decay) for decay in (0.0, 0.25, 0.5, 0.75, 1.0)},
}


def conversations(name: str, collection: Collection) -> dict[str, list[Conversation]]:
    """The sets of a collection: follow-ups, and whole queries after turns about something else."""
    queries = collection.judged
    if name == SERIES:
        series = from_series(queries, lambda query: query.rpartition("-")[0], TURNS)
        return {"follow-ups": series, "other topic": unrelated(queries, 3)}
    return {"follow-ups": from_overlap(queries), "other topic": unrelated(queries, 1)}


@dataclass(frozen=True)
class Bench:
    """What a collection's conversations are asked of."""

    index: ExactIndex
    keywords: KeywordIndex
    table: QueryTable
    most_added: int

    def figures(self, found: list[Conversation], judgements: Judgements) -> dict[str, Any]:
        """NDCG@10 of the sparse, the keyword and the fused list by way of asking."""
        judged = {one.query: judgements[one.query] for one in found}

        def row(sparse: Rankings, lexical: Rankings) -> dict[str, float]:
            lists = {"sparse": sparse, "lexical": lexical, "hybrid": fused(sparse, lexical)}
            return {name: round(measure(judged, one).mean["ndcg@10"], 5) for name, one in lists.items()}

        texts = {
            "alone": {one.query: one.follow_up for one in found},
            "joined": {one.query: " ".join((*one.turns, one.follow_up)) for one in found},
            "whole": {one.query: one.whole for one in found},
        }
        plain = {name: (self._sparse(of), self._lexical(of)) for name, of in texts.items()}
        rows = {name: row(*lists) for name, lists in plain.items()}
        for name, memory in MEMORIES.items():
            sparse = {one.query: self._with_context(one, memory) for one in found}
            rows[name] = row(sparse, self._words_with_context(found, memory))
            if name == "context":
                rows["context for the sparse list alone"] = row(sparse, plain["alone"][1])
        twice = {one.query: self._with_context(one, Memory(), again=True) for one in found}
        rows["context, what is said again counts again"] = row(twice, plain["alone"][1])
        return rows

    def _sparse(self, texts: Mapping[str, str]) -> Rankings:
        return {query: self.index.search(self.table.encode(text).by_id(), CANDIDATES) for query, text in texts.items()}

    def _lexical(self, texts: Mapping[str, str]) -> Rankings:
        return self.keywords.lists({query: lexical_query(text) for query, text in texts.items()}, CANDIDATES)

    def _with_context(self, one: Conversation, memory: Memory, *, again: bool = False) -> list[tuple[str, float]]:
        words = self.table.encode(one.follow_up)
        turns = [self.table.encode(turn).by_id() for turn in one.turns]
        share = carried_pieces({} if again else words.by_id(), turns, self.table.heaviest, memory, self.most_added)
        return self.index.search(Blend.of(words).plus([share], MOST).vector.by_id(), CANDIDATES)

    def _words_with_context(self, found: list[Conversation], memory: Memory) -> Rankings:
        queries = {}
        for one in found:
            carried = carried_words(one.follow_up, one.turns, word_weights(self.table, one.turns), memory)
            queries[one.query] = lexical_query(one.follow_up, carried)
        return self.keywords.lists(queries, CANDIDATES)


def means(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over the collections without series, of each set and of both."""
    counted = [tables for name, tables in found.items() if name.partition("/")[0] != SERIES]
    if not counted:
        return {}
    sets = ("follow-ups", "other topic")
    rows: dict[str, Any] = {}
    for row in counted[0][sets[0]]["figures"]:
        by_set = {
            one: {
                name: round(sum(tables[one]["figures"][row][name] for tables in counted) / len(counted), 5)
                for name in ("sparse", "lexical", "hybrid")
            }
            for one in sets
        }
        rows[row] = by_set | {"both": {name: round((by_set[sets[0]][name] + by_set[sets[1]][name]) / 2, 5)
                                       for name in ("sparse", "lexical", "hybrid")}}  # fmt: skip
    return rows


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """The figures of every set of conversations, and their means."""
    encoder = load_encoder(given.encoder, threads=given.threads)
    table = QueryTable.load(resolve(given.encoder))
    top_k = IndexSpec.model_validate({}).document_top_k
    found: dict[str, Any] = {}
    with node_settings() as settings, closing(SyncSearch(settings)) as search:
        version = opensearch_version(settings)
        for wanted in given.collections.split(","):
            name, _, every = wanted.partition("/")
            collection = sampled(open_collection(given.data / name), int(every or 1))
            windows = collection_windows(collection, encoder, given.cache)
            index = ExactIndex({document: document_vector(of_it, top_k) for document, of_it in windows.items()})
            with keyword_index(search, settings, collection) as keywords:
                bench = Bench(index, keywords, table, Settings().max_added_pieces)
                found[wanted] = {
                    one: {
                        "conversations": len(some),
                        "figures": bench.figures(some, collection.judgements),
                    }
                    for one, some in conversations(name, collection).items()
                }
            for one, rows in found[wanted].items():
                print(wanted, one, {row: rows["figures"][row] for row in ("alone", "context", "joined", "whole")})
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "derived": "follow-ups and turns are made from judged queries by rule; see benchmarks.derived_conversations",
        "mean_ndcg@10_without_series": means(found),
        "by_collection": found,
    }


def main(given: list[str] | None = None) -> None:
    """The command."""
    run("conversation", arguments("conversation", __doc__), measured, given)


if __name__ == "__main__":
    main()
