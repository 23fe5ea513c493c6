"""Judged collections for ranking benchmarks: vectors from a cache, exact sparse scores, lexical lists of a real node.

Encoding takes minutes to hours, so a file keeps the vectors of a collection. Its name has the encoder's fingerprint,
how texts are cut, and size and time of the corpus. Lexical lists come from the service's own mapping, analyser and
query. `sample_collection` takes every n-th document of a collection whose texts would take an hour.
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

from benchmarks.measuring import make_parser
from benchmarks.service import create_index, journal_documents
from benchmarks.stdlib import make_stdlib_collection
from cli.relevance.exact_search import ExactIndex, encode_documents
from cli.relevance.metrics import Rankings
from models.encoder import Encoder
from models.judged_collection import CorpusDocument, JudgedCollection, Judgements, open_collection
from services.documents.document import Document, joined_text
from services.encoders.vectors import SparseVector
from services.errors import BackendUnavailable
from services.index_spec import IndexSpec
from services.opensearch.analysis import blank_stop_words
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import delete_generations_call, refresh_call
from services.opensearch.queries import SearchPlan, build_search_body, lexical_query, msearch_call
from services.opensearch.stored_document import EncodedWindow
from services.settings import Settings

COLLECTIONS = ("adi", "cisi", "cosqa", "cranfield", "medline", "qmsum_meetings/4")
# The demo's questions about Python's documentation. They are measured and decide nothing, so they stay a fair test.
DEMO_COLLECTION = "stdlib"
CANDIDATE_COUNT = 100
_TIMEOUT_SECONDS = 120.0
_QUERIES_PER_REQUEST = 50
# Enough windows to sort by length, and few enough for the memory with long documents.
_BATCH_DOCUMENTS = 128
LexicalLists = dict[str, list[tuple[str, float]]]
DocumentWindows = dict[str, list[EncodedWindow]]


@dataclass(frozen=True, slots=True)
class CollectionSample(JudgedCollection):
    """Every n-th document of a collection, and the queries with a relevant document among them."""

    every: int = 1

    def documents(self) -> Iterator[CorpusDocument]:
        """Yield the sampled documents in file order."""
        return islice(JudgedCollection.documents(self), 0, None, self.every)


def open_sample(data: Path, label: str) -> JudgedCollection:
    """Open a collection of the directory `data`; the label `NAME/4` takes every fourth document."""
    name, _, every = label.partition("/")
    return sample_collection(open_collection(data / name), int(every or 1))


def sample_collection(collection: JudgedCollection, every: int) -> JudgedCollection:
    """Return the sample of every n-th document; the collection itself for n = 1.

    Judgements of other documents are dropped, and with them the queries that have none left. Retrieval from fewer
    documents is easier, so figures of a sample compare with each other only.
    """
    if every <= 1:
        return collection
    kept = {document.id for document in islice(collection.documents(), 0, None, every)}
    judgements = {
        query: grades
        for query, judged in collection.judgements.items()
        if (grades := {document: grade for document, grade in judged.items() if document in kept})
    }
    name = f"{collection.name}, one document in {every}"
    return CollectionSample(name, collection.corpus, collection.queries, judgements, every)


@dataclass(frozen=True)
class JudgedLists:
    """Collection with its judged queries, its exact sparse index, and the lexical list of each query."""

    name: str
    judgements: Judgements
    queries: dict[str, str]
    index: ExactIndex
    lexical: Rankings


def judged_arguments(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a benchmark over judged collections."""
    parser = make_parser(name, description)
    parser.add_argument("data", type=Path, help="directory of collections")
    parser.add_argument("--collections", default=",".join(COLLECTIONS), help="names, each with /N for one in N")
    parser.add_argument("--encoder", default="projected-minilm-l6")
    parser.add_argument("--threads", type=int, default=0, help="threads of the encoder; 0: all cores")
    parser.add_argument("--cache", type=Path, help="where vectors are kept for the next run")
    return parser


def open_judged_collections(
    arguments: argparse.Namespace, encoder: Encoder, settings: Settings
) -> Iterator[JudgedLists]:
    """Yield the chosen collections, then the demo's. `NAME/4` takes every fourth document."""
    with closing(SyncSearchClient(settings)) as search:
        for label in arguments.collections.split(","):
            collection = open_sample(arguments.data, label)
            yield _open_judged(label, collection, encoder, search, settings, arguments.cache)
        with tempfile.TemporaryDirectory(prefix="sparsewell-") as folder:
            collection = make_stdlib_collection((arguments.cache or Path(folder)) / DEMO_COLLECTION)
            yield _open_judged(DEMO_COLLECTION, collection, encoder, search, settings, arguments.cache)


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
        search_lexical_lists(search, settings, collection, CANDIDATE_COUNT),
    )


def encode_collection(
    collection: JudgedCollection, encoder: "Encoder", cache: Path | None = None
) -> dict[str, SparseVector]:
    """Return the vectors that a default index would hold, by document. Prints progress.

    A file in `cache` keeps them for the next run. Its name has the fingerprint, the cut and the pruning (which the
    fingerprint leaves out), and size and time of the corpus.
    """
    window = encoder.manifest.window
    top_k = IndexSpec.model_validate({}).document_top_k
    corpus = collection.corpus.stat()
    made_by = f"{encoder.fingerprint}-{window.pieces}-{window.overlap}-{top_k}"
    stamp = f"{collection.name}-{made_by}-{corpus.st_size}-{corpus.st_mtime_ns}"
    path = cache / f"{stamp}.npz" if cache else None
    if path and path.is_file():
        return _read_cached(path)
    started = time.perf_counter()

    def report(count: int) -> None:
        print(f"\r{collection.name}: {count:,} documents encoded", end="", flush=True)

    vectors = encode_documents(encoder, collection.documents(), window, top_k, report)
    print(f" in {time.perf_counter() - started:.0f} s")
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


def encode_collection_windows(
    collection: JudgedCollection, encoder: "Encoder", cache: Path | None = None
) -> DocumentWindows:
    """Return the windows that a default index would hold, by document with a text. Prints progress.

    A file in `cache` keeps them for the next run. Its name has the fingerprint, the cut (which the fingerprint leaves
    out), and size and time of the corpus.
    """
    window = encoder.manifest.window
    corpus = collection.corpus.stat()
    made_by = f"{encoder.fingerprint}-{window.pieces}-{window.overlap}"
    stamp = f"windows-{collection.name}-{made_by}-{corpus.st_size}-{corpus.st_mtime_ns}"
    path = cache / f"{stamp}.npz" if cache else None
    if path and path.is_file():
        return read_windows(path)
    started = time.perf_counter()
    windows_of: DocumentWindows = {}
    for batch in _batches((d for d in collection.documents() if d.text), _BATCH_DOCUMENTS):
        cut = [encoder.windows(joined_text(d.title, d.text)) for d in batch]
        vectors = iter(encoder.encode([piece for windows in cut for piece in windows]))
        for document, windows in zip(batch, cut, strict=True):
            windows_of[document.id] = [EncodedWindow(w.start, w.end, next(vectors)) for w in windows]
        print(f"\r{collection.name}: {len(windows_of):,} documents encoded", end="", flush=True)
    print(f" in {time.perf_counter() - started:.0f} s")
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_windows(path, windows_of)
    return windows_of


def _batches(documents: Iterable[CorpusDocument], size: int) -> Iterator[Sequence[CorpusDocument]]:
    remaining = iter(documents)
    while batch := list(islice(remaining, size)):
        yield batch


def write_windows(path: Path, windows_of: DocumentWindows) -> None:
    """Write windows to a file."""
    windows = [window for windows in windows_of.values() for window in windows]
    np.savez_compressed(
        path,
        names=np.array(list(windows_of), dtype=str),
        counts=np.array([len(windows) for windows in windows_of.values()], dtype=np.int64),
        spans=np.array([(w.start, w.end) for w in windows], dtype=np.int64).reshape(-1, 2),
        lengths=np.array([len(w.vector) for w in windows], dtype=np.int64),
        ids=np.concatenate([w.vector.ids for w in windows]),
        weights=np.concatenate([w.vector.weights for w in windows]),
    )


def read_windows(path: Path) -> DocumentWindows:
    """Read the windows that `write_windows` wrote."""
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


@dataclass(frozen=True)
class LexicalIndex:
    """Collection's documents in an OpenSearch index, for lexical search."""

    search: SyncSearchClient
    physical: str

    def lists(self, queries: Mapping[str, dict[str, Any]], size: int) -> LexicalLists:
        """Return the best `size` documents of each OpenSearch query."""
        lists: LexicalLists = {}
        names = list(queries)
        for start in range(0, len(names), _QUERIES_PER_REQUEST):
            batch = names[start : start + _QUERIES_PER_REQUEST]
            plans = [
                SearchPlan(self.physical, build_search_body(queries[name], size, False, _TIMEOUT_SECONDS))
                for name in batch
            ]
            answer = self.search.send(msearch_call(plans, _TIMEOUT_SECONDS))
            for name, response in zip(batch, answer["responses"], strict=True):
                if "error" in response or response["timed_out"]:
                    raise BackendUnavailable("search_failed", f"OpenSearch could not answer the query {name}.")
                lists[name] = [(hit["_id"], float(hit["_score"])) for hit in response["hits"]["hits"]]
        return lists


@contextmanager
def open_lexical_index(
    search: SyncSearchClient, settings: Settings, collection: JudgedCollection
) -> Iterator[LexicalIndex]:
    """Yield an index that is deleted at the end.

    Documents are journalled as the API does and never encoded, because lexical search needs no vectors.
    """
    generation = create_index(search, settings, "lexical")
    try:
        documents = [Document(d.id, d.text, d.title) for d in collection.documents() if d.text]
        journal_documents(search, settings, generation, documents)
        search.send(refresh_call(generation.physical))
        yield LexicalIndex(search, generation.physical)
    finally:
        search.send(delete_generations_call([generation]))


def search_lexical_lists(
    search: SyncSearchClient, settings: Settings, collection: JudgedCollection, size: int
) -> LexicalLists:
    """Return the best `size` documents of each judged query."""
    with open_lexical_index(search, settings, collection) as index:
        return index.lists(
            {query: lexical_query(blank_stop_words(text)) for query, text in collection.judged.items()}, size
        )


def save_vectors(path: Path, vectors: Sequence[SparseVector]) -> None:
    """Write at least one vector; an interrupted run leaves no partial file."""
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
    """Return the vectors in the order in which they were saved."""
    with np.load(path, allow_pickle=False) as file:
        ends = np.cumsum(file["lengths"])[:-1]
        ids, weights = np.split(file["ids"], ends), np.split(file["weights"], ends)
    return [SparseVector(i, w) for i, w in zip(ids, weights, strict=True)]
