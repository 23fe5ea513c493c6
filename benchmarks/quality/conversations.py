"""Do earlier turns help a query that leaves out what they said? On conversations derived from judged queries.

    python -m benchmarks.conversation DATA --json benchmarks/results/conversation.json

Nobody held these conversations: `benchmarks.derived_conversations` says how follow-ups are made. A follow-up is asked
alone, joined to its turns, with its turns as context (the service's own functions), and as the whole query that it was
made of, which is what a perfect rewriting model would ask. For whole queries after turns about something else, alone
and whole are the same, and what the context loses is the price of a change of topic. Sparse lists are exact, keyword
lists come from a real node.

The series of qmsum_meetings flatter every use of turns: their one relevant document is the meeting that all of them
are about. They have no part in the choice of the parameters.

Conversations derived by rule from judged queries. Nobody ever held them: figures on them are of the derivation.

There is no judged conversational collection at hand, so follow-ups are made: from a judged query every content word
that an earlier turn has said is left out, as speakers leave out what is understood (ellipsis). What is to be results
stays what was judged relevant to the whole query, and the whole query is the rewriting that a perfect model would give.

- `conversations_from_overlap`: the earlier turn is another query of the collection that shares words with this one.
- `conversations_from_series`: the turns are the queries of one series (questions about one meeting), in their order.
- `unrelated_conversations`: the earlier turn is a query that shares no content word, and the follow-up is a whole query: nothing is
  to be carried over, so whatever the context changes is harm.
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
    KeywordIndex,
    encode_collection_windows,
    judged_arguments,
    open_keyword_index,
    sample_collection,
)
from benchmarks.measuring import run_benchmark
from benchmarks.quality.feedback import fuse_named_lists
from benchmarks.service import open_node, read_opensearch_version
from cli.relevance.collection import JudgedCollection, Judgements, open_collection
from cli.relevance.metrics import ExactIndex, Rankings, measure_rankings
from models.registry import load_encoder
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.index_spec import IndexSpec
from services.opensearch.client import SyncSearchClient
from services.opensearch.queries import lexical_query
from services.opensearch.stored_document import document_vector
from services.query.expansion import ConversationMemory, QueryBlend, context_pieces, context_words, word_weights
from services.settings import Settings

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# Lucene's English stop words, question words, pronouns, auxiliaries, and the like.
_FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
        "this to was will with what which who whom whose why when where how does did do done has have had can could "
        "would should may might must been being were he she him her his them its i you we us our my your me from about "
        "than also any some each between during using used use other others more most so up out over very "
    )
)
_OFTEN, _FEW = 0.1, 5


@dataclass(frozen=True, slots=True)
class Conversation:
    """`query` names the judged query; `turns` were said before, oldest first; `whole` is the query as it was judged."""

    query: str
    turns: tuple[str, ...]
    follow_up: str
    whole: str


class ContentWords:
    """What the words of a collection's queries say: which of them are about something."""

    def __init__(self, queries: Iterable[str]) -> None:
        """Words in more than a tenth of the queries ("summarize", "discussion", "python") tell none from another."""
        each = [_split_words(text) for text in queries]
        counts = Counter(word for words in each for word in words)
        often = {word for word, count in counts.items() if count > max(_FEW, len(each) * _OFTEN)}
        self._empty = often | _FUNCTION_WORDS

    def content(self, text: str) -> set[str]:
        """The words of a text that say what it is about, in lower case."""
        return _split_words(text) - self._empty

    def ellipsis(self, whole: str, said: Iterable[str]) -> str | None:
        """The query without the content words of `said`; None when that changes nothing or leaves no content word."""
        known = set().union(*(self.content(turn) for turn in said))
        left = " ".join(_WORD.sub(lambda m: "" if m[0].casefold() in known else m[0], whole).split())
        content = self.content(left)
        return left if content and content != self.content(whole) else None


def _split_words(text: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(text)}


def conversations_from_overlap(queries: Mapping[str, str]) -> list[Conversation]:
    """Each query that shares content words with another one, after that other one; the one that shares most of its own.

    "Most" is the share of the query's content words, of equal ones the shorter turn, then the first by id.
    """
    of_all = ContentWords(queries.values())
    words = {query: of_all.content(text) for query, text in queries.items()}
    results = []
    for query, whole in queries.items():
        shared = [
            (-len(words[query] & words[other]), len(words[other]), other)
            for other in queries
            if words[query] & words[other] and words[other] != words[query]
        ]
        for _, _, other in sorted(shared):
            follow_up = of_all.ellipsis(whole, [queries[other]])
            if follow_up is not None:
                results.append(Conversation(query, (queries[other],), follow_up, whole))
                break
    return results


def conversations_from_series(
    queries: Mapping[str, str], series: Callable[[str], str], most: int
) -> list[Conversation]:
    """Queries of one series, each after at most `most` earlier ones as they were said, ellipsis included.

    Only those in which something was left out; the others are turns of later ones all the same.
    """
    of_all = ContentWords(queries.values())
    said: dict[str, list[str]] = {}
    results = []
    for query, whole in queries.items():
        before = said.setdefault(series(query), [])
        turns = tuple(before[-most:])
        follow_up = of_all.ellipsis(whole, turns) if turns else None
        if follow_up is not None:
            results.append(Conversation(query, turns, follow_up, whole))
        before.append(follow_up or whole)
    return results


def unrelated_conversations(queries: Mapping[str, str], turns: int, seed: int = 0) -> list[Conversation]:
    """Each whole query after `turns` others, drawn at random, that share no content word with it."""
    draw = random.Random(seed)
    of_all = ContentWords(queries.values())
    words = {query: of_all.content(text) for query, text in queries.items()}
    results = []
    for query, whole in queries.items():
        others = [other for other in queries if not words[query] & words[other]]
        if len(others) >= turns:
            drawn: Sequence[str] = draw.sample(others, turns)
            results.append(Conversation(query, tuple(queries[other] for other in drawn), whole, whole))
    return results


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


def derive_conversations(name: str, collection: JudgedCollection) -> dict[str, list[Conversation]]:
    """The sets of a collection: follow-ups, and whole queries after turns about something else."""
    queries = collection.judged
    if name == SERIES_COLLECTION:
        series = conversations_from_series(queries, lambda query: query.rpartition("-")[0], MAX_TURNS)
        return {"follow-ups": series, "other topic": unrelated_conversations(queries, 3)}
    return {"follow-ups": conversations_from_overlap(queries), "other topic": unrelated_conversations(queries, 1)}


@dataclass(frozen=True)
class ConversationBench:
    """What a collection's conversations are asked of."""

    index: ExactIndex
    keywords: KeywordIndex
    table: QueryTable
    most_added: int

    def figures(self, results: list[Conversation], judgements: Judgements) -> dict[str, Any]:
        """NDCG@10 of the sparse, the keyword and the fused list by way of asking."""
        judged = {one.query: judgements[one.query] for one in results}

        def row(sparse: Rankings, lexical: Rankings) -> dict[str, float]:
            lists = {"sparse": sparse, "lexical": lexical, "hybrid": fuse_named_lists(sparse, lexical)}
            return {name: round(measure_rankings(judged, one).mean["ndcg@10"], 5) for name, one in lists.items()}

        texts = {
            "alone": {one.query: one.follow_up for one in results},
            "joined": {one.query: " ".join((*one.turns, one.follow_up)) for one in results},
            "whole": {one.query: one.whole for one in results},
        }
        plain = {name: (self._sparse(of), self._lexical(of)) for name, of in texts.items()}
        rows = {name: row(*lists) for name, lists in plain.items()}
        for name, memory in CONTEXT_SETTINGS.items():
            sparse = {one.query: self._with_context(one, memory) for one in results}
            rows[name] = row(sparse, self._words_with_context(results, memory))
            if name == "context":
                rows["context for the sparse list alone"] = row(sparse, plain["alone"][1])
        twice = {one.query: self._with_context(one, ConversationMemory(), again=True) for one in results}
        rows["context, what is said again counts again"] = row(twice, plain["alone"][1])
        return rows

    def _sparse(self, texts: Mapping[str, str]) -> Rankings:
        return {
            query: self.index.search(self.table.encode(text).by_id(), CANDIDATE_COUNT) for query, text in texts.items()
        }

    def _lexical(self, texts: Mapping[str, str]) -> Rankings:
        return self.keywords.lists({query: lexical_query(text) for query, text in texts.items()}, CANDIDATE_COUNT)

    def _with_context(
        self, one: Conversation, memory: ConversationMemory, *, again: bool = False
    ) -> list[tuple[str, float]]:
        words = self.table.encode(one.follow_up)
        turns = [self.table.encode(turn).by_id() for turn in one.turns]
        share = context_pieces({} if again else words.by_id(), turns, self.table.heaviest, memory, self.most_added)
        return self.index.search(QueryBlend.of(words).plus([share], MAX_QUERIES).vector.by_id(), CANDIDATE_COUNT)

    def _words_with_context(self, results: list[Conversation], memory: ConversationMemory) -> Rankings:
        queries = {}
        for one in results:
            carried = context_words(one.follow_up, one.turns, word_weights(self.table, one.turns), memory)
            queries[one.query] = lexical_query(one.follow_up, carried)
        return self.keywords.lists(queries, CANDIDATE_COUNT)


def mean_figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over the collections without series, of each set and of both."""
    counted = [tables for name, tables in results.items() if name.partition("/")[0] != SERIES_COLLECTION]
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


def measure_conversations(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of every set of conversations, and their means."""
    encoder = load_encoder(arguments.encoder, threads=arguments.threads)
    table = QueryTable.load(resolve_model_directory(arguments.encoder))
    top_k = IndexSpec.model_validate({}).document_top_k
    results: dict[str, Any] = {}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        version = read_opensearch_version(settings)
        for wanted in arguments.collections.split(","):
            name, _, every = wanted.partition("/")
            collection = sample_collection(open_collection(arguments.data / name), int(every or 1))
            windows = encode_collection_windows(collection, encoder, arguments.cache)
            index = ExactIndex({document: document_vector(of_it, top_k) for document, of_it in windows.items()})
            with open_keyword_index(search, settings, collection) as keywords:
                bench = ConversationBench(index, keywords, table, Settings().max_added_pieces)
                results[wanted] = {
                    one: {
                        "conversations": len(some),
                        "figures": bench.figures(some, collection.judgements),
                    }
                    for one, some in derive_conversations(name, collection).items()
                }
            for one, rows in results[wanted].items():
                print(wanted, one, {row: rows["figures"][row] for row in ("alone", "context", "joined", "whole")})
    return {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "derived": "follow-ups and turns are made from judged queries by rule; see benchmarks.quality.conversations",
        "mean_ndcg@10_without_series": mean_figures(results),
        "by_collection": results,
    }


def conversation(argv: list[str] | None = None) -> None:
    """Measure NDCG@10 of follow-up queries alone, with context, and rewritten."""
    run_benchmark("conversation", judged_arguments("conversation", conversation.__doc__), measure_conversations, argv)
