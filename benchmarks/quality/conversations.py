"""Context of earlier turns: its gain for follow-up queries, and its loss after a change of topic.

    python -m benchmarks conversation DATA --json benchmarks/results/conversation.json

No judged conversational collection is at hand, so conversations are derived by rule from judged queries, and figures on
them are of the derivation. A follow-up is a judged query without the content words of an earlier turn, as speakers
leave out understood words (ellipsis). Documents judged relevant to the whole query are relevant; the whole query is
also the rewriting of a perfect model.

- `conversations_from_overlap`: the turn is another query of the collection that shares words with this one.
- `conversations_from_series`: the turns are the queries of one series (questions about one meeting), in their order.
- `unrelated_conversations`: the turns share no content word and the query is whole: any change by the context is harm.

A follow-up is searched alone, joined to its turns, with its turns as context (the service's own functions), and whole.
Sparse lists are exact, lexical lists come from a real node. The series of qmsum_meetings flatter every use of turns,
because all their turns are about the one relevant meeting; they have no part in the choice of parameters
(docs/decisions/0156).
"""

import argparse
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from benchmarks.collections import (
    CANDIDATE_COUNT,
    LexicalIndex,
    encode_collection_windows,
    judged_arguments,
    open_lexical_index,
    open_sample,
)
from benchmarks.measuring import run_benchmark
from benchmarks.quality.feedback import fuse_named_lists
from benchmarks.service import open_node, read_opensearch_version
from cli.relevance.exact_search import ExactIndex
from cli.relevance.metrics import Rankings, measure_rankings
from models.judged_collection import JudgedCollection, Judgements
from models.registry import load_encoder
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.index_spec import IndexSpec
from services.opensearch.analysis import blank_stop_words
from services.opensearch.client import SyncSearchClient
from services.opensearch.queries import lexical_query
from services.opensearch.stored_document import document_vector
from services.query.expansion import ConversationMemory, QueryBlend, context_pieces, context_words, word_weights
from services.settings import Settings

SERIES_COLLECTION = "qmsum_meetings"
MAX_TURNS = 5
MAX_QUERIES = 1000
CONTEXT_SETTINGS: Final[Mapping[str, ConversationMemory]] = {
    "context": ConversationMemory(),
    **{
        f"share {s}, rarity {r}": ConversationMemory(s, ConversationMemory().decay, r)
        for s, r in product((0.25, 0.5, 0.75, 1.0), (0, 1, 2))
    },
    **{f"decay {decay}": ConversationMemory(decay=decay) for decay in (0.0, 0.25, 0.5, 0.75, 1.0)},
}
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# Lucene's English stop words, and question words, pronouns and auxiliaries.
_FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
        "this to was will with what which who whom whose why when where how does did do done has have had can could "
        "would should may might must been being were he she him her his them its i you we us our my your me from about "
        "than also any some each between during using used use other others more most so up out over very "
    )
)
# A word in more than this share of the queries, and in more than this number, is not a content word.
_MAX_SHARE, _MIN_COUNT = 0.1, 5


@dataclass(frozen=True, slots=True)
class Conversation:
    """Conversation: `query` is the id of the judged query `whole`, `turns` come before it, oldest first."""

    query: str
    turns: tuple[str, ...]
    follow_up: str
    whole: str


class ContentWords:
    """Content words of a collection's queries."""

    def __init__(self, queries: Iterable[str]) -> None:
        """Count the words; words in more than a tenth of the queries ("summarize", "python") distinguish nothing."""
        queries_words = [_split_words(text) for text in queries]
        counts = Counter(word for words in queries_words for word in words)
        frequent = {word for word, count in counts.items() if count > max(_MIN_COUNT, len(queries_words) * _MAX_SHARE)}
        self._empty = frequent | _FUNCTION_WORDS

    def content(self, text: str) -> set[str]:
        """Return the content words of a text, in lower case."""
        return _split_words(text) - self._empty

    def ellipsis(self, whole: str, turns: Iterable[str]) -> str | None:
        """Return the query without the content words of `turns`; None if nothing changes or no content word is left."""
        known = set().union(*(self.content(turn) for turn in turns))
        left = " ".join(_WORD.sub(lambda m: "" if m[0].casefold() in known else m[0], whole).split())
        content = self.content(left)
        return left if content and content != self.content(whole) else None


def _split_words(text: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(text)}


def conversations_from_overlap(queries: Mapping[str, str]) -> list[Conversation]:
    """Return each query after the other query that shares the most content words with it.

    If shares are equal, the shorter turn wins, then the first id.
    """
    content_words = ContentWords(queries.values())
    words = {query: content_words.content(text) for query, text in queries.items()}
    conversations = []
    for query, whole in queries.items():
        shared = [
            (-len(words[query] & words[other]), len(words[other]), other)
            for other in queries
            if words[query] & words[other] and words[other] != words[query]
        ]
        for _, _, other in sorted(shared):
            follow_up = content_words.ellipsis(whole, [queries[other]])
            if follow_up is not None:
                conversations.append(Conversation(query, (queries[other],), follow_up, whole))
                break
    return conversations


def conversations_from_series(
    queries: Mapping[str, str], series: Callable[[str], str], max_turns: int
) -> list[Conversation]:
    """Return the queries of a series that leave words out, each after at most `max_turns` earlier queries.

    Turns have their ellipsis. Queries that leave no words out are turns of later queries.
    """
    content_words = ContentWords(queries.values())
    turns_of: dict[str, list[str]] = {}
    conversations = []
    for query, whole in queries.items():
        before = turns_of.setdefault(series(query), [])
        turns = tuple(before[-max_turns:])
        follow_up = content_words.ellipsis(whole, turns) if turns else None
        if follow_up is not None:
            conversations.append(Conversation(query, turns, follow_up, whole))
        before.append(follow_up or whole)
    return conversations


def unrelated_conversations(queries: Mapping[str, str], turns: int, seed: int = 0) -> list[Conversation]:
    """Return each whole query after `turns` random queries that share no content word with it."""
    chance = random.Random(seed)
    content_words = ContentWords(queries.values())
    words = {query: content_words.content(text) for query, text in queries.items()}
    conversations = []
    for query, whole in queries.items():
        others = [other for other in queries if not words[query] & words[other]]
        if len(others) >= turns:
            drawn: Sequence[str] = chance.sample(others, turns)
            conversations.append(Conversation(query, tuple(queries[other] for other in drawn), whole, whole))
    return conversations


@dataclass(frozen=True)
class ConversationBench:
    """Indexes and query table of a collection."""

    index: ExactIndex
    lexical: LexicalIndex
    table: QueryTable
    max_added: int

    def figures(self, conversations: list[Conversation], judgements: Judgements) -> dict[str, Any]:
        """Return NDCG@10 of the sparse, the lexical and the fused list, by way to search."""
        judged = {c.query: judgements[c.query] for c in conversations}

        def row(sparse: Rankings, lexical: Rankings) -> dict[str, float]:
            lists = {"sparse": sparse, "lexical": lexical, "hybrid": fuse_named_lists(sparse, lexical)}
            return {
                name: round(measure_rankings(judged, rankings).mean["ndcg@10"], 5) for name, rankings in lists.items()
            }

        texts = {
            "alone": {c.query: c.follow_up for c in conversations},
            "joined": {c.query: " ".join((*c.turns, c.follow_up)) for c in conversations},
            "whole": {c.query: c.whole for c in conversations},
        }
        plain = {name: (self._sparse(queries), self._lexical(queries)) for name, queries in texts.items()}
        rows = {name: row(*lists) for name, lists in plain.items()}
        for name, memory in CONTEXT_SETTINGS.items():
            sparse = {c.query: self._with_context(c, memory) for c in conversations}
            lexical = self.lexical.lists(lexical_queries_in_context(conversations, memory, self.table), CANDIDATE_COUNT)
            rows[name] = row(sparse, lexical)
            if name == "context":
                rows["context for the sparse list alone"] = row(sparse, plain["alone"][1])
        twice = {c.query: self._with_context(c, ConversationMemory(), again=True) for c in conversations}
        rows["context, repeated pieces counted again"] = row(twice, plain["alone"][1])
        return rows

    def _sparse(self, texts: Mapping[str, str]) -> Rankings:
        return {
            query: self.index.search(self.table.encode(text).by_id(), CANDIDATE_COUNT) for query, text in texts.items()
        }

    def _lexical(self, texts: Mapping[str, str]) -> Rankings:
        return self.lexical.lists(
            {query: lexical_query(blank_stop_words(text)) for query, text in texts.items()}, CANDIDATE_COUNT
        )

    def _with_context(
        self, conversation: Conversation, memory: ConversationMemory, *, again: bool = False
    ) -> list[tuple[str, float]]:
        weights = sparse_query_in_context(conversation, memory, self.table, self.max_added, again=again)
        return self.index.search(weights, CANDIDATE_COUNT)


def sparse_query_in_context(
    conversation: Conversation, memory: ConversationMemory, table: QueryTable, max_added: int, *, again: bool = False
) -> dict[int, float]:
    """Return the weights of a follow-up with its turns as context; `again` adds repeated pieces once more."""
    words = table.encode(conversation.follow_up)
    turns = [table.encode(turn).by_id() for turn in conversation.turns]
    share = context_pieces({} if again else words.by_id(), turns, table.heaviest, memory, max_added)
    return QueryBlend.of(words).plus([share], MAX_QUERIES).vector.by_id()


def lexical_queries_in_context(
    conversations: Iterable[Conversation], memory: ConversationMemory, table: QueryTable
) -> dict[str, dict[str, Any]]:
    """Return the lexical query of each follow-up with the words of its turns."""
    return {
        c.query: lexical_query(c.follow_up, context_words(c.follow_up, c.turns, word_weights(table, c.turns), memory))
        for c in conversations
    }


def conversation(argv: list[str] | None = None) -> None:
    """Measure NDCG@10 of follow-up queries alone, with context, and rewritten."""
    run_benchmark("conversation", judged_arguments("conversation", conversation.__doc__), measure_conversations, argv)


def measure_conversations(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every set of conversations, and their means."""
    encoder = load_encoder(arguments.encoder, threads=arguments.threads)
    table = QueryTable.load(resolve_model_directory(arguments.encoder))
    top_k = IndexSpec.model_validate({}).document_top_k
    results: dict[str, Any] = {}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        version = read_opensearch_version(settings)
        for label in arguments.collections.split(","):
            name = label.partition("/")[0]
            collection = open_sample(arguments.data, label)
            windows = encode_collection_windows(collection, encoder, arguments.cache)
            index = ExactIndex({document: document_vector(own, top_k) for document, own in windows.items()})
            with open_lexical_index(search, settings, collection) as lexical:
                bench = ConversationBench(index, lexical, table, Settings().max_added_pieces)
                results[label] = {
                    kind: {
                        "conversations": len(conversations),
                        "figures": bench.figures(conversations, collection.judgements),
                    }
                    for kind, conversations in derive_conversations(name, collection).items()
                }
            for kind, rows in results[label].items():
                print(label, kind, {row: rows["figures"][row] for row in ("alone", "context", "joined", "whole")})
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "derived": "follow-ups and turns are made from judged queries by rule; see benchmarks.quality.conversations",
        "mean_ndcg@10_without_series": mean_figures(results),
        "by_collection": results,
    }


def derive_conversations(name: str, collection: JudgedCollection) -> dict[str, list[Conversation]]:
    """Return the sets of a collection: follow-ups, and whole queries after another topic."""
    queries = collection.judged
    if name == SERIES_COLLECTION:
        series = conversations_from_series(queries, lambda query: query.rpartition("-")[0], MAX_TURNS)
        return {"follow-ups": series, "other topic": unrelated_conversations(queries, 3)}
    return {"follow-ups": conversations_from_overlap(queries), "other topic": unrelated_conversations(queries, 1)}


def mean_figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means over the collections without series, of each set and of both."""
    counted = [tables for name, tables in results.items() if name.partition("/")[0] != SERIES_COLLECTION]
    if not counted:
        return {}
    sets = ("follow-ups", "other topic")
    rows: dict[str, Any] = {}
    for row in counted[0][sets[0]]["figures"]:
        by_set = {
            kind: {
                name: round(sum(tables[kind]["figures"][row][name] for tables in counted) / len(counted), 5)
                for name in ("sparse", "lexical", "hybrid")
            }
            for kind in sets
        }
        rows[row] = by_set | {"both": {name: round((by_set[sets[0]][name] + by_set[sets[1]][name]) / 2, 5)
                                       for name in ("sparse", "lexical", "hybrid")}}  # fmt: skip
    return rows
