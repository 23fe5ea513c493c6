"""Pairs from links between pages (wiki link prediction, arXiv 2002.03932) for `sparsewell train own`: a study.

    python -m benchmarks link_pairs --json benchmarks/results/link-pairs.json

The corpus is the demo's: docstrings of Python's standard library. A docstring links to another one if it names it in
the form of a public name (`os.path.join`, `getnode()`). A name of more than 20 docstrings is no link. Two kinds of
pairs:

* `first section`: the first sentences of the named document, for the document that names it (the paper's);
* `naming sentence`: the sentence that has the name, for the named document.

The shipped encoder's table is refitted (`models.projection.refit`) to texts and target vectors:

* `own texts`: titles, headings and sentences, to their own vectors. This is `train own` as it is;
* `link queries`: the queries of the pairs, to their own vectors, alone and beside the own texts;
* `links to passages`: the queries, to the vectors of their passages, alone and beside the own texts;
* `own passages`: the control, the same kind of target without links: titles and first sentences, to their own document.

The figures are those of the demo's questions: NDCG@10, and how many find an answer within the first five. Own pieces
and expansions of documents are computed from the stored dense vectors as the encoder's graph does, in float32. The
questions choose nothing (docs/decisions/0275).
"""

import argparse
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.collections import CANDIDATE_COUNT, DocumentWindows, search_lexical_lists
from benchmarks.measuring import make_parser, run_benchmark
from benchmarks.quality.adapted_weights import count_frequencies
from benchmarks.quality.fusion_weights import fuse_rankings
from benchmarks.quality.long_documents import DocumentScores
from benchmarks.quality.relevance import EncodedCollection, encode_jointly
from benchmarks.service import open_node, read_opensearch_version
from benchmarks.stdlib import make_stdlib_collection
from cli.relevance.metrics import Rankings, measure_rankings
from examples.stdlib.results import MAX_RANK
from models.export.package import excluded_piece_ids, read_vocabulary
from models.judged_collection import JudgedCollection
from models.progress import SilentReporter
from models.projection.graph import K1, B, allowed_pieces, make_projection
from models.projection.query_table import count_pieces, fit_query_table, load_query_vectors
from models.projection.refit import RefitStart
from models.significance import compare_rankings
from models.training.own.held_out import draw_texts
from models.training.own.refit import RefitOptions, texts_of
from models.training.own.sections import split_sentences
from services.documents.document import Document, joined_text
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import DenseArray, SparseVector, normalise_vector
from services.opensearch.client import SyncSearchClient
from services.opensearch.stored_document import EncodedWindow
from services.query.expansion import prune_query
from services.query.fusion import DEFAULT_TABLE_WEIGHT, DEFAULT_WEIGHTS, interpolate_scores
from services.settings import Settings

_NAME: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(\))?")
_NOT_A_WORD: Final = re.compile(r"_|[a-z][A-Z]")
_MOST_SOURCES, _LEAST_WORDS, _MOST_WORDS, _FIRST_SENTENCES = 20, 4, 30, 2
_BATCH_WINDOWS: Final = 512
GRAPH, SHIPPED, OWN = "shipped, vectors of the graph", "shipped", "own texts"
KINDS: Final = ("sparse", "table alone", "hybrid", "reranked")


class LinkPair(NamedTuple):
    """A query and the document whose passage answers it."""

    query: str
    document: str


class FitTexts(NamedTuple):
    """Texts and the vectors [texts, width] that a table is fitted to."""

    texts: list[str]
    vectors: DenseArray

    def beside(self, other: "FitTexts") -> "FitTexts":
        """Return both."""
        return FitTexts(self.texts + other.texts, np.concatenate([self.vectors, other.vectors]))


def link_pairs(argv: list[str] | None = None) -> None:
    """Measure a refit to pairs from links on the demo's questions."""
    with tempfile.TemporaryDirectory(prefix="sparsewell-") as folder:
        parser = make_parser("link_pairs", link_pairs.__doc__)
        parser.add_argument("--encoder", default="projected-minilm-l6")
        parser.add_argument("--cache", type=Path, default=Path(folder), help="where vectors are kept for the next run")
        run_benchmark("link_pairs", parser, measure, argv)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every refit."""
    start = RefitStart.open(resolve_model_directory(arguments.encoder))
    collection = make_stdlib_collection(arguments.cache / "stdlib")
    documents = [Document(own.id, own.text, own.title) for own in collection.documents()]
    links = find_links(documents)
    pairs = {"first section": list(first_section_pairs(links, documents)), "naming sentence": naming_pairs(links)}
    encoded = encode_jointly(collection, start.encoder, arguments.cache)
    fits = make_fits(start, documents, pairs, encoded, arguments.cache)
    with open_node() as settings, closing(SyncSearchClient(settings)) as search:
        version = read_opensearch_version(settings)
        lexical = search_lexical_lists(search, settings, collection, CANDIDATE_COUNT)
    index = _StdlibIndex(start, encoded, lexical)
    figures = {GRAPH: index.measure(start.rows, encoded.windows), SHIPPED: index.measure(start.rows)}
    for name, fit in fits.items():
        figures[name] = index.measure(refit_table(start, fit))
        print(name, {kind: figures[name][kind].rounded() for kind in KINDS}, flush=True)
    return {
        "opensearch": version,
        "encoder": {"name": start.manifest.name, "fingerprint": start.manifest.fingerprint},
        "documents": len(documents),
        "questions": len(collection.judged),
        "links": len(links),
        "linking_documents": len({link.source for link in links}),
        "linked_documents": len({link.target for link in links}),
        "pairs": {kind: len(own) for kind, own in pairs.items()},
        "texts": {name: len(fit.texts) for name, fit in fits.items()},
        "figures": {name: {kind: row[kind].rounded() for kind in KINDS} for name, row in figures.items()},
        "compared_with_own_texts": {
            name: {kind: figures[OWN][kind].compared(row[kind]) for kind in KINDS}
            for name, row in figures.items()
            if name != OWN
        },
    }


class Link(NamedTuple):
    """A document that names another, and the sentence with the name."""

    source: str
    target: str
    sentence: str


def find_links(documents: Sequence[Document]) -> list[Link]:
    """Return the links of all documents, each pair of documents once. Too common names are no links."""
    names = {document.id for document in documents}
    links: dict[tuple[str, str], Link] = {}
    for document in documents:
        for part in _split_parts(document.text):
            for written in _NAME.findall(part):
                target = _resolve(written, document.id, names)
                if target:
                    links.setdefault((document.id, target), Link(document.id, target, " ".join(part.split())))
    counts = Counter(target for _, target in links)
    return [link for link in links.values() if counts[link.target] <= _MOST_SOURCES]


def _split_parts(text: str) -> Iterator[str]:
    """Yield sentences, and the lines of longer ones: lists of names with a line each have no full stops."""
    for sentence in split_sentences(text):
        yield from [sentence] if len(sentence.split()) <= _MOST_WORDS else sentence.splitlines()


def _resolve(written: str, source: str, names: set[str]) -> str | None:
    """Return the public name of another document that a text may mean: in the same class, module, or anywhere."""
    name = written.removesuffix("()")
    if "." not in name and name == written and not _NOT_A_WORD.search(name):
        return None
    parts = source.split(".")
    scopes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    candidates = [*(f"{scope}.{name}" for scope in scopes), name, f"builtins.{name}"]
    return next((c for c in candidates if c in names and c != source), None)


def first_section_pairs(links: Sequence[Link], documents: Sequence[Document]) -> Iterator[LinkPair]:
    """Yield the first sentences of each named document for each document that names it."""
    firsts = {document.id: first_sentences(document) for document in documents}
    for link in links:
        for sentence in firsts[link.target]:
            yield LinkPair(sentence, link.source)


def naming_pairs(links: Sequence[Link]) -> list[LinkPair]:
    """Return the sentence of each link for the named document."""
    return [LinkPair(link.sentence, link.target) for link in links if len(link.sentence.split()) >= _LEAST_WORDS]


def first_sentences(document: Document) -> list[str]:
    """Return the first sentences of a document that are long enough, without the signature before them."""
    call = f"{document.id.rpartition('.')[2]}("
    paragraphs = [part for part in document.text.split("\n\n") if not part.startswith(call)]
    sentences = [" ".join(part.split()) for part in _split_parts("\n\n".join(paragraphs))]
    return [sentence for sentence in sentences if len(sentence.split()) >= _LEAST_WORDS][:_FIRST_SENTENCES]


def make_fits(
    start: RefitStart,
    documents: Sequence[Document],
    pairs: Mapping[str, Sequence[LinkPair]],
    encoded: EncodedCollection,
    cache: Path,
) -> dict[str, FitTexts]:
    """Return texts and target vectors of every refit."""
    of_documents = mean_vectors(encoded)

    def own_vectors(texts: list[str]) -> FitTexts:
        vectors = load_query_vectors(cache / "vectors", start.encoder, "Queries", texts, SilentReporter())
        return FitTexts(texts, vectors)

    def passages(own: Sequence[LinkPair]) -> FitTexts:
        kept = [pair for pair in own if pair.document in of_documents]
        return FitTexts([pair.query for pair in kept], np.array([of_documents[pair.document] for pair in kept]))

    options = RefitOptions(start.manifest.name)
    own = own_vectors(draw_texts(texts_of(documents), options.queries, options.seed))
    every = [pair for kind in pairs.values() for pair in kind]
    queries = own_vectors(list(dict.fromkeys(pair.query for pair in every)))
    control = passages([LinkPair(text, d.id) for d in documents for text in (d.title, *first_sentences(d))])
    fits = {
        OWN: own,
        "link queries": queries,
        "own texts and link queries": own.beside(queries),
        "own texts and own passages": own.beside(control),
    }
    for kind, of_kind in pairs.items():
        fits[f"links to passages, {kind}"] = passages(of_kind)
        fits[f"own texts and links to passages, {kind}"] = own.beside(passages(of_kind))
    return fits


def mean_vectors(encoded: EncodedCollection) -> dict[str, DenseArray]:
    """Return the mean vector of each document's windows, at length 1."""
    rows_of_documents = zip(encoded.windows, encoded.split(encoded.dense), strict=True)
    return {name: normalise_vector(rows.mean(axis=0)) for name, rows in rows_of_documents}


def refit_table(start: RefitStart, fit: FitTexts) -> DenseArray:
    """Return the table [vocabulary, width] that is fitted to texts, as `refit_encoder` fits it."""
    pieces = QueryTable.load(start.directory)
    counts = count_pieces([pieces.ids(text) for text in fit.texts], start.manifest.vocabulary)
    table = fit_query_table(counts, fit.vectors, start.rows)
    table[sorted(excluded_piece_ids(read_vocabulary(start.directory / "tokenizer.json")))] = 0.0
    return np.asarray(table, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class QuestionFigures:
    """NDCG@10 of each question, and whether an answer is within the first five."""

    ndcg: dict[str, float]
    within: dict[str, float]

    def rounded(self) -> dict[str, float]:
        """Return the mean and the number of answered questions."""
        return {
            "ndcg@10": round(sum(self.ndcg.values()) / len(self.ndcg), 5),
            f"within_{MAX_RANK}": sum(self.within.values()),
        }

    def compared(self, after: "QuestionFigures") -> dict[str, Any]:
        """Return the differences of both figures with interval and p."""
        return {
            "ndcg@10": compare_rankings(self.ndcg, after.ndcg).figures(),
            f"within_{MAX_RANK}": compare_rankings(self.within, after.within).figures(),
        }


class _StdlibIndex:
    """The demo's documents and questions, searched in memory with any dense query table."""

    def __init__(self, start: RefitStart, encoded: EncodedCollection, lexical: Rankings) -> None:
        self._start, self._encoded, self._lexical = start, encoded, lexical
        self._pieces = QueryTable.load(start.directory)
        collection: JudgedCollection = encoded.collection
        self._judged = collection.known_judgements()
        self._ids = {name: self._pieces.ids(text) for name, text in collection.judged.items()}
        texts = {d.id: joined_text(d.title, d.text) for d in collection.documents()}
        adapted = self._pieces.adapt(count_frequencies([self._pieces.ids(text) for text in texts.values()]))
        share = Settings().prune
        self._weights = {n: prune_query(adapted.encode(t, 1000), share).by_id() for n, t in collection.judged.items()}
        vocabulary = range(start.manifest.vocabulary)
        self._query_weights = np.array([self._pieces.weight(piece) for piece in vocabulary], np.float32)
        self._own = self._own_pieces(texts)
        self._stored = encoded.store(encoded.dense)

    def _own_pieces(self, texts: Mapping[str, str]) -> list[dict[int, float]]:
        """Return BM25's saturated counts of each window's pieces, as the graph has them."""
        model = onnx.load(str(self._start.directory / "model.onnx"))
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        factor = float(numpy_helper.to_array(constants["length_factor"]).item())
        allowed = allowed_pieces(self._query_weights, _option(self._start, "least_own_weight"))
        result = []
        for name in self._encoded.windows:
            for window in self._start.encoder.windows(texts[name]):
                norm = K1 * (1 - B) + len(window.piece_ids) * factor
                counts = Counter(window.piece_ids)
                result.append({p: n * (K1 + 1) / (n + norm) for p, n in counts.items() if allowed[p]})
        return result

    def windows(self, table: DenseArray) -> DocumentWindows:
        """Return the sparse windows of all documents with the expansions of a table."""
        start = self._start
        options = start.options
        projection = make_projection(
            table,
            start.moments.spread(table),
            self._query_weights,
            scale=options.scale,
            least_query_weight=options.least_query_weight,
        )
        kept = int(_option(start, "expansions"))
        vectors: list[SparseVector] = []
        for at in range(0, len(self._own), _BATCH_WINDOWS):
            projected = (self._encoded.dense[at : at + _BATCH_WINDOWS] - start.moments.mean) @ projection
            best = np.argpartition(-projected, kept, axis=1)[:, :kept]
            for row, ids, own in zip(projected, best, self._own[at : at + _BATCH_WINDOWS], strict=True):
                weights: dict[int, float] = defaultdict(float, own)
                for piece in ids[row[ids] > 0].tolist():
                    weights[piece] += float(row[piece])
                vectors.append(SparseVector.of(list(weights), list(weights.values())))
        remaining = iter(vectors)
        return {
            name: [EncodedWindow(w.start, w.end, next(remaining)) for w in own]
            for name, own in self._encoded.windows.items()
        }

    def measure(self, table: DenseArray, windows: DocumentWindows | None = None) -> dict[str, QuestionFigures]:
        """Return the figures of each kind of search with a table, and sparse windows of its own or of the graph."""
        scored = DocumentScores(self.windows(table) if windows is None else windows)
        sparse = {name: scored.ranking(scored.both(weights)[0]) for name, weights in self._weights.items()}
        hybrid = fuse_rankings(sparse, self._lexical, DEFAULT_WEIGHTS["sparse"])
        alone: dict[str, Sequence[tuple[str, float]]] = {}
        reranked: dict[str, Sequence[tuple[str, float]]] = {}
        for name, ids in self._ids.items():
            counts = count_pieces([ids], len(table))
            dense = self._stored.scores(normalise_vector(np.asarray(counts @ table, dtype=np.float32)[0]))
            alone[name] = sorted(dense.items(), key=lambda pair: (-pair[1], pair[0]))[:CANDIDATE_COUNT]
            top = hybrid[name][:CANDIDATE_COUNT]
            reranked[name] = interpolate_scores(top, {d: dense[d] for d, _ in top if d in dense}, DEFAULT_TABLE_WEIGHT)
        lists: dict[str, Rankings] = dict(zip(KINDS, (sparse, alone, hybrid, reranked), strict=True))
        return {kind: self._figures(rankings) for kind, rankings in lists.items()}

    def _figures(self, rankings: Rankings) -> QuestionFigures:
        measured = measure_rankings(self._judged, rankings).by_query
        within = {
            name: float(any(document in self._judged[name] for document, _ in rankings.get(name, ())[:MAX_RANK]))
            for name in self._judged
        }
        return QuestionFigures({name: row["ndcg@10"] for name, row in measured.items()}, within)


def _option(start: RefitStart, name: str) -> float:
    """Return an option of the encoder's fit from its manifest."""
    training: Any = (start.manifest.model_extra or {})["training"]
    return float(training["options"][name])
