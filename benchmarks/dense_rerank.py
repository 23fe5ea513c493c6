"""What does a rerank by stored dense vectors add to hybrid search? NDCG@10 of every weight, on every collection.

    python -m benchmarks.dense_rerank DATA --json benchmarks/results/dense-rerank.json [--live adi,medline]

The lists are those of benchmarks.fusion_weights: BM25 from a real node, the sparse list exact, 100 candidates each,
fused by the service's own function. The first 100 are scored by the service's own functions over vectors rounded as
they are stored. `--live` asks a whole service about some collections (API, worker, model process) and compares.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.collection_vectors import collection_vectors
from benchmarks.dense_store import DenseRows, collection_rows
from benchmarks.keyword_lists import keyword_lists
from benchmarks.record import command_line, run
from benchmarks.sample import sampled
from benchmarks.service import node_settings, opensearch_version, running, service_settings
from cli.relevance.collection import Collection, open_collection
from cli.relevance.exact import ExactIndex, rankings
from cli.relevance.live import LiveIndex
from cli.relevance.metrics import Rankings, measure
from cli.relevance.session import ingest
from infra.ports import free_port
from models.dense.model import DenseModel
from models.dense.opening import load_dense
from models.encoder import Encoder
from models.registry import load_encoder
from services.dense_form import DenseIdentity
from services.dense_vectors import Dense, StoredVectors, gathered, moved, pack, unit
from services.fusion import DEFAULT_WEIGHTS, fuse
from services.interpolation import DEFAULT_WEIGHT, interpolated
from services.known_dense import find_dense, known_dense
from services.machine.directories import DirectorySettings, cache_dir
from services.manifest import resolve
from services.opensearch.client import SyncSearch
from services.query_table import QueryTable
from services.settings import Settings

COLLECTIONS = ("adi", "cisi", "cosqa", "cranfield", "medline", "qmsum_meetings/4")
CANDIDATES = TOP = 100
WEIGHTS = tuple(step / 10 for step in range(1, 11))
FEEDBACK = tuple((documents, weight) for documents in (1, 3, 5, 10) for weight in (0.1, 0.3, 0.5))
Windows = Callable[[NDArray[np.float16]], Dense]
# Other ways to store a document: the first three are compared with the one that was taken, `int8`.
FORMS: dict[str, Windows] = {
    "float16": lambda rows: rows.astype(np.float32),
    "mean of the windows": lambda rows: unit(rows.astype(np.float32).mean(axis=0))[None, :],
    "first window": lambda rows: rows[:1].astype(np.float32),
    "int8": lambda rows: rows.astype(np.float32),
}


@dataclass
class Bench:
    """A collection with the hybrid list and the dense vector of every query."""

    collection: Collection
    hybrid: Rankings
    queries: dict[str, Dense]
    rows: DenseRows
    _stored: dict[str, StoredVectors] = field(default_factory=dict)

    def stored(self, form: str) -> StoredVectors:
        """All documents in one form; `int8` is what an index holds."""
        if form not in self._stored:
            parts = [FORMS[form](gathered_rows(self.rows.of(i))) for i in range(len(self.rows.ids))]
            starts = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(part) for part in parts])])
            matrix = np.concatenate(parts)
            if form == "int8":
                matrix = StoredVectors.read({"all": pack(matrix)}, matrix.shape[1]).rows
            self._stored[form] = StoredVectors(self.rows.ids, starts, matrix)
        return self._stored[form]

    def reranked(
        self, weight: float, form: str = "int8", feedback: tuple[int, float] | None = None
    ) -> dict[str, list[tuple[str, float]]]:
        """Every query's list as a search gives it."""
        stored = self.stored(form)
        place = {name: i for i, name in enumerate(stored.ids)}
        found = {}
        for query, listed in self.hybrid.items():
            top, rest = listed[:TOP], listed[TOP:]
            kept = taken(stored, [place[name] for name, _ in top])
            vector = self.queries[query]
            opinion = kept.scores(vector)
            if feedback is not None:
                best = interpolated(top, opinion, weight)[: feedback[0]]
                vector = moved(vector, kept.best_windows(vector, [name for name, _ in best]), feedback[1])
                opinion = kept.scores(vector)
            found[query] = interpolated(top, opinion, weight) + list(rest)
        return found

    def ndcg(self, found: Rankings) -> float:
        return round(measure(self.collection.known_judgements(), found).mean["ndcg@10"], 5)

    def dense_alone(self) -> dict[str, list[tuple[str, float]]]:
        """Every document by its dense score."""
        stored = self.stored("int8")
        scores = {query: stored.scores(vector) for query, vector in self.queries.items()}
        return {query: sorted(of.items(), key=lambda pair: (-pair[1], pair[0]))[:TOP] for query, of in scores.items()}


def gathered_rows(rows: NDArray[np.float16]) -> NDArray[np.float16]:
    """As the indexer gathers them."""
    return gathered(rows).astype(np.float16)


def taken(stored: StoredVectors, positions: Sequence[int]) -> StoredVectors:
    """The vectors of some documents only."""
    spans = [(int(stored.starts[at]), int(stored.starts[at + 1])) for at in positions]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum([end - start for start, end in spans])])
    rows = np.concatenate([stored.rows[start:end] for start, end in spans] or [stored.rows[:0]])
    return StoredVectors([stored.ids[at] for at in positions], starts, rows)


@dataclass(frozen=True)
class Models:
    """What every collection is measured with."""

    encoder: Encoder
    table: QueryTable
    dense: DenseModel
    identity: DenseIdentity
    cache: Path | None

    def bench(self, collection: Collection, search: SyncSearch, settings: Settings) -> Bench:
        """The lists and the vectors of a collection."""
        index = ExactIndex(collection_vectors(collection, self.encoder, self.cache))
        judged = collection.judged
        sparse = rankings(index, {q: self.table.encode(text, 1000).by_id() for q, text in judged.items()}, CANDIDATES)
        lexical = keyword_lists(search, settings, collection, CANDIDATES)
        hybrid = {q: fuse({"sparse": dict(sparse[q]), "lexical": dict(lexical[q])}, DEFAULT_WEIGHTS) for q in judged}
        # one at a time, as searches come: int8 models depend a little on what is encoded together
        queries = {q: self.dense.encode_queries([text])[0].astype(np.float32) for q, text in judged.items()}
        return Bench(collection, hybrid, queries, collection_rows(collection, self.dense, self.identity, self.cache))


def figures(bench: Bench) -> dict[str, Any]:
    """NDCG@10 of everything that was tried on one collection."""
    return {
        "documents": len(bench.rows.ids),
        "windows": len(bench.rows.rows),
        "queries": len(bench.queries),
        "hybrid": bench.ndcg(bench.hybrid),
        "dense alone": bench.ndcg(bench.dense_alone()),
        "by_weight": {f"{weight:.1f}": bench.ndcg(bench.reranked(weight)) for weight in WEIGHTS},
        "by_form": {form: bench.ndcg(bench.reranked(DEFAULT_WEIGHT, form)) for form in FORMS},
        "feedback": {f"{n} x {w}": bench.ndcg(bench.reranked(DEFAULT_WEIGHT, feedback=(n, w))) for n, w in FEEDBACK},
    }


def summary(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the collections, the best weight, and the best weight had one collection been missing."""

    def means(kind: str, left_out: str = "") -> dict[str, float]:
        rows = [one[kind] for name, one in found.items() if name != left_out]
        return {name: round(float(np.mean([row[name] for row in rows])), 5) for name in rows[0]}

    hybrid = round(float(np.mean([one["hybrid"] for one in found.values()])), 5)
    by_weight = means("by_weight")
    default = f"{DEFAULT_WEIGHT:.1f}"
    return {
        "hybrid": hybrid,
        "by_weight": by_weight,
        "best": max(by_weight, key=lambda weight: by_weight[weight]),
        "best_without": {
            name: max(of, key=lambda weight: of[weight])
            for name in found
            if len(found) > 1 and (of := means("by_weight", name))
        },
        "gain_of_the_default": round(by_weight[default] - hybrid, 5),
        "smallest_gain_of_the_default": round(min(o["by_weight"][default] - o["hybrid"] for o in found.values()), 5),
        "by_form": means("by_form"),
        "feedback": means("feedback"),
    }


def live(names: Sequence[str], data: Path, models: Models, dense: str) -> dict[str, Any]:
    """The same figures from a whole service, its worker and its model process."""
    found = {}
    with service_settings() as base:
        port = free_port()
        settings = base.model_copy(
            update={
                "encoder": models.encoder.manifest.name,
                "model_port": port,
                "model_url": f"http://{base.model_host}:{port}",
                "model_encoders": dense,
                "model_timeout": 2.0,
            }
        )
        address = f"http://{settings.api_host}:{settings.api_port}"
        with (
            running(settings, "models"), running(settings, "api"), running(settings, "worker"),
            httpx.Client(base_url=address) as client,
        ):  # fmt: skip
            for name in names:
                collection = open_collection(data / name)
                index = LiveIndex(client, collection.name)
                index.create({"dense": dense})
                ingest(index, collection, lambda stage, done, total: None)
                rows = {}
                for said, options in (("hybrid", {}), ("reranked", {"rerank": {"top": TOP}})):
                    asked = index.ask(collection.judged, "hybrid", TOP, options)
                    rows[said] = round(measure(collection.known_judgements(), asked.rankings).mean["ndcg@10"], 5)
                found[name] = rows
                print("live", name, rows)
    return found


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every collection, in memory and live."""
    encoder = load_encoder(arguments.encoder, threads=arguments.threads)
    known = find_dense(known_dense(Settings.read()), arguments.dense)
    dense = load_dense(known, cache_dir(DirectorySettings.read()), print, threads=arguments.threads)
    models = Models(encoder, QueryTable.load(resolve(arguments.encoder)), dense, known.identity, arguments.cache)
    found: dict[str, dict[str, Any]] = {}
    with node_settings() as settings, closing(SyncSearch(settings)) as search:
        version = opensearch_version(settings)
        for wanted in arguments.collections.split(","):
            name, _, every = wanted.partition("/")
            collection = sampled(open_collection(arguments.data / name), int(every or 1))
            found[wanted] = figures(models.bench(collection, search, settings))
            print(wanted, found[wanted])
    result: dict[str, Any] = {
        "opensearch": version,
        "encoder": {"name": encoder.manifest.name, "fingerprint": encoder.fingerprint},
        "dense": known.identity.model_dump(),
        "top": TOP,
        "default_weight": DEFAULT_WEIGHT,
        "summary": summary(found),
        "by_collection": found,
    }
    print(result["summary"])
    names = [name for name in arguments.live.split(",") if name]
    return result | ({"live": live(names, arguments.data, models, arguments.dense)} if names else {})


def main() -> None:
    """Reads the arguments, prints the figures, writes the file."""
    parser = command_line("dense_rerank", __doc__)
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default=",".join(COLLECTIONS), help="names, each with /N for one in N")
    parser.add_argument("--encoder", default="bootstrap-minilm-l6")
    parser.add_argument("--dense", default="bge-small-en-v1.5-int8")
    parser.add_argument("--live", default="", help="collections that a live service is asked about as well")
    parser.add_argument("--threads", type=int, default=0, help="threads of the encoders; 0: all cores")
    parser.add_argument("--cache", type=Path, help="where vectors are kept for the next run")
    run("dense_rerank", parser, measured)


if __name__ == "__main__":
    main()
