"""What do feedback, examples and context cost a search? The same questions with and without, through the real API.

    python -m benchmarks.feedback_cost --json benchmarks/results/feedback_cost.json

One client, one kept connection, each question to every side in turn; short documents and long ones of many windows.
Feedback is a second search and the reading of three documents' vectors, so what counts is the ratio to a plain search.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import orjson
import uvloop

from benchmarks.loopback import KeptConnection
from benchmarks.record import command_line, run
from benchmarks.service import node_settings, opensearch_version, running
from benchmarks.stdlib_index import encoded_stdlib, everyday_questions, joined, stdlib_index
from benchmarks.timing import ratios, spread, take_turns
from services.settings import Settings

# Documents of Python's documentation that make a long one.
PARTS = 10
CASES: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "hybrid, feedback": {"feedback": {}},
    "hybrid, three turns": {},
    "sparse": {"mode": "sparse"},
    "sparse, feedback by the sparse list": {"mode": "sparse", "feedback": {"choose_by": "sparse"}},
    "sparse, like three documents": {"mode": "sparse"},
}


def requests(questions: Sequence[str], liked: Sequence[str]) -> dict[str, dict[str, bytes]]:
    """The body of each side for each question. Turns are the three questions before it in the list."""
    found: dict[str, dict[str, bytes]] = {side: {} for side in CASES}
    for at, question in enumerate(questions):
        for side, members in CASES.items():
            body: dict[str, Any] = {"query": question, "size": 10} | members
            if "turns" in side:
                body["context"] = {"turns": [questions[at - back] for back in (3, 2, 1)]}
            if "like" in side:
                body["like"] = [liked[(at + step) % len(liked)] for step in range(3)]
            found[side][question] = orjson.dumps(body)
    return found


async def compare(settings: Settings, index: str, liked: Sequence[str], rounds: int) -> dict[str, Any]:
    """Milliseconds of each side, its stages as the API reports them, and what it costs over the plain search."""
    questions = everyday_questions()
    bodies = requests(questions, liked)
    stages: dict[str, dict[str, list[float]]] = {side: {} for side in CASES}
    async with KeptConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:

        def asker(side: str) -> Any:
            async def ask(question: str) -> None:
                answer = await connection.send("POST", f"/v1/indexes/{index}/search", bodies[side][question])
                for stage, value in answer["timings_ms"].items():
                    stages[side].setdefault(stage, []).append(value)

            return ask

        took = await take_turns({side: asker(side) for side in CASES}, questions, rounds)
    ms = {side: spread(values) for side, values in took.items()}
    return {
        side: {
            "ms": ms[side],
            "over_plain": ratios(ms[side], ms[side.partition(",")[0]]),
            "stages_p50_ms": {stage: spread(values)["p50"] for stage, values in stages[side].items()},
        }
        for side in CASES
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The table for short documents and for long ones."""
    rows: dict[str, Any] = {}
    with node_settings() as settings:
        short = encoded_stdlib(settings, given.documents)
        for size, encoded in {"short documents": short, "long documents": joined(short, PARTS)}.items():
            generation = stdlib_index(settings, encoded, size.partition(" ")[0])
            liked = [document.id for document, _ in encoded]
            with running(settings, "api"):
                uvloop.run(compare(settings, generation.index, liked, 1))  # a Java process has to warm up
                rows[size] = uvloop.run(compare(settings, generation.index, liked, given.rounds))
            for side, row in rows[size].items():
                print(f"{size:>15}, {side:>36}: p50 {row['ms']['p50']:.2f} ms, {row['over_plain']['p50']:.2f} of plain")
        version = opensearch_version(settings)
    return {"opensearch": version, "documents": given.documents, "cases": rows}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("feedback_cost", __doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=6, help="times that every question is asked of each side")
    run("feedback_cost", parser, measure, arguments)


if __name__ == "__main__":
    main()
