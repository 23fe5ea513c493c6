"""Are the live figures those of the vectors? `sparsewell eval`'s own steps against exact search in memory.

    python -m benchmarks.live_against_memory DATA --json benchmarks/results/live-against-memory.json

Each collection of DATA goes through a live API, a real queue and a worker; the same documents are encoded a second
time in this process and searched exactly. Reported are both figures, and how many scores of all lists are equal.
Fails when NDCG@10, MRR@10 or Recall@100 differ by more than .002.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.collection_vectors import collection_vectors
from benchmarks.record import command_line, run
from benchmarks.service import opensearch_version, running, service_settings
from cli.relevance.collection import Collection, open_collection
from cli.relevance.exact import ExactIndex, rankings
from cli.relevance.live import LiveIndex
from cli.relevance.metrics import MEASURES, Quality, Rankings, measure
from cli.relevance.session import MODES, ask, ingest
from models.registry import load_encoder
from query_api.search.request import FusionWeights
from services.errors import InvalidInput
from services.fusion import fuse
from services.manifest import resolve
from services.query_table import QueryTable
from services.settings import Settings

SIZE = 100
TOLERANCE = 0.002


def equal_scores(live: Rankings, exact: Rankings) -> dict[str, Any]:
    """Scores compared rank by rank as float32, which they are in OpenSearch; so the order of ties does not count."""
    pairs = [
        (float(np.float32(a)), float(np.float32(b)))
        for query, ranking in exact.items()
        for (_, a), (_, b) in zip(live.get(query, ()), ranking, strict=False)
    ]
    worst = max((abs(a - b) / max(a, b) for a, b in pairs), default=0.0)
    return {
        "compared": len(pairs),
        "equal": sum(a == b for a, b in pairs),
        "largest_relative_difference": worst,
        "lists_of_another_length": sum(len(live.get(query, ())) != len(ranking) for query, ranking in exact.items()),
    }


def compared(live: Quality, exact: Quality) -> dict[str, dict[str, float]]:
    """Both figures of each measure, and their difference."""
    return {
        name: {
            "live": round(live.mean[name], 5),
            "in_memory": round(exact.mean[name], 5),
            "difference": round(live.mean[name] - exact.mean[name], 6),
        }
        for name in MEASURES
    }


def one(collection: Collection, client: httpx.Client, encoder_name: str, cache: Path | None) -> dict[str, Any]:
    """Loads a collection, asks it, and does the same in memory."""
    encoder = load_encoder(encoder_name)
    table = QueryTable.load(resolve(encoder_name))
    live_index = LiveIndex(client, collection.name)
    live_index.create({})
    ingested = ingest(live_index, collection, lambda stage, done, total: None)
    live = ask(live_index, collection, MODES, SIZE, None, lambda stage, done, total: None)
    index = ExactIndex(collection_vectors(collection, encoder, cache))
    queries = {query: table.encode(text, 1000).by_id() for query, text in collection.judged.items()}
    sparse = rankings(index, queries, SIZE)
    lexical = live["lexical"].asked.rankings
    weights = FusionWeights.model_validate({}).model_dump()
    fused = {q: fuse({"sparse": dict(sparse[q]), "lexical": dict(lexical[q])}, weights)[:SIZE] for q in queries}
    judgements = collection.known_judgements()
    found: dict[str, Any] = {
        "documents": len(ingested.ids),
        "queries": len(queries),
        "states": ingested.states,
        "documents_a_second": round(ingested.documents_a_second, 1),
        "lexical": {name: round(value, 5) for name, value in live["lexical"].quality.mean.items()},
    }
    for mode, exact in (("sparse", sparse), ("hybrid", fused)):
        found[mode] = {
            **compared(live[mode].quality, measure(judgements, exact)),
            "scores": equal_scores(live[mode].asked.rankings, exact),
        }
    return found


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every collection on one service."""
    collections: dict[str, Any] = {}
    with service_settings() as base:
        settings: Settings = base.model_copy(update={"encoder": arguments.encoder})
        address = f"http://{settings.api_host}:{settings.api_port}"
        with running(settings, "api"), running(settings, "worker"), httpx.Client(base_url=address) as client:
            version = opensearch_version(settings)
            for name in arguments.collections.split(","):
                collection = open_collection(arguments.data / name)
                collections[name] = one(collection, client, arguments.encoder, arguments.cache)
                print(name, collections[name])
    if worst := _too_far(collections):
        raise InvalidInput("figures_differ", f"Live and in-memory figures differ by more than {TOLERANCE}: {worst}")
    return {"opensearch": version, "tolerance": TOLERANCE, "collections": collections}


def _too_far(collections: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {mode} {measure_name} {found[mode][measure_name]}"
        for name, found in collections.items()
        for mode in ("sparse", "hybrid")
        for measure_name in MEASURES
        if abs(found[mode][measure_name]["difference"]) > TOLERANCE
    ]


def main() -> None:
    """Reads the arguments, prints the comparison, writes the file."""
    parser = command_line("live_against_memory", __doc__)
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default="cranfield,cosqa")
    parser.add_argument("--encoder", default="bootstrap-minilm-l6")
    parser.add_argument("--cache", type=Path, help="where vectors are kept for the next run")
    run("live_against_memory", parser, measured)


if __name__ == "__main__":
    main()
