"""How many documents a second does POST /documents acknowledge? One client, NDJSON, 500 documents a request.

    python -m benchmarks.ingest_throughput --json benchmarks/results/ingest_throughput.json

Each acknowledged document is on disk (translog fsync) and its message in Redis; no worker runs, nothing is encoded.
"""

import argparse
from time import perf_counter
from typing import Any

import orjson
import uvloop

from benchmarks.loopback import KeptConnection
from benchmarks.record import command_line, run
from benchmarks.service import opensearch_version, running, service_settings
from benchmarks.stdlib_index import SPEC, stdlib_documents
from services.documents import Document
from services.settings import Settings


async def ingest(settings: Settings, documents: list[Document], batch: int, rounds: int) -> list[dict[str, float]]:
    """Documents and bytes a second of each round, each into a new index; the first round is thrown away."""
    lines = [
        orjson.dumps({"id": one.id, "title": one.title, "text": one.text, "metadata": one.metadata}) + b"\n"
        for one in documents
    ]
    bodies = [b"".join(lines[at : at + batch]) for at in range(0, len(lines), batch)]
    found = []
    async with KeptConnection(f"http://{settings.api_host}:{settings.api_port}") as connection:
        for number in range(rounds + 1):
            path = f"/v1/indexes/round{number}"
            await connection.send("PUT", path, orjson.dumps({"fields": SPEC.fields}))
            begun = perf_counter()
            accepted = 0
            for body in bodies:
                answer = await connection.send("POST", f"{path}/documents", body, "application/x-ndjson")
                accepted += len(answer["accepted"])
            seconds = perf_counter() - begun
            if accepted != len(documents):
                raise RuntimeError(f"{accepted} of {len(documents)} documents were accepted")
            if number:
                megabytes = sum(map(len, bodies)) / 1e6
                found.append({"documents_a_second": accepted / seconds, "megabytes_a_second": megabytes / seconds})
                print(f"round {number}: {accepted / seconds:,.0f} documents a second", flush=True)
    return found


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The median of the rounds, and each."""
    documents = stdlib_documents(given.documents)
    with service_settings() as settings, running(settings, "api"):
        rounds = uvloop.run(ingest(settings, documents, given.batch, given.rounds))
        version = opensearch_version(settings)
    rounds.sort(key=lambda one: one["documents_a_second"])
    return {
        "opensearch": version,
        "documents": len(documents),
        "median": {name: round(value, 2) for name, value in rounds[len(rounds) // 2].items()},
        "rounds": [{name: round(value, 2) for name, value in one.items()} for one in rounds],
    }


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("ingest_throughput", __doc__)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    run("ingest_throughput", parser, measure, arguments)


if __name__ == "__main__":
    main()
