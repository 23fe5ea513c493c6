"""Metrics of rankings, exact sparse search in memory, TREC runs, and the provenance of figures.

`measure_rankings` computes NDCG@10, MRR@10 and Recall@100 with ir_measures (trec_eval). `encode_documents` and
`ExactIndex` give the exact rankings that live figures are compared with: each score is computed as OpenSearch computes
it. `collect_provenance` records machine, versions and commit beside a result.
"""

import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cli.relevance.collection import CorpusDocument, Judgements
from services.documents.document import joined_text
from services.encoders.manifest import WindowSettings
from services.encoders.vectors import SparseVector
from services.errors import ConfigurationError
from services.opensearch.stored_document import EncodedWindow, document_vector

if TYPE_CHECKING:
    from models.encoder import Encoder

Ranking = Sequence[tuple[str, float]]
Rankings = Mapping[str, Ranking]
# Names of measures, with ir_measures' names.
MEASURES = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "recall@100": "R@100"}
# Enough windows to sort by length, and few enough to keep their vectors in memory.
_BATCH_DOCUMENTS = 128
_SOURCE_DIRECTORY = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class RankingQuality:
    """Means over all judged queries, and figures by query. The keys are those of MEASURES."""

    mean: dict[str, float]
    by_query: dict[str, dict[str, float]]


def measure_rankings(judgements: Judgements, rankings: Rankings) -> RankingQuality:
    """Measure rankings (document and score, the best first) by their order.

    A judged query without a ranking counts as zero. Scores are not used, because trec_eval would reorder ties. Raises
    ConfigurationError (`missing_extra`).
    """
    try:
        import ir_measures
    except ImportError:
        raise ConfigurationError(
            "missing_extra", "Metrics need the package ir_measures: pip install -e '.[eval]'."
        ) from None
    runs = {
        query: {document: float(len(rankings[query]) - rank) for rank, (document, _) in enumerate(rankings[query])}
        for query in judgements
        if rankings.get(query)
    }
    by_query: dict[str, dict[str, float]] = {query: dict.fromkeys(MEASURES, 0.0) for query in judgements}
    names = {ir_measures.parse_measure(measure): name for name, measure in MEASURES.items()}
    for metric in ir_measures.iter_calc(list(names), judgements, runs):
        by_query[metric.query_id][names[metric.measure]] = metric.value
    count = len(by_query)
    return RankingQuality({name: sum(q[name] for q in by_query.values()) / count for name in MEASURES}, by_query)


def write_run(path: Path, rankings: Rankings, tag: str) -> None:
    """Write a TREC run: query, Q0, document, rank from 1, score, tag. Spaces in ids become underscores.

    A reader that sorts by score may order ties in another way than the ranks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for query, ranking in rankings.items():
            for rank, (document, score) in enumerate(ranking, 1):
                file.write(f"{_replace_spaces(query)} Q0 {_replace_spaces(document)} {rank} {score:.9g} {tag}\n")


def _replace_spaces(identifier: str) -> str:
    return "_".join(identifier.split())


class ExactIndex:
    """Postings of a collection's vectors: the documents and (truncated) weights of each piece."""

    def __init__(self, documents: Mapping[str, SparseVector]) -> None:
        self.names = list(documents)
        lengths = [len(vector) for vector in documents.values()]
        positions = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        empty: list[npt.NDArray[np.generic]] = [np.empty(0)]
        ids = np.concatenate([v.ids for v in documents.values()] or empty).astype(np.int32)
        weights = np.concatenate([v.weights for v in documents.values()] or empty).astype(np.float32)
        order = np.argsort(ids, kind="stable")
        self._documents = positions[order]
        self._weights = weights[order]
        pieces, starts = np.unique(ids[order], return_index=True)
        ends = np.append(starts[1:], ids.size)
        self._ranges = {int(i): (int(a), int(b)) for i, a, b in zip(pieces, starts, ends, strict=True)}

    def postings(self, piece: int) -> int:
        """Return the number of documents that have a piece."""
        start, end = self._ranges.get(piece, (0, 0))
        return end - start

    def scores(self, query: Mapping[int, float]) -> npt.NDArray[np.float32]:
        """Return the score of each document, float32 [documents]; 0 without a shared piece.

        Products are float32. Their sum is a double that is rounded once, as in Lucene's FeatureField and
        DisjunctionSumScorer.
        """
        total = np.zeros(len(self.names))
        for piece, boost in query.items():
            start, end = self._ranges.get(piece, (0, 0))
            # A piece has each document once, so indexed addition loses no product.
            total[self._documents[start:end]] += np.float32(boost) * self._weights[start:end]
        return total.astype(np.float32)

    def search(self, query: Mapping[int, float], size: int) -> list[tuple[str, float]]:
        """Return the best `size` documents that share a piece with the query, ties in order of insertion."""
        scores = self.scores(query)
        matching = np.flatnonzero(scores)
        best = matching[np.argsort(-scores[matching], kind="stable")[:size]]
        return [(self.names[i], float(scores[i])) for i in best.tolist()]


def rank_queries(
    index: ExactIndex, queries: Mapping[str, Mapping[int, float]], size: int
) -> dict[str, Sequence[tuple[str, float]]]:
    """Return the ranking of each query."""
    return {query: index.search(weights, size) for query, weights in queries.items()}


def encode_documents(
    encoder: "Encoder",
    documents: Iterable[CorpusDocument],
    window: WindowSettings,
    top_k: int,
    done: Callable[[int], object] = lambda count: None,
) -> dict[str, SparseVector]:
    """Return the vector of each document with a text, as the indexer makes it. `done` receives the number so far.

    A document has windows of `window` and at most `top_k` pieces; see IndexSpec for the values of an index.
    """
    document_vectors: dict[str, SparseVector] = {}
    for batch in _batches((d for d in documents if d.text), _BATCH_DOCUMENTS):
        batch_windows = [encoder.windows(joined_text(d.title, d.text), window.pieces, window.overlap) for d in batch]
        vectors = iter(encoder.encode([piece for windows in batch_windows for piece in windows]))
        for document, windows in zip(batch, batch_windows, strict=True):
            encoded = [EncodedWindow(w.start, w.end, next(vectors)) for w in windows]
            document_vectors[document.id] = document_vector(encoded, top_k)
        done(len(document_vectors))
    return document_vectors


def _batches(documents: Iterator[CorpusDocument], size: int) -> Iterator[list[CorpusDocument]]:
    while batch := list(islice(documents, size)):
        yield batch


def collect_provenance(packages: Iterable[str]) -> dict[str, Any]:
    """Return the time in UTC, commit, machine and package versions."""
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": source_commit(),
        "machine": describe_machine(),
        "versions": package_versions(packages),
    }


def describe_machine() -> dict[str, Any]:
    """Return processor, cores and system, without names of the machine or its user."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": _processor_name(), "cores": usable, "system": platform.system(), "machine": platform.machine()}


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of the installed packages."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def source_commit() -> str | None:
    """Return the commit of this source tree, with `-dirty` if tracked files differ; None without a repository."""
    if not (_SOURCE_DIRECTORY / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=_SOURCE_DIRECTORY, capture_output=True, text=True, check=True, timeout=10,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
