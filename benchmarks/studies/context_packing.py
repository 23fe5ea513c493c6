"""Passages packed into the context of a generator within a budget (after REFRAG, arXiv 2509.01092): a study.

    python -m benchmarks context_packing COLLECTIONS --json benchmarks/results/context-packing.json

REFRAG gives a decoder most passages as vectors and expands a few to their text. No decoder is trained here, so this
measures what a caller can pack as text. The first 100 documents of hybrid search, reranked by the dense query table, go
into 2,000 or 4,000 characters:

* `whole`: documents in their order; the last one is cut;
* `first sentences`: the first two sentences of each document;
* `best sentences k`: the k best sentences of each by sparse score, in the order of the text;
* `half expanded`: whole documents in half the budget, then the two best sentences of each other one;
* `windows`: windows of 128 pieces of all candidates by the product of query and window; `diverse` takes off .3 of the
  similarity to the nearest window that is packed (maximal marginal relevance).

Figures of a query: `relevant documents`, the share of judged relevant documents of which the context has a part;
`answer words`, the weighted share of the 50 words that tell its relevant documents from others, found in the parts
of relevant documents; `relevant characters`, the share of the context that comes from relevant documents. Words of the
query are no answer words, because sentences are chosen by them. A meeting is one document of 45,000 characters, so
its answer words say nothing and are left out.

`positions` counts the pieces and vectors that a decoder would read: the recall if every 16 or 128 pieces were one
vector, and with a quarter of them expanded. `readout` is the share of a window's own pieces among as many pieces that a
linear map reads from its vector (docs/decisions/0275).
"""

import argparse
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import scipy.sparse as sp

from benchmarks.collections import judged_arguments
from benchmarks.measuring import run_benchmark
from benchmarks.quality.adapted_weights import count_frequencies
from benchmarks.studies.reranked_lists import StudyCollection, open_study_collections
from models.encoder import TextWindow
from models.projection.encoder import ProjectedEncoder
from models.projection.graph import make_projection
from models.projection.refit import RefitStart
from models.significance import compare_rankings
from models.training.own.sections import find_sentence_spans
from services.documents.document import joined_text
from services.encoders.manifest import WindowSettings, resolve_model_directory
from services.encoders.vectors import DenseArray
from services.index_spec import IndexSpec
from services.opensearch.stored_document import document_vector

COLLECTIONS: Final = ("cranfield", "medline", "qmsum_meetings/4")
BUDGETS: Final = (2_000, 4_000)
POSITIONS: Final = (512, 1_024, 2_048)
WINDOW: Final = WindowSettings(pieces=128, overlap=16)
CHUNK_PIECES: Final = 16
EXPANDED: Final = 0.25
DIVERSITY: Final = 0.3
ANSWER_WORDS: Final = 50
# Longer documents have no answer words.
LONG_CHARACTERS: Final = 20_000
_CANDIDATES: Final = 100
_BLOCK: Final = 512
_WORD: Final = re.compile(r"[a-z]{3,}")
MEASURES: Final = ("relevant documents", "answer words", "relevant characters")
# A part of a document: its id and the characters.
Part = tuple[str, int, int]
# Figures by way to pack, measure and query.
WayFigures = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True, slots=True, eq=False)
class PackedDocument:
    """A document's text, its sentences with the weights of their pieces [sentences, vocabulary], windows and pieces."""

    text: str
    sentences: list[tuple[int, int]]
    weights: sp.csr_matrix
    windows: list[TextWindow]
    vectors: DenseArray
    pieces: int


def context_packing(argv: list[str] | None = None) -> None:
    """Measure what fits into a generator's context by the way that candidates are packed."""
    parser = judged_arguments("context_packing", context_packing.__doc__)
    parser.set_defaults(collections=",".join(COLLECTIONS))
    run_benchmark("context_packing", parser, measure, argv)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every collection."""
    start = RefitStart.open(resolve_model_directory(arguments.encoder))
    encoder = start.encoder
    rows: dict[str, Any] = {}
    for opened in open_study_collections(arguments, encoder):
        version = opened.opensearch
        documents = prepare_documents(opened, encoder, arguments)
        packer = Packer(opened, documents)
        figures = {budget: packer.measure(budget) for budget in BUDGETS}
        lengths = [len(document.text) for document in documents.values()]
        rows[opened.name] = {
            "documents": len(documents),
            "queries": len(opened.hybrid),
            "characters": {"mean": round(float(np.mean(lengths))), "most": max(lengths)},
            "budgets": {budget: summarise(own) for budget, own in figures.items()},
            "compared": {
                before: {budget: compare_ways(own, before) for budget, own in figures.items()}
                for before in ("whole", "first sentences")
            },
            "positions": {size: packer.positions(size) for size in POSITIONS},
            "readout": measure_readout(start, documents),
        }
        print(opened.name, rows[opened.name]["budgets"], rows[opened.name]["readout"], flush=True)
    return {
        "opensearch": version,
        "encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint},
        "candidates": _CANDIDATES,
        "window": WINDOW.model_dump(),
        "by_collection": rows,
    }


def prepare_documents(
    opened: StudyCollection, encoder: ProjectedEncoder, arguments: argparse.Namespace
) -> dict[str, PackedDocument]:
    """Return every document with a text. A file in the cache keeps the windows' vectors."""
    texts = {d.id: joined_text(d.title, d.text) for d in opened.collection.documents() if d.text}
    cut = {name: encoder.windows(text, WINDOW) for name, text in texts.items()}
    windows = [window for own in cut.values() for window in own]
    corpus = opened.collection.corpus.stat()
    stamp = f"chunks-{opened.collection.name}-{encoder.fingerprint}-{WINDOW.pieces}-{corpus.st_mtime_ns}.npy"
    path = arguments.cache / stamp if arguments.cache else None
    if path and path.is_file():
        vectors = np.load(path).astype(np.float32)
    else:
        blocks = []
        for at in range(0, len(windows), _BLOCK):
            blocks.append(encoder.encode_windows(windows[at : at + _BLOCK]))
            print(f"\r{opened.name}: {at:,} of {len(windows):,} windows", end="", flush=True)
        print()
        vectors = np.concatenate(blocks)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, vectors.astype(np.float16))
    by_document = np.split(vectors, np.cumsum([len(own) for own in cut.values()])[:-1])
    top_k = IndexSpec.model_validate({}).document_top_k
    prepared = {}
    for (name, text), rows in zip(texts.items(), by_document, strict=True):
        sentences = find_sentence_spans(text)
        own = document_vector(opened.encoded.windows[name], top_k)
        weights = dict(zip(own.ids.tolist(), own.weights.tolist(), strict=True))
        pieces = [opened.pieces.ids(text[start:end]) for start, end in sentences]
        prepared[name] = PackedDocument(
            text, sentences, weigh_sentences(pieces, weights, encoder.manifest.vocabulary), cut[name], rows,
            sum(map(len, pieces)),
        )  # fmt: skip
    return prepared


def weigh_sentences(sentences: Sequence[Sequence[int]], weights: Mapping[int, float], vocabulary: int) -> sp.csr_matrix:
    """Return the document's weights of the distinct pieces of each sentence: [sentences, vocabulary]."""
    ids: list[int] = []
    values: list[float] = []
    ends = [0]
    for sentence in sentences:
        own = [piece for piece in set(sentence) if piece in weights]
        ids += own
        values += [weights[piece] for piece in own]
        ends.append(len(ids))
    return sp.csr_matrix((np.array(values, np.float32), ids, ends), shape=(len(sentences), vocabulary))


class Packer:
    """The ways to pack the candidates of each query of a collection."""

    def __init__(self, opened: StudyCollection, documents: Mapping[str, PackedDocument]) -> None:
        self._opened, self._documents = opened, documents
        self._judged = {
            query: {document for document, grade in judged.items() if grade > 0}
            for query, judged in opened.collection.known_judgements().items()
        }
        self._lists = {
            query: [document for document, _ in listed[:_CANDIDATES] if document in documents]
            for query, listed in opened.reranked(opened.stored, "table").items()
        }
        adapted = opened.pieces.adapt(count_frequencies([opened.pieces.ids(d.text) for d in documents.values()]))
        self._queries = opened.collection.judged
        self._weights = {query: adapted.encode(text, 1000).by_id() for query, text in self._queries.items()}
        self._words = {name: frozenset(_WORD.findall(document.text.lower())) for name, document in documents.items()}
        self._counts = Counter(word for words in self._words.values() for word in words)
        lengths = [len(document.text) for document in documents.values()]
        self._answers = (
            {query: self.answer_words(query) for query in self._judged} if np.mean(lengths) < LONG_CHARACTERS else {}
        )

    def answer_words(self, query: str) -> dict[str, float]:
        """Return the weighted words that tell a query's relevant documents from others, without the query's words."""
        relevant = [self._words[document] for document in self._judged[query] if document in self._words]
        held = Counter(word for words in relevant for word in words)
        asked = set(_WORD.findall(self._queries[query].lower()))
        total = len(self._words)
        weights = {
            word: count / len(relevant) * math.log(total / self._counts[word])
            for word, count in held.items()
            if word not in asked
        }
        return dict(sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))[:ANSWER_WORDS])

    def measure(self, budget: int) -> WayFigures:
        """Return the figures of each query by way and measure."""
        ways: dict[str, Callable[[str, int], list[Part]]] = {
            "whole": self._whole,
            "first sentences": self._first_sentences,
            **{f"best sentences {k}": partial(self._best_sentences, count=k) for k in (1, 2, 3)},
            "half expanded": self._half_expanded,
            "windows": partial(self._windows, diversity=0.0),
            "windows, diverse": partial(self._windows, diversity=DIVERSITY),
        }
        result: dict[str, dict[str, dict[str, float]]] = {}
        for way, pack in ways.items():
            for query in self._judged:
                for name, value in self.figures(query, pack(query, budget)).items():
                    result.setdefault(way, {}).setdefault(name, {})[query] = value
        return result

    def figures(self, query: str, parts: Sequence[Part]) -> dict[str, float]:
        """Return the measures of a packed context."""
        relevant = self._judged[query]
        kept = [(name, start, end) for name, start, end in parts if name in relevant]
        packed = sum(end - start for _, start, end in parts)
        row = {
            "relevant documents": len({name for name, _, _ in kept}) / len(relevant),
            "relevant characters": sum(end - start for _, start, end in kept) / packed if packed else 0.0,
        }
        if self._answers:
            words = {w for name, a, b in kept for w in _WORD.findall(self._documents[name].text[a:b].lower())}
            weights = self._answers[query]
            total = sum(weights.values())
            row["answer words"] = sum(weights[w] for w in words & weights.keys()) / total if total else 0.0
        return row

    def _whole(self, query: str, budget: int) -> list[Part]:
        return fill([[(name, 0, len(self._documents[name].text))] for name in self._lists[query]], budget, cut=True)

    def _first_sentences(self, query: str, budget: int) -> list[Part]:
        return fill([[(n, *span) for span in self._documents[n].sentences[:2]] for n in self._lists[query]], budget)

    def _best_sentences(self, query: str, budget: int, count: int, without: frozenset[str] = frozenset()) -> list[Part]:
        names = [name for name in self._lists[query] if name not in without]
        return fill([self._best_of(query, name, count) for name in names], budget)

    def _best_of(self, query: str, name: str, count: int) -> list[Part]:
        document = self._documents[name]
        weights = self._weights[query]
        row = np.zeros(document.weights.shape[1], np.float32)
        row[list(weights)] = list(weights.values())
        scores = document.weights @ row
        best = np.sort(np.argsort(-scores, kind="stable")[:count])
        return [(name, *document.sentences[at]) for at in best.tolist()]

    def _half_expanded(self, query: str, budget: int) -> list[Part]:
        whole = [[(name, 0, len(self._documents[name].text))] for name in self._lists[query]]
        expanded = fill(whole, budget // 2, cut=True)
        left = budget - sum(end - start for _, start, end in expanded)
        return expanded + self._best_sentences(query, left, 2, frozenset(name for name, _, _ in expanded))

    def _windows(self, query: str, budget: int, diversity: float) -> list[Part]:
        vector = self._opened.vectors["table"][query]
        names = self._lists[query]
        if vector is None or not names:
            return []
        spans = [(name, w.start, w.end) for name in names for w in self._documents[name].windows]
        rows = np.concatenate([self._documents[name].vectors for name in names])
        scores = (1 - diversity) * (rows @ vector)
        nearest = np.zeros(len(rows), np.float32)
        parts: list[Part] = []
        left = budget
        lengths = np.array([end - start for _, start, end in spans])
        open_ = np.ones(len(rows), bool)
        while (open_ & (lengths <= left)).any():
            at = int(np.where(open_ & (lengths <= left), scores - diversity * nearest, -np.inf).argmax())
            parts.append(spans[at])
            left -= int(lengths[at])
            open_[at] = False
            if diversity:
                nearest = np.maximum(nearest, rows @ rows[at])
        return parts

    def positions(self, size: int) -> dict[str, float]:
        """Return the recall of relevant documents of which a part fits into so many positions of a decoder."""
        rates = {
            "whole": 1.0,
            "one vector for 16 pieces": 1 / CHUNK_PIECES,
            "a quarter expanded": EXPANDED + (1 - EXPANDED) / CHUNK_PIECES,
            "one vector for 128 pieces": 1 / WINDOW.pieces,
        }
        result = {}
        for name, rate in rates.items():
            shares = []
            for query, relevant in self._judged.items():
                costs = np.cumsum([max(1, math.ceil(self._documents[n].pieces * rate)) for n in self._lists[query]])
                # A document that does not fit is cut, so the first one always has a part.
                fitting = int((costs <= size).sum()) + 1
                shares.append(len(relevant & set(self._lists[query][:fitting])) / len(relevant))
            result[name] = round(float(np.mean(shares)), 4)
        return result


def fill(groups: Sequence[Sequence[Part]], budget: int, cut: bool = False) -> list[Part]:
    """Return the parts that fit, in order. `cut` ends with the beginning of the first that does not fit.

    One character separates parts.
    """
    parts: list[Part] = []
    left = budget
    for name, start, end in (part for group in groups for part in group):
        if end - start > left:
            if not cut:
                continue
            return [*parts, (name, start, start + left)] if left > 0 else parts
        parts.append((name, start, end))
        left -= end - start + 1
    return parts


def summarise(figures: WayFigures) -> dict[str, dict[str, float]]:
    """Return the means over queries."""
    return {
        way: {m: round(sum(row[m].values()) / len(row[m]), 4) for m in MEASURES if m in row}
        for way, row in figures.items()
    }


def compare_ways(figures: WayFigures, before: str) -> dict[str, Any]:
    """Return the differences from one way with interval and p."""
    old = figures[before]
    return {
        way: {m: compare_rankings(old[m], row[m]).figures() for m in MEASURES if m in row}
        for way, row in figures.items()
        if way != before
    }


def measure_readout(start: RefitStart, documents: Mapping[str, PackedDocument]) -> float:
    """Return the mean share of a window's own pieces among as many pieces that its vector's projection ranks first."""
    table = start.rows
    weights = np.ones(len(table), np.float32)
    projection = make_projection(table, start.moments.spread(table), weights, scale=1.0, least_query_weight=0.0)
    windows = [w for document in documents.values() for w in document.windows][: 4 * _BLOCK]
    rows = np.concatenate([document.vectors for document in documents.values()])[: len(windows)]
    shares = []
    for at in range(0, len(windows), _BLOCK):
        products = (rows[at : at + _BLOCK] - start.moments.mean) @ projection
        for product, window in zip(products, windows[at : at + _BLOCK], strict=True):
            own = set(window.piece_ids)
            if own:
                best = np.argpartition(-product, len(own))[: len(own)]
                shares.append(len(own & set(best.tolist())) / len(own))
    return round(float(np.mean(shares)), 4)
