"""The windows of a collection's documents with their vectors, encoded once and kept in a file for the next run.

Vectors of a collection, encoded once and kept in a file: several benchmarks want the same ones.

Keyword search's lists for a collection, from a real node with the service's mapping, analyser and query.

Judged collections with what measuring a ranking needs: exact sparse scores, and keyword lists from a real node.

Sparse vectors in a file, for what is encoded once and measured often.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import make_parser, sample_collection
from benchmarks.service import create_index, journal_documents
from benchmarks.stdlib import make_stdlib_collection
from cli.relevance.collection import CorpusDocument, JudgedCollection, Judgements, open_collection
from cli.relevance.metrics import ExactIndex, Rankings, encode_documents
from models.encoder import Encoder
from services.documents.document import Document, joined_text
from services.encoders.vectors import SparseVector
from services.errors import BackendUnavailable
from services.index_spec import IndexSpec
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import delete_generations_call, refresh_call
from services.opensearch.queries import SearchPlan, build_search_body, lexical_query, msearch_call
from services.opensearch.stored_document import EncodedWindow
from services.settings import Settings


def encode_collection(
    collection: JudgedCollection, encoder: "Encoder", cache: Path | None = None
) -> dict[str, SparseVector]:
    """The vectors that a default index would hold. Prints how far it is; a file in `cache` saves the next run the work.

    The file belongs to the encoder's fingerprint, to how texts are cut and pruned (which the fingerprint leaves out),
    and to the corpus as it is now (size and time of change).
    """
    window = encoder.manifest.window
    top_k = IndexSpec.model_validate({}).document_top_k
    corpus = collection.corpus.stat()
    made_by = f"{encoder.fingerprint}-{window.pieces}-{window.overlap}-{top_k}"
    stamp = f"{collection.name}-{made_by}-{corpus.st_size}-{corpus.st_mtime_ns}"
    path = cache / f"{stamp}.npz" if cache else None
    if path and path.is_file():
        return _read_cached(path)
    begun = time.perf_counter()

    def report(count: int) -> None:
        print(f"\r{collection.name}: {count:,} documents encoded", end="", flush=True)

    vectors = encode_documents(encoder, collection.documents(), window, top_k, report)
    print(f" in {time.perf_counter() - begun:.0f} s")
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path,
            names=np.array(list(vectors), dtype=str),
            lengths=np.array([len(v) for v in vectors.values()], dtype=np.int64),
            ids=np.concatenate([v.ids for v in vectors.values()]),
            weights=np.concatenate([v.weights for v in vectors.values()]),
        )
    return vectors


def _read_cached(path: Path) -> dict[str, SparseVector]:
    with np.load(path, allow_pickle=False) as file:
        ends = np.cumsum(file["lengths"])[:-1]
        ids, weights = np.split(file["ids"], ends), np.split(file["weights"], ends)
        names = file["names"].tolist()
    return {name: SparseVector(i, w) for name, i, w in zip(names, ids, weights, strict=True)}


KeywordLists = dict[str, list[tuple[str, float]]]

_TIMEOUT_SECONDS = 120.0
_QUERIES_PER_REQUEST = 50


@dataclass(frozen=True)
class KeywordIndex:
    """A collection's documents, found by keyword."""

    search: SyncSearchClient
    physical: str

    def lists(self, queries: Mapping[str, dict[str, Any]], size: int) -> KeywordLists:
        """The best `size` documents of each OpenSearch query."""
        found: KeywordLists = {}
        names = list(queries)
        for start in range(0, len(names), _QUERIES_PER_REQUEST):
            some = names[start : start + _QUERIES_PER_REQUEST]
            plans = [
                SearchPlan(self.physical, build_search_body(queries[name], size, False, _TIMEOUT_SECONDS))
                for name in some
            ]
            answer = self.search.send(msearch_call(plans, _TIMEOUT_SECONDS))
            for name, response in zip(some, answer["responses"], strict=True):
                if "error" in response or response["timed_out"]:
                    raise BackendUnavailable("search_failed", f"OpenSearch could not answer the query {name}.")
                found[name] = [(hit["_id"], float(hit["_score"])) for hit in response["hits"]["hits"]]
        return found


@contextmanager
def open_keyword_index(
    search: SyncSearchClient, settings: Settings, collection: JudgedCollection
) -> Iterator[KeywordIndex]:
    """An index that is made for this and deleted afterwards.

    Documents are journalled as the API does and never encoded: keyword search needs no more.
    """
    generation = create_index(search, settings, "keywords")
    try:
        documents = [Document(d.id, d.text, d.title) for d in collection.documents() if d.text]
        journal_documents(search, settings, generation, documents)
        search.send(refresh_call(generation.physical))
        yield KeywordIndex(search, generation.physical)
    finally:
        search.send(delete_generations_call([generation]))


def search_keyword_lists(
    search: SyncSearchClient, settings: Settings, collection: JudgedCollection, size: int
) -> KeywordLists:
    """The best `size` documents of every judged query."""
    with open_keyword_index(search, settings, collection) as index:
        return index.lists({query: lexical_query(text) for query, text in collection.judged.items()}, size)


COLLECTIONS = ("adi", "cisi", "cosqa", "cranfield", "medline", "qmsum_meetings/4")
# The demo's questions about Python's documentation: measured, and without a part in any choice, so that they stay a
# fair witness.
DEMO_COLLECTION = "stdlib"
CANDIDATE_COUNT = 100


@dataclass(frozen=True)
class JudgedLists:
    """A collection: its judged queries, the postings of its vectors, and the keyword list of each query."""

    name: str
    judgements: Judgements
    queries: dict[str, str]
    index: ExactIndex
    lexical: Rankings


def judged_arguments(name: str, described: str) -> argparse.ArgumentParser:
    """The command line of a benchmark over judged collections."""
    parser = make_parser(name, described)
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default=",".join(COLLECTIONS), help="names, each with /N for one in N")
    parser.add_argument("--encoder", default="bootstrap-minilm-l6")
    parser.add_argument("--threads", type=int, default=0, help="threads of the encoder; 0: all cores")
    parser.add_argument("--cache", type=Path, help="where vectors are kept for the next run")
    return parser


def open_judged_collections(given: argparse.Namespace, encoder: Encoder, settings: Settings) -> Iterator[JudgedLists]:
    """The collections that were asked for, then the demo's. `NAME/4` takes every fourth document only."""
    with closing(SyncSearchClient(settings)) as search:
        for wanted in given.collections.split(","):
            name, _, every = wanted.partition("/")
            collection = sample_collection(open_collection(given.data / name), int(every or 1))
            yield _open_judged(wanted, collection, encoder, search, settings, given.cache)
        with tempfile.TemporaryDirectory(prefix="sparsewell-") as folder:
            collection = make_stdlib_collection((given.cache or Path(folder)) / DEMO_COLLECTION)
            yield _open_judged(DEMO_COLLECTION, collection, encoder, search, settings, given.cache)


def _open_judged(
    name: str,
    collection: JudgedCollection,
    encoder: Encoder,
    search: SyncSearchClient,
    settings: Settings,
    cache: Path | None,
) -> JudgedLists:
    return JudgedLists(
        name,
        collection.known_judgements(),
        dict(collection.judged),
        ExactIndex(encode_collection(collection, encoder, cache)),
        search_keyword_lists(search, settings, collection, CANDIDATE_COUNT),
    )


def save_vectors(path: Path, vectors: Sequence[SparseVector]) -> None:
    """Writes at least one vector; a run that is killed leaves no half of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part.npz")
    np.savez(
        scratch,
        lengths=np.array([len(vector) for vector in vectors], dtype=np.int64),
        ids=np.concatenate([vector.ids for vector in vectors]),
        weights=np.concatenate([vector.weights for vector in vectors]),
    )
    scratch.replace(path)


def load_vectors(path: Path) -> list[SparseVector]:
    """The vectors in the order in which they were saved."""
    with np.load(path, allow_pickle=False) as file:
        ends = np.cumsum(file["lengths"])[:-1]
        ids, weights = np.split(file["ids"], ends), np.split(file["weights"], ends)
    return [SparseVector(i, w) for i, w in zip(ids, weights, strict=True)]


DocumentWindows = dict[str, list[EncodedWindow]]

# Enough windows to sort by length, few enough that a long document's do not pile up.
_BATCH_DOCUMENTS = 128


def encode_collection_windows(
    collection: JudgedCollection, encoder: "Encoder", cache: Path | None = None
) -> DocumentWindows:
    """The windows that a default index would hold of each document that has a text. Prints how far it is.

    A file in `cache` saves the next run the work. It belongs to the encoder's fingerprint, to how texts are cut (which
    the fingerprint leaves out), and to the corpus as it is now (size and time of change).
    """
    window = encoder.manifest.window
    corpus = collection.corpus.stat()
    made_by = f"{encoder.fingerprint}-{window.pieces}-{window.overlap}"
    stamp = f"windows-{collection.name}-{made_by}-{corpus.st_size}-{corpus.st_mtime_ns}"
    path = cache / f"{stamp}.npz" if cache else None
    if path and path.is_file():
        return read_windows(path)
    begun = time.perf_counter()
    found: DocumentWindows = {}
    for together in _batches((d for d in collection.documents() if d.text), _BATCH_DOCUMENTS):
        cut = [encoder.windows(joined_text(d.title, d.text)) for d in together]
        vectors = iter(encoder.encode([piece for windows in cut for piece in windows]))
        for document, windows in zip(together, cut, strict=True):
            found[document.id] = [EncodedWindow(w.start, w.end, next(vectors)) for w in windows]
        print(f"\r{collection.name}: {len(found):,} documents encoded", end="", flush=True)
    print(f" in {time.perf_counter() - begun:.0f} s")
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_windows(path, found)
    return found


def _batches(documents: Iterable[CorpusDocument], size: int) -> Iterator[Sequence[CorpusDocument]]:
    some = iter(documents)
    while together := list(islice(some, size)):
        yield together


def write_windows(path: Path, found: DocumentWindows) -> None:
    """Keeps windows in a file."""
    windows = [window for of_one in found.values() for window in of_one]
    np.savez_compressed(
        path,
        names=np.array(list(found), dtype=str),
        counts=np.array([len(of_one) for of_one in found.values()], dtype=np.int64),
        spans=np.array([(w.start, w.end) for w in windows], dtype=np.int64).reshape(-1, 2),
        lengths=np.array([len(w.vector) for w in windows], dtype=np.int64),
        ids=np.concatenate([w.vector.ids for w in windows]),
        weights=np.concatenate([w.vector.weights for w in windows]),
    )


def read_windows(path: Path) -> DocumentWindows:
    """The inverse of `write_windows`."""
    with np.load(path, allow_pickle=False) as file:
        ends = np.cumsum(file["lengths"])[:-1]
        ids, weights = np.split(file["ids"], ends), np.split(file["weights"], ends)
        windows = iter(
            [
                EncodedWindow(int(start), int(end), SparseVector(i, w))
                for (start, end), i, w in zip(file["spans"], ids, weights, strict=True)
            ]
        )
        return {
            name: list(islice(windows, int(count)))
            for name, count in zip(file["names"].tolist(), file["counts"], strict=True)
        }
