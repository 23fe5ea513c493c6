"""Command `sparsewell train project`: a projected encoder from a dense encoder and pairs, without a GPU.

The stages: read the dense encoder's transformer; count the pieces of passages, which gives the query table and the
reference frequencies; encode queries and single pieces with the dense encoder, and fit the dense query table
(`models.projection.query_table`); encode a sample of passages, whose vectors give the mean and the spread of
projections; write the graph (`models.projection.graph`) and the manifest. The vectors of queries are kept, so a stopped
run does not encode them again.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from models.dense import DenseEncoder
from models.download import MessageReporter, fetch_model
from models.encoder import PieceTokeniser
from models.export.checkpoint import FloatArray, Transformer
from models.export.package import (
    copy_tokenizer,
    count_reference,
    excluded_piece_ids,
    read_vocabulary,
    require_output_place,
    sample_passages,
    write_manifest,
    write_reference,
)
from models.export.throughput import cpu_name
from models.export.transformer_graph import Precision
from models.onnx_encoder import batch_by_length
from models.projection.dense_checkpoint import make_state_encoder, read_dense_checkpoint
from models.projection.graph import ProjectionHead, build_projected_graph
from models.projection.query_table import count_pieces, fit_query_table, measure_spread
from models.training.pairs import Pair, read_pairs, texts_fingerprint
from models.training.storage import load_or_make_rows
from models.verification import verify_directory
from services.directories import replace_directory
from services.encoders.catalogue import load_fetchable_models, read_dense_directory
from services.encoders.manifest import DenseForm, Pooling, WindowSettings, expand_path
from services.encoders.piece_frequencies import PieceFrequencies
from services.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from models.training.train import ProgressReporter

ARCHITECTURE = "BertForProjectedExpansion"
MODEL_FILES = ("model.onnx", "tokenizer.json", "query_weights.json")
RECORDED_PACKAGES = ("onnx", "onnxruntime", "tokenizers", "numpy", "scipy")
MIN_QUERIES = 1000
# all-MiniLM-L6-v2 was trained on at most 256 pieces, with the special ones.
DEFAULT_WINDOW = WindowSettings(pieces=254, overlap=31)
# Queries are titles, headings and questions. A longer one has its question at the end.
_QUERY_WORDS = 40
_QUERY_PIECES = 64
_BLOCK_TEXTS = 4096
_BATCH_PIECES = 2048
_SEED = 17


@dataclass(frozen=True, slots=True)
class ProjectionOptions:
    """Options of a run.

    `queries` and `passages` are the most texts that the dense encoder encodes, `reference` the most passages whose
    pieces are counted. `window` is the encoder's. The others are those of
    `models.projection.graph.ProjectionHead`; docs/decisions/0242 has their measurements.
    """

    queries: int = 100_000
    passages: int = 10_000
    reference: int = 40_000
    window: WindowSettings = DEFAULT_WINDOW
    scale: float = 0.4
    expansions: int = 64
    least_query_weight: float = 1.5
    least_own_weight: float = 1.0
    precision: Precision = "int8"
    licence: str = "unstated"

    @property
    def top_k(self) -> int:
        """Return the most weights of a window: its own pieces, which are never cut, and the expansions."""
        return self.window.pieces + self.expansions


@dataclass(frozen=True, slots=True)
class DenseSource:
    """A dense encoder to project: its name, the directory of its float32 graph, its form and licence."""

    name: str
    directory: Path
    form: DenseForm
    licence: str


def open_dense_source(name: str, cache: Path, report: MessageReporter) -> DenseSource:
    """Return a dense encoder of the catalogue, fetched into `cache` if needed, or of a directory with a dense.json.

    Raises ConfigurationError: `unknown_model`, `not_dense`, `bad_dense_encoder`, and those of `fetch_model`.
    """
    known = load_fetchable_models().get(name)
    if known is None:
        directory = expand_path(name)
        if not directory.is_dir():
            names = ", ".join(sorted(key for key, model in load_fetchable_models().items() if model.form is not None))
            raise ConfigurationError(
                "unknown_model", f"{name!r} is neither a dense encoder that can be fetched ({names}) nor a directory."
            )
        described = read_dense_directory(directory)
        return DenseSource(described.identity.name, directory, described.form, described.licence)
    if known.form is None:
        raise ConfigurationError("not_dense", f"{name} is not a dense encoder: {known.what}.")
    return DenseSource(name, fetch_model(name, cache, report), known.form, known.licence)


def project_encoder(
    source: DenseSource, files: Sequence[Path], out: Path, options: ProjectionOptions, *, show: ProgressReporter
) -> Path:
    """Fit a projected encoder, and write it to the directory OUT, whose name becomes the encoder's.

    The directory OUT.vectors beside it keeps the vectors of queries. Raises ConfigurationError
    (`bad_name`, `encoder_exists`, `bad_tokenizer`, and those of `read_dense_checkpoint`) and InvalidInput
    (`too_few_queries`, `too_few_passages`, `not_finite_scores`, and those of `read_pairs`).
    """
    began = time.monotonic()
    require_output_place(out, replace=False)
    transformer = read_dense_checkpoint(source.directory)
    vocabulary = read_vocabulary(source.directory / "tokenizer.json")
    _require_one_vocabulary(source.directory, transformer, vocabulary)
    pairs, by_file = _sample_pairs(files, options.queries, show)
    pieces = PieceTokeniser.load(source.directory / "tokenizer.json")
    passages = sample_passages(files, options.reference)
    reference, reference_files = count_reference(lambda text: pieces.ids([text])[0], passages)
    fit = _Fit(source, transformer, vocabulary, options.window, out.with_name(f"{out.name}.vectors"), show)
    fit.report_memory(pairs, options.passages)
    table = fit.query_table([pair.query for pair in pairs])
    sample = pieces.ids([pair.passage for pair in pairs[: options.passages]])
    rows = [row[: options.window.pieces] for row in sample]
    vectors = fit.passage_vectors(rows)
    mean = vectors.mean(axis=0)
    head = ProjectionHead(
        table=table,
        mean=mean,
        spread=measure_spread(vectors - mean, table),
        query_weights=_query_weights(reference, transformer.vocabulary, excluded_piece_ids(vocabulary)),
        pooling=source.form.pooling,
        average_length=float(np.mean([len(row) for row in rows])),
        scale=options.scale,
        expansions=options.expansions,
        least_query_weight=options.least_query_weight,
        least_own_weight=options.least_own_weight,
        prefix=tuple(pieces.ids([source.form.passage_prefix])[0]),
    )
    description = {
        "licence": options.licence,
        "training": {
            "dense": source.name,
            "queries": by_file,
            "passages": len(rows),
            "options": asdict(options) | {"window": options.window.model_dump()},
            "seconds": round(time.monotonic() - began),
            "machine": cpu_name(),
            "versions": {package: version(package) for package in RECORDED_PACKAGES},
        },
    }
    with replace_directory(out) as fresh:
        _write_encoder(fresh, out.resolve().name, source, transformer, head, options, description)
        write_reference(fresh, reference, reference_files)
        for problem in verify_directory(fresh).problems:
            raise problem
    show.report(f"Fitted in {time.monotonic() - began:,.0f} s.")
    return out


def _require_one_vocabulary(directory: Path, transformer: Transformer, vocabulary: Mapping[str, int]) -> None:
    last = max(vocabulary.values(), default=0)
    if last >= transformer.vocabulary:
        raise ConfigurationError(
            "bad_tokenizer",
            f"{directory / 'tokenizer.json'} has piece ids up to {last:,}, and the model has a vocabulary of "
            f"{transformer.vocabulary:,}: the tokeniser belongs to another model.",
        )


def _sample_pairs(files: Sequence[Path], most: int, show: ProgressReporter) -> tuple[list[Pair], dict[str, int]]:
    """Return at most `most` pairs of distinct queries in random order, and their number by file.

    Each file gives the same number, drawn at random. A file with fewer queries gives all of its own, and the others
    give more.
    """
    by_file: dict[str, list[Pair]] = {}
    for number, file in enumerate(files):
        pairs: dict[str, Pair] = {}
        for pair in read_pairs(file):
            query = " ".join(pair.query.split()[-_QUERY_WORDS:])
            pairs.setdefault(query, Pair(query, pair.passage, file.name))
        by_file[file.name] = _shuffled(list(pairs.values()))
        show.step("Reading pairs", number + 1, len(files))
    chosen: dict[str, Pair] = {}
    for taken, name in enumerate(sorted(by_file, key=lambda name: len(by_file[name]))):
        share = (most - len(chosen)) // (len(by_file) - taken)
        chosen |= {pair.query: pair for pair in by_file[name][:share] if pair.query not in chosen}
    if len(chosen) < MIN_QUERIES:
        raise InvalidInput(
            "too_few_queries",
            f"The files have {len(chosen):,} distinct queries; a fit needs at least {MIN_QUERIES:,}.",
        )
    return _shuffled(list(chosen.values())), dict(Counter(pair.origin for pair in chosen.values()))


def _shuffled(pairs: list[Pair]) -> list[Pair]:
    return random.Random(_SEED).sample(pairs, len(pairs))  # noqa: S311 (not a secret)


class _Fit:
    """The dense encoder's vectors of texts, and the table that is fitted to them."""

    def __init__(
        self,
        source: DenseSource,
        transformer: Transformer,
        vocabulary: Mapping[str, int],
        window: WindowSettings,
        directory: Path,
        show: ProgressReporter,
    ) -> None:
        """`directory` keeps the vectors of queries."""
        self._dense = DenseEncoder(source.directory, source.form.cut(_QUERY_PIECES), name=source.name)
        self._form = source.form
        self._transformer = transformer
        self._vocabulary = vocabulary
        self._window = window
        self._pieces = PieceTokeniser.load(source.directory / "tokenizer.json")
        self._directory = directory
        self._show = show

    def report_memory(self, pairs: Sequence[Pair], passages: int) -> None:
        """Report the numbers of pairs and the memory that the fit takes at most."""
        width, vocabulary = self._transformer.width, self._transformer.vocabulary
        # The vectors of queries and seven matrices of the table's size, in float32.
        memory = 4 * width * (len(pairs) + 7 * vocabulary)
        self._show.report(
            f"{len(pairs):,} queries, {min(passages, len(pairs)):,} passages. The fit takes about "
            f"{memory / 1e9:.1f} GB of memory."
        )

    def query_table(self, queries: Sequence[str]) -> FloatArray:
        """Return the dense query table [vocabulary, width]."""
        words = [""] * self._transformer.vocabulary
        excluded = excluded_piece_ids(dict(self._vocabulary))
        for piece, piece_id in self._vocabulary.items():
            if piece_id not in excluded:
                words[piece_id] = piece.removeprefix("##")
        start = self._query_vectors("Single pieces", words)
        vectors = self._query_vectors("Queries", queries)
        counts = count_pieces(self._pieces.ids(queries), self._transformer.vocabulary)
        return fit_query_table(counts, vectors, start, done=lambda at, of: self._show.step("Fitting the table", at, of))

    def passage_vectors(self, rows: Sequence[Sequence[int]]) -> FloatArray:
        """Return the vectors [rows, width] of rows of piece ids, by the int8 transformer that the encoder will have.

        Raises InvalidInput (`not_finite_scores`).
        """
        vectors = np.empty((len(rows), self._transformer.width), np.float32)
        encode = make_state_encoder(self._transformer, "int8")
        prefix = self._pieces.ids([self._form.passage_prefix])[0]
        first, last = self._pieces.id_of("[CLS]"), self._pieces.id_of("[SEP]")
        done = 0
        for batch in batch_by_length([len(row) for row in rows], _BATCH_PIECES):
            framed = [(first, *prefix, *rows[row], last) for row in batch]
            for row, states in zip(batch, encode(framed), strict=True):
                pooled = states[0] if self._form.pooling is Pooling.first else states.mean(axis=0)
                vectors[row] = pooled / max(float(np.linalg.norm(pooled)), 1e-12)
            done += len(batch)
            self._show.step("Passages", done, len(rows))
        if not np.isfinite(vectors).all():
            raise InvalidInput("not_finite_scores", f"The dense encoder {self._dense.name} gave NaN or infinity.")
        return vectors

    def _query_vectors(self, title: str, texts: Sequence[str]) -> FloatArray:
        """Return the vectors [texts, width]; the directory keeps them."""
        fingerprint = texts_fingerprint([self._dense.fingerprint, title, texts_fingerprint(texts)])
        arrays = load_or_make_rows(
            self._directory / f"{title.lower().replace(' ', '-')}-{fingerprint}",
            len(texts),
            _BLOCK_TEXTS,
            lambda start, end: {"vectors": self._dense.encode_queries(texts[start:end])},
            about={"dense": self._dense.name, "texts": title},
            done=lambda rows: self._show.step(title, rows, len(texts)),
        )
        return np.asarray(arrays["vectors"], dtype=np.float32)


def _query_weights(reference: PieceFrequencies, vocabulary: int, excluded: set[int]) -> FloatArray:
    """Return the weights of pieces in queries [vocabulary]: their idf in the reference, 0 for excluded pieces."""
    weights = reference.idf(vocabulary).astype(np.float32)
    weights[sorted(excluded)] = 0.0
    return weights


def _write_encoder(
    directory: Path,
    name: str,
    source: DenseSource,
    transformer: Transformer,
    head: ProjectionHead,
    options: ProjectionOptions,
    description: Mapping[str, Any],
) -> None:
    """Write graph, tokeniser, query table and manifest."""
    model = build_projected_graph(transformer, head, precision=options.precision, top_k=options.top_k)
    onnx.checker.check_model(model)
    (directory / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    copy_tokenizer(source.directory / "tokenizer.json", directory / "tokenizer.json")
    vocabulary = read_vocabulary(directory / "tokenizer.json")
    weights = {piece: round(float(head.query_weights[piece_id]), 5) for piece, piece_id in vocabulary.items()}
    lines = ",\n".join(
        f"{json.dumps(piece, ensure_ascii=False)}: {weights[piece]!r}"
        for piece in sorted(vocabulary, key=vocabulary.__getitem__)
        if weights[piece] > 0
    )
    (directory / "query_weights.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    write_manifest(
        directory,
        {
            "name": name,
            "architecture": ARCHITECTURE,
            "vocabulary": transformer.vocabulary,
            "max_pieces": transformer.max_pieces - len(head.prefix),
            "window": options.window.model_dump(),
            "top_k": options.top_k,
            "precision": options.precision,
            "dense": {"width": transformer.width, "form": source.form.model_dump(mode="json")},
            **description,
        },
        MODEL_FILES,
    )
