"""NDCG@10, MRR@10 and Recall@100 from ir_measures (trec_eval's implementation behind it), and TREC run files.

Exact sparse search in memory: the score of every document, as OpenSearch computes it.

A collection's vectors made in this process, to be searched exactly: what the live figures are held against.

Where a figure comes from: machine, versions and commit, kept beside every result.
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


class ExactIndex:
    """Postings of a collection's vectors: per piece, which documents have it and with what (truncated) weight."""

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
        """How many documents have a piece."""
        start, end = self._ranges.get(piece, (0, 0))
        return end - start

    def scores(self, query: Mapping[int, float]) -> npt.NDArray[np.float32]:
        """Float32 [documents]; 0 where no piece is shared.

        Each product is a float32, their sum a double that is rounded once, as in Lucene's FeatureField and
        DisjunctionSumScorer.
        """
        total = np.zeros(len(self.names))
        for piece, boost in query.items():
            start, end = self._ranges.get(piece, (0, 0))
            # a piece has each document once, so plain indexing adds every product
            total[self._documents[start:end]] += np.float32(boost) * self._weights[start:end]
        return total.astype(np.float32)

    def search(self, query: Mapping[int, float], size: int) -> list[tuple[str, float]]:
        """The best `size` documents that share a piece with the query; equal scores in order of insertion."""
        scores = self.scores(query)
        matching = np.flatnonzero(scores)
        best = matching[np.argsort(-scores[matching], kind="stable")[:size]]
        return [(self.names[i], float(scores[i])) for i in best.tolist()]


def rank_queries(
    index: ExactIndex, queries: Mapping[str, Mapping[int, float]], size: int
) -> dict[str, Sequence[tuple[str, float]]]:
    """The ranking of every query."""
    return {query: index.search(weights, size) for query, weights in queries.items()}


# Enough windows to sort by length, few enough that vectors of windows never pile up.
_BATCH_DOCUMENTS = 128


def encode_documents(
    encoder: "Encoder",
    documents: Iterable[CorpusDocument],
    window: WindowSettings,
    top_k: int,
    done: Callable[[int], object] = lambda count: None,
) -> dict[str, SparseVector]:
    """The vector of each document that has a text, as the indexer makes it; `done` hears how many are finished.

    Windows of `window`, at most `top_k` pieces a document; see IndexSpec for what an index uses.
    """
    found: dict[str, SparseVector] = {}
    for together in _batches((d for d in documents if d.text), _BATCH_DOCUMENTS):
        cut = [encoder.windows(joined_text(d.title, d.text), window.pieces, window.overlap) for d in together]
        vectors = iter(encoder.encode([piece for windows in cut for piece in windows]))
        for document, windows in zip(together, cut, strict=True):
            encoded = [EncodedWindow(w.start, w.end, next(vectors)) for w in windows]
            found[document.id] = document_vector(encoded, top_k)
        done(len(found))
    return found


def _batches(documents: Iterator[CorpusDocument], size: int) -> Iterator[list[CorpusDocument]]:
    while together := list(islice(documents, size)):
        yield together


_SOURCE_DIRECTORY = Path(__file__).resolve().parent.parent.parent


def describe_machine() -> dict[str, Any]:
    """Processor, cores and system; nothing that names the machine or its user."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": _processor_name(), "cores": usable, "system": platform.system(), "machine": platform.machine()}


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def source_commit() -> str | None:
    """The commit of this source tree, `-dirty` when tracked files differ from it; None without one."""
    if not (_SOURCE_DIRECTORY / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=_SOURCE_DIRECTORY, capture_output=True, text=True, check=True, timeout=10,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None


def collect_provenance(packages: Iterable[str]) -> dict[str, Any]:
    """All of it, with the time in UTC."""
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": source_commit(),
        "machine": describe_machine(),
        "versions": package_versions(packages),
    }


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


Ranking = Sequence[tuple[str, float]]
Rankings = Mapping[str, Ranking]

# Our names, and ir_measures' names for them.
MEASURES = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "recall@100": "R@100"}


@dataclass(frozen=True, slots=True)
class RankingQuality:
    """Means over all judged queries, and the figure of each query; keys are those of MEASURES."""

    mean: dict[str, float]
    by_query: dict[str, dict[str, float]]


def measure_rankings(judgements: Judgements, rankings: Rankings) -> RankingQuality:
    """Measures rankings (document and score, best first) by the order in which they were given.

    A judged query without a ranking counts as zero. Scores play no part: trec_eval would put equal ones into an order
    of its own, which nobody who searched has seen. Raises ConfigurationError when the `eval` extra is missing.
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
    ours = {ir_measures.parse_measure(theirs): name for name, theirs in MEASURES.items()}
    for metric in ir_measures.iter_calc(list(ours), judgements, runs):
        by_query[metric.query_id][ours[metric.measure]] = metric.value
    count = len(by_query)
    return RankingQuality({name: sum(q[name] for q in by_query.values()) / count for name in MEASURES}, by_query)


def write_run(path: Path, rankings: Rankings, tag: str) -> None:
    """Writes a TREC run file: query, Q0, document, rank from 1, score, tag. Spaces in ids become underscores.

    Scores are the engine's. A reader that sorts by them may order ties differently than the ranks say.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for query, ranking in rankings.items():
            for rank, (document, score) in enumerate(ranking, 1):
                file.write(f"{_replace_spaces(query)} Q0 {_replace_spaces(document)} {rank} {score:.9g} {tag}\n")


def _replace_spaces(identifier: str) -> str:
    return "_".join(identifier.split())
