"""Corrections of rare words beside known ones: right and wrong suggestions, and their cost.

    python -m benchmarks corrections ../shared/data/collections --json benchmarks/results/corrections.json

Judged queries of each collection are searched through the API in the mode `lexical`, as they are and with one error in
one word of five letters or more. The first letter stays, and the error leaves a word that the encoder has no piece for.
`suggested` are the corrections of queries as they are, for a reader to judge. `cost` compares searches with and without
`did_you_mean` in turn, by one client (docs/decisions/0255).
"""

import argparse
import random
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import uvloop

from benchmarks.latency.query_side import misspell_word
from benchmarks.measuring import make_parser, percentile_ratios, run_benchmark, summarise_durations, take_turns
from benchmarks.service import (
    LoopbackConnection,
    create_index,
    journal_documents,
    open_node,
    read_opensearch_version,
    run_process,
)
from models.judged_collection import open_collection
from services.documents.document import Document
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import refresh_call
from services.settings import Settings

MAX_QUERIES = 400
_WORD = re.compile(r"[a-z]{5,}")
# Queries with fewer long words do not test a word beside others.
_MIN_WORDS = 2
SIDES = {"did you mean": True, "plain": False}


def corrections(argv: list[str] | None = None) -> None:
    """Measure the corrections of rare words beside known ones."""
    parser = make_parser("corrections", corrections.__doc__)
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default="cisi,cosqa,cranfield,medline")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the cost over all queries and sides")
    run_benchmark("corrections", parser, measure_corrections, argv)


def measure_corrections(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of each collection."""
    figures: dict[str, Any] = {}
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        table = QueryTable.load(resolve_model_directory(settings.encoder))
        queries: dict[str, list[str]] = {}
        for name in arguments.collections.split(","):
            collection = open_collection(arguments.data / name)
            generation = create_index(search, settings, name)
            documents = [Document(document.id, document.text, document.title) for document in collection.documents()]
            journal_documents(search, settings, generation, documents)
            search.send(refresh_call(generation.physical))
            judged = sorted(collection.judged.values())
            queries[name] = random.Random(1).sample(judged, min(MAX_QUERIES, len(judged)))
        with run_process(settings, "api"):
            for name, texts in queries.items():
                figures[name] = uvloop.run(measure_collection(settings, name, texts, table, arguments.rounds))
                print(name, figures[name], flush=True)
        figures["opensearch"] = read_opensearch_version(settings)
    return figures


async def measure_collection(
    settings: Settings, index: str, queries: Sequence[str], table: QueryTable, rounds: int
) -> dict[str, Any]:
    """Return suggestions for queries as they are, shares of corrected errors, and milliseconds by side."""
    errors = list(filter(None, (misspell_query(query, table, random.Random(query)) for query in queries)))
    path = f"/v1/indexes/{index}/search"
    async with LoopbackConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:

        async def corrected(query: str, *, did_you_mean: bool = True) -> dict[str, str]:
            body = {"query": query, "mode": "lexical", "size": 10, "learn": False, "did_you_mean": did_you_mean}
            answer = await connection.send("POST", path, orjson.dumps(body))
            words = (answer.get("did_you_mean") or {"words": []})["words"]
            return {word["typed"]: word["suggested"] for word in words}

        suggested = [word for query in queries for word in (await corrected(query)).items()]
        counts: Counter[str] = Counter()
        for query, wrong, right in errors:
            found = (await corrected(query)).get(wrong)
            counts["right" if found == right else "none" if found is None else "another"] += 1

        def make_sender(*, did_you_mean: bool) -> Any:
            async def send(query: str) -> None:
                await corrected(query, did_you_mean=did_you_mean)

            return send

        senders = {side: make_sender(did_you_mean=on) for side, on in SIDES.items()}
        cost = {}
        for kind, texts in (("as they are", queries), ("with an error", [query for query, _, _ in errors])):
            ms = {
                side: summarise_durations(all_ms) for side, all_ms in (await take_turns(senders, texts, rounds)).items()
            }
            cost[kind] = {"ms": ms, "over plain": percentile_ratios(ms["did you mean"], ms["plain"])}
    shares = {name: round(counts[name] / len(errors), 3) for name in ("right", "another", "none")}
    return {"queries": len(queries), "suggested": suggested, "errors": len(errors), "shares": shares, "cost": cost}


def misspell_query(query: str, table: QueryTable, chance: random.Random) -> tuple[str, str, str] | None:
    """Return the query with an error, the wrong word and the right one; None if no word can have an error."""
    words = list(_WORD.finditer(query))
    if len(words) < _MIN_WORDS:
        return None
    chosen = chance.choice(words)
    wrong = chosen[0][0] + misspell_word(chosen[0][1:], chance)
    if wrong == chosen[0] or len(table.spans(wrong)) == 1:
        return None
    return query[: chosen.start()] + wrong + query[chosen.end() :], wrong, chosen[0]
