"""Command `sparsewell train project`: a projected encoder from a dense encoder and pairs, in closed form.

The stages: read the dense encoder's transformer; count the pieces of passages, which gives the query table and the
reference frequencies; encode queries and single pieces with the dense encoder, and fit the dense query table
(`models.projection.query_table`); encode a sample of passages for the mean and the spread of projections; write the
graph (`models.projection.graph`) and the manifest. Vectors are kept in the run's directory, so a stopped run resumes.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from models.dense import DenseEncoder, DenseVectors
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
from models.projection.dense_checkpoint import read_dense_checkpoint
from models.projection.graph import ProjectionHead, build_projected_graph
from models.projection.query_table import count_pieces, fit_query_table
from models.training.pairs import read_pairs, texts_fingerprint
from models.training.storage import load_or_make_rows
from models.verification import verify_directory
from services.directories import replace_directory
from services.encoders.catalogue import load_fetchable_models, read_dense_directory
from services.encoders.manifest import DenseForm, WindowSettings, expand_path
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
_BLOCK_TEXTS = 4096
_SEED = 17


@dataclass(frozen=True, slots=True)
class ProjectionOptions:
    """Options of a run.

    `queries` and `passages` are the most texts that the dense encoder encodes, `reference` the most passages whose
    pieces are counted. `window` is the encoder's. The others are those of `models.projection.graph.ProjectionHead`;
    docs/decisions/0242 has their measurements.
    """

    queries: int = 100_000
    passages: int = 10_000
    reference: int = 40_000
    window: WindowSettings = DEFAULT_WINDOW
    scale: float = 0.2
    expansions: int = 128
    least_query_weight: float = 1.5
    least_own_weight: float = 0.5
    top_k: int = 192
    precision: Precision = "int8"
    licence: str = "unstated"


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
    source: DenseSource, pairs: Sequence[Path], out: Path, options: ProjectionOptions, *, show: ProgressReporter
) -> Path:
    """Fit a projected encoder, and write it to the directory OUT, whose name becomes the encoder's.

    Vectors are kept in the directory OUT.vectors beside it, so a stopped run goes on there. Raises ConfigurationError
    (`bad_name`, `encoder_exists`, `bad_tokenizer`, and those of `read_dense_checkpoint`) and InvalidInput
    (`too_few_queries`, `too_few_passages`, `not_finite_scores`, and those of `read_pairs`).
    """
    began = time.monotonic()
    require_output_place(out, replace=False)
    transformer = read_dense_checkpoint(source.directory)
    vocabulary = read_vocabulary(source.directory / "tokenizer.json")
    _require_one_vocabulary(source.directory, transformer, vocabulary)
    queries, by_file = _sample_queries(pairs, options.queries, show)
    passages = list(sample_passages(pairs, options.reference))
    pieces = PieceTokeniser.load(source.directory / "tokenizer.json")
    reference, reference_files = count_reference(lambda text: pieces.ids([text])[0], passages)
    show.report(
        f"{len(queries):,} queries and {len(passages):,} passages of {len(pairs):,} files. The fit takes up to "
        f"{_memory_bytes(len(queries), transformer) / 1e9:.1f} GB of memory."
    )
    fit = _Fit(source, transformer, vocabulary, out.with_name(f"{out.name}.vectors"), show)
    table = fit.query_table(queries)
    shuffled = random.Random(_SEED).sample(passages, min(options.passages, len(passages)))  # noqa: S311 (not a secret)
    sample = [text for _, text in shuffled]
    vectors = fit.passage_vectors(sample, options.window)
    mean = vectors.mean(axis=0)
    head = ProjectionHead(
        table=table,
        mean=mean,
        spread=_spread(vectors - mean, table),
        query_weights=_query_weights(reference, transformer.vocabulary, excluded_piece_ids(vocabulary)),
        pooling=source.form.pooling,
        average_length=float(np.mean([min(len(ids), options.window.pieces) for ids in pieces.ids(sample)])),
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
            "passages": len(sample),
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


def _memory_bytes(queries: int, transformer: Transformer) -> int:
    """Return the memory of the fit: the vectors of queries, and seven matrices of the table's size, in float32."""
    return 4 * transformer.width * (queries + 7 * transformer.vocabulary)


def _sample_queries(files: Sequence[Path], most: int, show: ProgressReporter) -> tuple[list[str], dict[str, int]]:
    """Return at most `most` distinct queries, and their number by file.

    Each file gives the same number, drawn at random. A file with fewer gives all of its own, and the others more.
    """
    queries: dict[str, list[str]] = {}
    for number, file in enumerate(files):
        texts = {" ".join(pair.query.split()[-_QUERY_WORDS:]) for pair in read_pairs(file)}
        queries[file.name] = random.Random(_SEED).sample(sorted(texts), len(texts))  # noqa: S311 (not a secret)
        show.step("Reading pairs", number + 1, len(files))
    chosen: dict[str, list[str]] = {}
    for name in sorted(queries, key=lambda name: len(queries[name])):
        share = (most - sum(map(len, chosen.values()))) // (len(queries) - len(chosen))
        chosen[name] = queries[name][:share]
    distinct = list(dict.fromkeys(query for name in queries for query in chosen[name]))
    if len(distinct) < MIN_QUERIES:
        raise InvalidInput(
            "too_few_queries",
            f"The files have {len(distinct):,} distinct queries; a fit needs at least {MIN_QUERIES:,}.",
        )
    return distinct, {name: len(texts) for name, texts in chosen.items()}


class _Fit:
    """The dense encoder's vectors, kept in a directory, and the table that is fitted to them."""

    def __init__(
        self,
        source: DenseSource,
        transformer: Transformer,
        vocabulary: Mapping[str, int],
        directory: Path,
        show: ProgressReporter,
    ) -> None:
        self._dense = DenseEncoder(source.directory, source.form, name=source.name)
        self._transformer = transformer
        self._vocabulary = vocabulary
        self._pieces = PieceTokeniser.load(source.directory / "tokenizer.json")
        self._directory = directory
        self._show = show

    def query_table(self, queries: Sequence[str]) -> FloatArray:
        """Return the dense query table [vocabulary, width]."""
        words = [""] * self._transformer.vocabulary
        excluded = excluded_piece_ids(dict(self._vocabulary))
        for piece, piece_id in self._vocabulary.items():
            if piece_id not in excluded:
                words[piece_id] = piece.removeprefix("##")
        start = self._vectors("Single pieces", words, self._dense.encode_queries)
        vectors = self._vectors("Queries", queries, self._dense.encode_queries)
        counts = count_pieces(self._pieces.ids(queries), self._transformer.vocabulary)
        return fit_query_table(counts, vectors, start, done=lambda at, of: self._show.step("Fitting the table", at, of))

    def passage_vectors(self, passages: Sequence[str], window: WindowSettings) -> FloatArray:
        """Return the vectors of passages' first windows, float32 [passages, width]."""

        def encode(texts: Sequence[str]) -> DenseVectors:
            return self._dense.encode_windows([self._dense.windows(text, window)[0] for text in texts])

        return self._vectors("Passages", passages, encode)

    def _vectors(self, title: str, texts: Sequence[str], encode: Callable[[Sequence[str]], DenseVectors]) -> FloatArray:
        fingerprint = texts_fingerprint([self._dense.fingerprint, title, texts_fingerprint(texts)])
        arrays = load_or_make_rows(
            self._directory / f"{title.lower().replace(' ', '-')}-{fingerprint}",
            len(texts),
            _BLOCK_TEXTS,
            lambda start, end: {"vectors": encode(texts[start:end])},
            about={"dense": self._dense.name, "texts": title},
            done=lambda rows: self._show.step(title, rows, len(texts)),
        )
        return np.asarray(arrays["vectors"], dtype=np.float32)


def _spread(centred: FloatArray, table: FloatArray) -> FloatArray:
    """Return the standard deviation [vocabulary] of each piece's product with centred vectors [passages, width]."""
    covariance = centred.T @ centred / len(centred)
    variance = ((table @ covariance) * table).sum(axis=1)
    spread: FloatArray = np.sqrt(np.maximum(variance, 0.0)).astype(np.float32) + np.float32(1e-3)
    return spread


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
