"""What does the API cost over the raw client? The same search through AsyncOpenSearch and through POST /search.

    python -m benchmarks.api_overhead --json benchmarks/results/api_overhead.json

One client, one kept connection a side, each query to both sides in turn. The raw side sends bodies that were built
before and parses the answer with orjson; for hybrid it knows the ids that the second request asks for. The API side is
the real process, spoken to over a lean client (benchmarks.loopback); its answer is parsed too, nothing is subtracted.
Processor time a call is given as well: it says what a busy machine's clock cannot.
"""

import argparse
from collections.abc import Sequence
from time import thread_time
from typing import Any

import orjson
import uvloop

from benchmarks.loopback import KeptConnection
from benchmarks.processor import process_ms
from benchmarks.record import command_line, run
from benchmarks.service import node_settings, opensearch_version, running
from benchmarks.stdlib_index import encoded_stdlib, everyday_questions, stdlib_index
from benchmarks.timing import spread, take_turns
from query_api.search.query_builder import needed_source
from query_api.search.request import SearchRequest
from services.index_spec import Generation
from services.manifest import resolve
from services.opensearch.client import AsyncSearch, Call
from services.opensearch.queries import Plan, body, fetch_call, lexical_query, msearch_call, search_call, sparse_query
from services.query_table import QueryTable
from services.settings import Settings

TARGET_MS = 1.0
CASES = {
    f"{mode}, {'with' if passage else 'without'} passage": {"mode": mode, "passage": passage}
    for mode in ("sparse", "lexical", "hybrid")
    for passage in (False, True)
}


class Sides:
    """The same question for both sides."""

    def __init__(self, settings: Settings, generation: Generation, case: dict[str, Any]) -> None:
        self._settings = settings
        self._generation = generation
        self._table = QueryTable.load(resolve(settings.encoder))
        self._case = case
        self.path = f"/v1/indexes/{generation.index}/search"

    def request(self, query: str) -> bytes:
        return orjson.dumps({"query": query, "size": 10} | self._case)

    def calls(self, query: str, ids: Sequence[str]) -> list[Call]:
        """What the API sends for it; `ids` are those of its hits."""
        request = SearchRequest(query=query, size=10, **self._case)
        timeout, physical, source = self._settings.search_timeout, self._generation.physical, needed_source(request)
        queries = {"sparse": sparse_query(self._table.encode(query, 1000)), "lexical": lexical_query(query)}
        if request.mode != "hybrid":
            return [search_call(Plan(physical, body(queries[request.mode], request.size, source, timeout)), timeout)]
        plans = [body(one, request.candidates, False, timeout) for one in queries.values()]
        first = msearch_call([Plan(physical, plan) for plan in plans], timeout)
        return [first, fetch_call([((physical, one), source) for one in ids], timeout)] if ids else [first]


async def compare(
    settings: Settings, generation: Generation, case: dict[str, Any], queries: Sequence[str], rounds: int, pid: int
) -> dict[str, Any]:
    """Milliseconds of both sides, their difference call by call, and the API's own stages; `pid` is the API's."""
    sides = Sides(settings, generation, case)
    search = AsyncSearch(settings)
    stages: dict[str, list[float]] = {}
    raw_cpu: list[float] = []
    try:
        async with KeptConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:
            requests = {query: sides.request(query) for query in queries}
            answers = {query: await connection.send("POST", sides.path, requests[query]) for query in queries}
            calls = {query: sides.calls(query, [hit["id"] for hit in answers[query]["hits"]]) for query in queries}

            async def raw(query: str) -> None:
                begun = thread_time()
                for call in calls[query]:
                    await search.send(call)
                raw_cpu.append((thread_time() - begun) * 1000)

            async def api(query: str) -> None:
                answer = await connection.send("POST", sides.path, requests[query])
                for stage, value in answer["timings_ms"].items():
                    stages.setdefault(stage, []).append(value)

            before = process_ms(pid)
            took = await take_turns({"raw": raw, "api": api}, queries, rounds)
            api_cpu = process_ms(pid) - before
    finally:
        await search.close()
    raw_ms, api_ms = spread(took["raw"]), spread(took["api"])
    cost = spread([mine - theirs for mine, theirs in zip(took["api"], took["raw"], strict=True)])
    return {
        "calls": len(took["api"]),
        "raw_ms": raw_ms,
        "api_ms": api_ms,
        "p50_over_raw_ms": round(api_ms["p50"] - raw_ms["p50"], 3),
        "pairwise_cost_ms": cost,
        "processor_ms_a_call": {
            "raw client": round(sum(raw_cpu) / len(raw_cpu), 3),
            "API process": round(api_cpu / len(raw_cpu), 3),
        },
        "api_stages_p50_ms": {stage: spread(values[len(queries) :])["p50"] for stage, values in stages.items()},
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The table by mode."""
    queries = everyday_questions()
    rows: dict[str, Any] = {}
    with node_settings() as settings:
        generation = stdlib_index(settings, encoded_stdlib(settings, given.documents))
        with running(settings, "api") as api:
            # a Java process is fast only after thousands of the same request
            for case in CASES.values():
                uvloop.run(compare(settings, generation, case, queries, 2, api.pid))
            for name, case in CASES.items():
                rows[name] = row = uvloop.run(compare(settings, generation, case, queries, given.rounds, api.pid))
                raw, api_side = row["raw_ms"], row["api_ms"]
                print(
                    f"{name:>24}: raw p50 {raw['p50']:.2f} ms, API p50 {api_side['p50']:.2f} ms, over raw "
                    f"{row['p50_over_raw_ms']:.2f} ms (call by call {row['pairwise_cost_ms']['p50']:.2f} ms), "
                    f"p99 {raw['p99']:.1f} and {api_side['p99']:.1f} ms",
                    flush=True,
                )
        version = opensearch_version(settings)
    worst = max(row["p50_over_raw_ms"] for row in rows.values())
    print(f"target: at most {TARGET_MS} ms p50 over the raw client: {'reached' if worst <= TARGET_MS else 'MISSED'}")
    return {
        "opensearch": version,
        "queries": len(queries),
        "target": {"p50_over_raw_ms": TARGET_MS, "reached": worst <= TARGET_MS},
        "cases": rows,
    }


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("api_overhead", __doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=8, help="times that every question is asked of each side")
    run("api_overhead", parser, measure, arguments)


if __name__ == "__main__":
    main()
