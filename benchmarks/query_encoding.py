"""How long does it take to turn a query into weighted pieces? Microseconds a query by number of words.

    python -m benchmarks.query_encoding --json benchmarks/results/query_encoding.json

`natural` are committed questions of exactly that many words; `cut` are stretches of that many words of all of them.
Needs no server.
"""

import argparse
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any

from benchmarks.record import command_line, run
from benchmarks.stdlib_index import everyday_questions
from benchmarks.timing import spread
from services.manifest import resolve
from services.query_table import QueryTable
from services.settings import Settings

LENGTHS = (1, 3, 6, 12, 25, 50)
TARGET_MICROSECONDS = 50
NATURAL = "6 words, natural"


def query_sets(texts: Sequence[str]) -> dict[str, list[str]]:
    """Queries by what they are."""
    words = [word for text in texts for word in text.split()]
    sets = {NATURAL: [text for text in texts if len(text.split()) == 6]}
    for length in LENGTHS:
        starts = range(0, len(words) - length, max(1, length // 2))
        sets[f"{length} words, cut"] = [" ".join(words[start : start + length]) for start in starts]
    return sets


def microseconds(table: QueryTable, queries: Sequence[str], calls: int) -> list[float]:
    """Each call by itself, the queries one after the other; the first pass is thrown away."""
    for query in queries:
        table.encode(query, 1000)
    took: list[float] = []
    while len(took) < calls:
        for query in queries:
            begun = perf_counter_ns()
            table.encode(query, 1000)
            took.append((perf_counter_ns() - begun) / 1000)
    return took


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The table by set of queries."""
    table = QueryTable.load(resolve(given.encoder))
    rows: dict[str, Any] = {}
    for name, queries in query_sets(everyday_questions()).items():
        pieces = [table.encode(query, 1000).pieces for query in queries]
        row = spread(microseconds(table, queries, given.calls), 1)
        rows[name] = {"queries": len(queries), "pieces": round(sum(pieces) / len(pieces), 1), "microseconds": row}
        print(f"{name:>17}: p50 {row['p50']:6.1f} us  p99 {row['p99']:6.1f} us  ({rows[name]['pieces']} pieces)")
    reached = rows[NATURAL]["microseconds"]["p50"] <= TARGET_MICROSECONDS
    print(f"target: at most {TARGET_MICROSECONDS} us for six words: {'reached' if reached else 'MISSED'}")
    return {
        "encoder": {"name": table.manifest.name, "fingerprint": table.fingerprint},
        "target": {"six_words_p50_microseconds": TARGET_MICROSECONDS, "reached": reached},
        "queries": rows,
    }


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("query_encoding", __doc__)
    parser.add_argument("--encoder", default=Settings.read().encoder)
    parser.add_argument("--calls", type=int, default=20_000, help="calls of each set")
    run("query_encoding", parser, measure, arguments)


if __name__ == "__main__":
    main()
