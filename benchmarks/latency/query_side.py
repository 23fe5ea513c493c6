"""Costs of the query side: suggestions, feedback, and the query table.

    python -m benchmarks suggest ../shared/data/collections --json benchmarks/results/suggest.json
    python -m benchmarks feedback_cost --json benchmarks/results/feedback_cost.json
    python -m benchmarks query_encoding --json benchmarks/results/query_encoding.json

`suggest`: 60,000 titles of three to seven words, drawn by their frequency in the collections; prefixes of two to ten
letters are completed and searched in turn at the node. Spelling: words of judged queries that the collection has get
one error each; if lexical search then finds nothing, the word is corrected as in a search and, for comparison, in the
stems of lexical search (docs/decisions/0178).

`feedback_cost`: the same questions with and without feedback, examples and context through the real API, for short and
for long documents. Feedback is a second search and the reading of three documents' vectors, so the ratio to a plain
search counts (docs/decisions/0155).

`query_encoding`: microseconds per query. `natural` are committed questions with exactly that many words, `cut` are
stretches of that many words of all questions. It needs no server.
"""

import argparse
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import orjson
import uvloop

from benchmarks.measuring import make_parser, percentile_ratios, run_benchmark, summarise_durations, take_turns
from benchmarks.service import (
    LoopbackConnection,
    create_index,
    journal_documents,
    open_node,
    read_opensearch_version,
    run_process,
)
from benchmarks.stdlib import encode_stdlib, fill_stdlib_index, join_documents, read_everyday_questions
from models.judged_collection import JudgedCollection, open_collection
from query_api.spelling import find_corrections
from services.documents.document import Document
from services.encoders.dense_query_table import DenseQueryEncoder
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.index_spec import Generation
from services.opensearch.analysis import (
    MIN_WORD_CHARACTERS,
    analyse_terms_call,
    read_analysed_terms,
    read_similar_terms,
    read_term_counts,
    similar_terms_body,
    term_counts_body,
)
from services.opensearch.client import AsyncSearchClient, SyncSearchClient
from services.opensearch.generations import refresh_call
from services.opensearch.queries import SearchPlan, build_search_body, lexical_query, search_call
from services.opensearch.suggestions import title_suggestions_plan
from services.settings import Settings

# Documents of Python's documentation in one long document.
JOINED_DOCUMENTS = 10
FEEDBACK_CASES: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "hybrid, feedback": {"feedback": {}},
    "hybrid, three turns": {},
    "sparse": {"mode": "sparse"},
    "sparse, feedback by the sparse list": {"mode": "sparse", "feedback": {"choose_by": "sparse"}},
    "sparse, like three documents": {"mode": "sparse"},
}
QUERY_WORD_COUNTS = (1, 3, 6, 10, 12, 25, 50)
TARGET_MICROSECONDS = 50
NATURAL_QUERIES = "6 words, natural"
_WORD = re.compile(r"[a-z]+")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TIMEOUT_SECONDS = 30.0


def suggest(argv: list[str] | None = None) -> None:
    """Measure the latency of title completion and the share of misspelt words that are corrected."""
    parser = make_parser("suggest", suggest.__doc__)
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default="cranfield,medline")
    parser.add_argument("--titles", type=int, default=60_000, help="0: spelling only")
    parser.add_argument("--prefixes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    run_benchmark("suggest", parser, measure_suggestions, argv)


def measure_suggestions(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of spelling and of latency."""
    collections = [open_collection(arguments.data / name) for name in arguments.collections.split(",")]
    figures: dict[str, Any] = {}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        figures["spelling"] = {
            collection.name: measure_spelling(collection, search, settings) for collection in collections
        }
        if arguments.titles:
            words = count_words([document.text for collection in collections for document in collection.documents()])
            titles = draw_titles(words, arguments.titles)
            generation = create_index(search, settings, "titles")
            for start in range(0, len(titles), 5000):
                batch = titles[start : start + 5000]
                journal_documents(
                    search, settings, generation, [Document(f"d{start + n}", t, t) for n, t in enumerate(batch)]
                )
            search.send(refresh_call(generation.physical))
            order = random.Random(2)
            typed = [title[: order.randint(2, 10)].lstrip() for title in order.sample(titles, arguments.prefixes)]
            figures["latency"] = uvloop.run(measure_latency(settings, generation, typed, arguments.rounds))
            for name, side in figures["latency"].items():
                print(f"{name:>6}: {side['ms']}", flush=True)
        figures["opensearch"] = read_opensearch_version(settings)
    return figures


def measure_spelling(collection: JudgedCollection, search: SyncSearchClient, settings: Settings) -> dict[str, Any]:
    """Return the shares of misspelt words without lexical hits that are corrected rightly, wrongly or not at all."""
    documents = [Document(document.id, document.text, document.title) for document in collection.documents()]
    generation = create_index(search, settings, collection.name)
    journal_documents(search, settings, generation, documents)
    search.send(refresh_call(generation.physical))
    known = count_words([f"{document.title} {document.text}" for document in documents])
    words = sorted(
        word
        for word in count_words(list(collection.judged.values()))
        if len(word) > MIN_WORD_CHARACTERS and known[word] > 0
    )
    chance, speller = random.Random(1), WordCorrector(search, generation)
    counts: Counter[str] = Counter()
    for word in words:
        wrong = misspell_word(word, chance)
        if wrong in known or speller.is_found(wrong):
            counts["found despite the error"] += 1
            continue
        counts["looked up"] += 1
        suggested = speller.corrected(wrong)
        counts["right" if suggested == word else "none" if suggested is None else "another"] += 1
        counts["right or of the same stem"] += suggested is not None and speller.stem(suggested) == speller.stem(word)
        counts["right in stems"] += speller.corrected(wrong, "lexical") == speller.stem(word)
    shares = {name: round(counts[name] / counts["looked up"], 3) for name in
              ("right", "right or of the same stem", "another", "none", "right in stems")}  # fmt: skip
    print(f"{collection.name}: {counts['looked up']} misspelt words, {shares}", flush=True)
    return {"words": len(words), "found despite the error": counts["found despite the error"], "shares": shares}


def misspell_word(word: str, chance: random.Random) -> str:
    """Return the word with one error: a letter removed, inserted, replaced or swapped."""
    position = chance.randrange(len(word))
    match chance.randrange(4):
        case 0:
            return word[:position] + word[position + 1 :]
        case 1:
            return word[:position] + chance.choice(_LETTERS) + word[position:]
        case 2:
            return word[:position] + chance.choice(_LETTERS.replace(word[position], "")) + word[position + 1 :]
    position = min(position, len(word) - 2)
    return word[:position] + word[position + 1] + word[position] + word[position + 2 :]


def count_words(texts: Iterator[str] | Sequence[str]) -> Counter[str]:
    """Return the frequencies of words of ASCII letters."""
    return Counter(word for text in texts for word in _WORD.findall(text.lower()))


class WordCorrector:
    """Correction of a word as in a search, by the words or by the stems of an index."""

    def __init__(self, search: SyncSearchClient, generation: Generation) -> None:
        self._search = search
        self._index = generation.physical
        self._words = generation.spec.spelling_field

    def is_found(self, word: str) -> bool:
        """Return whether lexical search finds a document with the word."""
        answer = self._search.send(
            search_call(
                SearchPlan(self._index, build_search_body(lexical_query(word), 1, False, _TIMEOUT_SECONDS)),
                _TIMEOUT_SECONDS,
            )
        )
        return bool(answer["hits"]["hits"])

    def corrected(self, word: str, field: str | None = None) -> str | None:
        """Return the suggested word, or None."""
        field = field or self._words
        similar = similar_terms_body(field, word, _TIMEOUT_SECONDS, folds=True, all_words=True)
        unknown = read_similar_terms(self._send(similar), word)
        if not unknown:
            return None
        counts = term_counts_body(field, unknown, "", (), (), _TIMEOUT_SECONDS)
        typed, documents = read_term_counts(self._send(counts), unknown)
        return next((correction.suggested for correction in find_corrections(word, unknown, typed, documents)), None)

    def stem(self, word: str) -> str:
        """Return the stem that lexical search uses for a word."""
        terms = read_analysed_terms(
            self._search.send(analyse_terms_call(self._index, "lexical", [word], _TIMEOUT_SECONDS)), [word]
        )
        return terms[word][0].text if word in terms else ""

    def _send(self, body: dict[str, Any]) -> Any:
        return self._search.send(search_call(SearchPlan(self._index, body), _TIMEOUT_SECONDS))


def draw_titles(words: Counter[str], count: int) -> list[str]:
    """Return titles of words drawn by their frequency."""
    order = random.Random(1)
    drawn = iter(order.choices(list(words), list(words.values()), k=7 * count))
    return [" ".join(next(drawn) for _ in range(order.randint(3, 7))) for _ in range(count)]


async def measure_latency(
    settings: Settings, generation: Generation, typed: Sequence[str], rounds: int
) -> dict[str, Any]:
    """Return milliseconds of suggestions and of a lexical search for the same letters."""
    search = AsyncSearchClient(settings)

    def make_suggestion_sender(*, fuzzy: bool) -> Any:
        async def send(letters: str) -> None:
            await search.send(
                search_call(
                    title_suggestions_plan(generation.physical, letters, 8, (), (), _TIMEOUT_SECONDS, fuzzy=fuzzy),
                    _TIMEOUT_SECONDS,
                )
            )

        return send

    async def match(letters: str) -> None:
        plan = SearchPlan(
            generation.physical, build_search_body(lexical_query(letters), 8, ["title"], _TIMEOUT_SECONDS)
        )
        await search.send(search_call(plan, _TIMEOUT_SECONDS))

    sides = {"match": match, "exact": make_suggestion_sender(fuzzy=False), "fuzzy": make_suggestion_sender(fuzzy=True)}
    durations = await take_turns(sides, typed, rounds)
    await search.close()
    spreads = {name: summarise_durations(values) for name, values in durations.items()}
    return {name: {"ms": ms, "over match": percentile_ratios(ms, spreads["match"])} for name, ms in spreads.items()}


def feedback_cost(argv: list[str] | None = None) -> None:
    """Compare searches with feedback, examples or context with the plain search."""
    parser = make_parser("feedback_cost", feedback_cost.__doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=6, help="rounds over all questions and sides")
    run_benchmark("feedback_cost", parser, measure_feedback, argv)


def measure_feedback(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the table for short and for long documents."""
    rows: dict[str, Any] = {}
    with open_node() as settings:
        short = encode_stdlib(settings, arguments.documents)
        for size, encoded in {
            "short documents": short,
            "long documents": join_documents(short, JOINED_DOCUMENTS),
        }.items():
            generation = fill_stdlib_index(settings, encoded, size.partition(" ")[0])
            liked = [document.id for document, _ in encoded]
            with run_process(settings, "api"):
                uvloop.run(compare_feedback(settings, generation.index, liked, 1))  # warms up the JVM
                rows[size] = uvloop.run(compare_feedback(settings, generation.index, liked, arguments.rounds))
            for side, row in rows[size].items():
                print(f"{size:>15}, {side:>36}: p50 {row['ms']['p50']:.2f} ms, {row['over_plain']['p50']:.2f} of plain")
        version = read_opensearch_version(settings)
    return {"opensearch": version, "documents": arguments.documents, "cases": rows}


def make_requests(questions: Sequence[str], liked: Sequence[str]) -> dict[str, dict[str, bytes]]:
    """Return the body of each side for each question. Turns are the three questions before it in the list."""
    bodies: dict[str, dict[str, bytes]] = {side: {} for side in FEEDBACK_CASES}
    for position, question in enumerate(questions):
        for side, members in FEEDBACK_CASES.items():
            body: dict[str, Any] = {"query": question, "size": 10} | members
            if "turns" in side:
                body["context"] = {"turns": [questions[position - back] for back in (3, 2, 1)]}
            if "like" in side:
                body["like"] = [liked[(position + step) % len(liked)] for step in range(3)]
            bodies[side][question] = orjson.dumps(body)
    return bodies


async def compare_feedback(settings: Settings, index: str, liked: Sequence[str], rounds: int) -> dict[str, Any]:
    """Return milliseconds of each side, the API's stages, and the ratio to the plain search."""
    questions = read_everyday_questions()
    bodies = make_requests(questions, liked)
    stages: dict[str, dict[str, list[float]]] = {side: {} for side in FEEDBACK_CASES}
    async with LoopbackConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:

        def make_sender(side: str) -> Any:
            async def send(question: str) -> None:
                answer = await connection.send("POST", f"/v1/indexes/{index}/search", bodies[side][question])
                for stage, value in answer["timings_ms"].items():
                    stages[side].setdefault(stage, []).append(value)

            return send

        durations = await take_turns({side: make_sender(side) for side in FEEDBACK_CASES}, questions, rounds)
    ms = {side: summarise_durations(values) for side, values in durations.items()}
    return {
        side: {
            "ms": ms[side],
            "over_plain": percentile_ratios(ms[side], ms[side.partition(",")[0]]),
            "stages_p50_ms": {stage: summarise_durations(values)["p50"] for stage, values in stages[side].items()},
        }
        for side in FEEDBACK_CASES
    }


def query_encoding(argv: list[str] | None = None) -> None:
    """Measure the time from a query's text to its weighted pieces, and to the dense vector of a rerank by the table."""
    parser = make_parser("query_encoding", query_encoding.__doc__)
    parser.add_argument("--encoder", default=Settings.read().encoder)
    parser.add_argument("--calls", type=int, default=20_000, help="calls of each set")
    run_benchmark("query_encoding", parser, measure_encoding, argv)


def measure_encoding(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the table by set of queries."""
    directory = resolve_model_directory(arguments.encoder)
    table = QueryTable.load(directory)
    dense = DenseQueryEncoder.load(directory, table)

    def encode_both(query: str) -> None:
        table.encode(query, 1000)
        if dense is not None:
            dense.encode(query)

    rows: dict[str, Any] = {}
    for name, queries in make_query_sets(read_everyday_questions()).items():
        pieces = [table.encode(query, 1000).pieces for query in queries]
        row = summarise_durations(time_microseconds(table.encode, queries, arguments.calls), 1)
        both = summarise_durations(time_microseconds(encode_both, queries, arguments.calls), 1)
        rows[name] = {
            "queries": len(queries),
            "pieces": round(sum(pieces) / len(pieces), 1),
            "microseconds": row,
            "with_dense_vector_microseconds": both,
        }
        print(
            f"{name:>17}: p50 {row['p50']:6.1f} us  p99 {row['p99']:6.1f} us  ({rows[name]['pieces']} pieces); "
            f"with the dense vector p50 {both['p50']:6.1f} us  p99 {both['p99']:6.1f} us"
        )
    reached = rows[NATURAL_QUERIES]["microseconds"]["p50"] <= TARGET_MICROSECONDS
    print(f"target: at most {TARGET_MICROSECONDS} us for six words: {'reached' if reached else 'MISSED'}")
    return {
        "encoder": {"name": table.manifest.name, "fingerprint": table.fingerprint},
        "target": {"six_words_p50_microseconds": TARGET_MICROSECONDS, "reached": reached},
        "queries": rows,
    }


def make_query_sets(texts: Sequence[str]) -> dict[str, list[str]]:
    """Return queries by length and origin."""
    words = [word for text in texts for word in text.split()]
    sets = {NATURAL_QUERIES: [text for text in texts if len(text.split()) == 6]}
    for length in QUERY_WORD_COUNTS:
        starts = range(0, len(words) - length, max(1, length // 2))
        sets[f"{length} words, cut"] = [" ".join(words[start : start + length]) for start in starts]
    return sets


def time_microseconds(encode: Callable[[str], object], queries: Sequence[str], calls: int) -> list[float]:
    """Return the microseconds of each call; the first pass over the queries is not counted."""
    for query in queries:
        encode(query)
    durations: list[float] = []
    while len(durations) < calls:
        for query in queries:
            started = perf_counter_ns()
            encode(query)
            durations.append((perf_counter_ns() - started) / 1000)
    return durations
