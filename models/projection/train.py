"""Command `sparsewell train project`: a projected encoder from a dense encoder and pairs, without a GPU.

The stages: read the dense encoder's transformer; count the pieces of passages, which gives the query table and the
reference frequencies; encode queries and single pieces with the dense encoder, and fit the dense query table
(`models.projection.query_table`); encode a sample of passages, whose vectors give the mean and the spread of
projections; write the graph (`models.projection.graph`) and the manifest. The vectors of queries are kept, so a stopped
run does not encode them again.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx

from models.dense import DenseEncoder, pool_positions
from models.download import MessageReporter, fetch_model
from models.encoder import PieceTokeniser
from models.export.checkpoint import FloatArray, Transformer
from models.export.package import (
    copy_tokenizer,
    count_reference,
    excluded_piece_ids,
    read_vocabulary,
    require_one_vocabulary,
    require_output_place,
    require_window,
    sample_passages,
    write_manifest,
    write_query_weights,
    write_reference,
)
from models.export.throughput import cpu_name
from models.export.transformer_graph import Precision
from models.onnx_encoder import batch_by_length
from models.progress import ProgressReporter
from models.projection.dense_checkpoint import make_state_encoder, read_dense_checkpoint
from models.projection.graph import ProjectionHead, build_projected_graph
from models.projection.moments import MOMENTS_FILE, PassageMoments
from models.projection.query_table import count_pieces, fit_query_table, load_query_vectors
from models.registry import PROJECTED_ARCHITECTURE
from models.training.pairs import Pair, read_pairs
from models.verification import verify_directory
from services.directories import replace_directory
from services.encoders.catalogue import list_dense_encoders, read_dense_directory
from services.encoders.dense_query_table import DENSE_TABLE_FILE, write_dense_table
from services.encoders.manifest import DenseForm, WindowSettings, describe_file, expand_path
from services.encoders.piece_frequencies import PieceFrequencies
from services.errors import ConfigurationError, InvalidInput
from services.settings import Settings

MODEL_FILES = ("model.onnx", "tokenizer.json", "query_weights.json", DENSE_TABLE_FILE)
RECORDED_PACKAGES = ("onnx", "onnxruntime", "tokenizers", "numpy", "scipy")
MIN_QUERIES = 1000
# all-MiniLM-L6-v2 was trained on at most 256 pieces, with the special ones.
DEFAULT_WINDOW = WindowSettings(pieces=254, overlap=31)
# Queries are titles, headings and questions. A longer one has its question at the end.
_QUERY_WORDS = 40
_QUERY_PIECES = 64
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
    # 40,000 passages tell the IDF of a piece in one of ten thousand passages to a quarter.
    reference: int = 40_000
    window: WindowSettings = DEFAULT_WINDOW
    scale: float = 0.4
    expansions: int = 96
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


def open_dense_source(name: str, settings: Settings, cache: Path, report: MessageReporter) -> DenseSource:
    """Return a dense encoder of the catalogue, fetched into `cache` if needed, or of a directory with a dense.json.

    Raises ConfigurationError: `unknown_model`, `bad_dense_encoder`, and those of `fetch_model`.
    """
    known = list_dense_encoders(settings)
    encoder = known.get(name)
    if encoder is None:
        directory = expand_path(name)
        if not directory.is_dir():
            raise ConfigurationError(
                "unknown_model", f"{name!r} is neither a dense encoder ({', '.join(sorted(known))}) nor a directory."
            )
        encoder = read_dense_directory(directory)
    directory = encoder.directory or fetch_model(encoder.identity.name, cache, report)
    return DenseSource(encoder.identity.name, directory, encoder.form, encoder.licence)


def project_encoder(
    source: DenseSource, files: Sequence[Path], out: Path, options: ProjectionOptions, *, show: ProgressReporter
) -> Path:
    """Fit a projected encoder, and write it to the directory OUT, whose name becomes the encoder's.

    The directory OUT.vectors beside it keeps the vectors of queries. Raises ConfigurationError
    (`bad_name`, `encoder_exists`, `bad_tokenizer`, `bad_window`, and those of `read_dense_checkpoint`) and InvalidInput
    (`too_few_queries`, `too_few_passages`, `not_finite_scores`, and those of `read_pairs`).
    """
    began = time.monotonic()
    require_output_place(out, replace=False)
    transformer = read_dense_checkpoint(source.directory)
    vocabulary = read_vocabulary(source.directory / "tokenizer.json")
    require_one_vocabulary(source.directory, transformer, vocabulary)
    pieces = PieceTokeniser.load(source.directory / "tokenizer.json")
    prefix = tuple(pieces.ids([source.form.passage_prefix])[0])
    longest = transformer.max_pieces - len(prefix)
    require_window(options.window.pieces, options.window.overlap, longest - 2)
    pairs, by_file = _sample_pairs(files, options.queries, show)
    passages = sample_passages(files, options.reference)
    reference, reference_files = count_reference(lambda text: pieces.ids([text])[0], passages)
    _report_memory(len(pairs), min(options.passages, len(pairs)), transformer, show)
    fit = _Fit(source, transformer, vocabulary, pieces, out.with_name(f"{out.name}.vectors"), show)
    table = fit.query_table([pair.query for pair in pairs])
    sample = pieces.ids([pair.passage for pair in pairs[: options.passages]])
    rows = [row[: options.window.pieces] for row in sample]
    moments = PassageMoments.of(fit.passage_vectors(rows, prefix))
    head = ProjectionHead(
        table=table,
        mean=moments.mean,
        spread=moments.spread(table),
        query_weights=_query_weights(reference, transformer.vocabulary, excluded_piece_ids(vocabulary)),
        pooling=source.form.pooling,
        average_length=float(np.mean([len(row) for row in rows])),
        scale=options.scale,
        expansions=options.expansions,
        least_query_weight=options.least_query_weight,
        least_own_weight=options.least_own_weight,
        prefix=prefix,
    )
    description = {
        "architecture": PROJECTED_ARCHITECTURE,
        "vocabulary": transformer.vocabulary,
        "window": options.window.model_dump(),
        "top_k": options.top_k,
        "precision": options.precision,
        "dense": {"width": transformer.width, "form": source.form.model_dump(mode="json")},
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
        _write_encoder(fresh, source, transformer, vocabulary, head, options)
        moments.write(fresh / MOMENTS_FILE)
        description |= {"name": out.resolve().name, "moments": describe_file(fresh / MOMENTS_FILE).model_dump()}
        write_manifest(fresh, {"max_pieces": longest, **description}, MODEL_FILES)
        write_reference(fresh, reference, reference_files)
        for problem in verify_directory(fresh).problems:
            raise problem
    show.report(f"Fitted in {time.monotonic() - began:,.0f} s.")
    return out


def _sample_pairs(files: Sequence[Path], most: int, show: ProgressReporter) -> tuple[list[Pair], dict[str, int]]:
    """Return at most `most` pairs of distinct queries in random order, and their number by file.

    Each file gives the same number, drawn at random. A file with fewer queries gives all of its own, and the others
    give more.
    """
    by_file: dict[Path, list[Pair]] = {}
    for number, file in enumerate(files):
        pairs: dict[str, Pair] = {}
        for pair in read_pairs(file):
            query = " ".join(pair.query.split()[-_QUERY_WORDS:])
            pairs.setdefault(query, Pair(query, pair.passage, file.name))
        by_file[file] = _shuffled(list(pairs.values()))
        show.step("Reading pairs", number + 1, len(files))
    chosen: dict[str, Pair] = {}
    for taken, file in enumerate(sorted(by_file, key=lambda file: len(by_file[file]))):
        share = (most - len(chosen)) // (len(by_file) - taken)
        chosen |= {pair.query: pair for pair in by_file[file][:share] if pair.query not in chosen}
    if len(chosen) < MIN_QUERIES:
        raise InvalidInput(
            "too_few_queries",
            f"The files have {len(chosen):,} distinct queries; a fit needs at least {MIN_QUERIES:,}.",
        )
    return _shuffled(list(chosen.values())), dict(Counter(pair.origin for pair in chosen.values()))


def _shuffled(pairs: list[Pair]) -> list[Pair]:
    return random.Random(_SEED).sample(pairs, len(pairs))  # noqa: S311 (not a secret)


def _report_memory(queries: int, passages: int, transformer: Transformer, show: ProgressReporter) -> None:
    # The vectors of queries and seven matrices of the table's size, in float32.
    memory = 4 * transformer.width * (queries + 7 * transformer.vocabulary)
    show.report(f"{queries:,} queries, {passages:,} passages. The fit takes about {memory / 1e9:.1f} GB of memory.")


class _Fit:
    """The dense encoder's vectors of texts, and the table that is fitted to them."""

    def __init__(
        self,
        source: DenseSource,
        transformer: Transformer,
        vocabulary: dict[str, int],
        pieces: PieceTokeniser,
        directory: Path,
        show: ProgressReporter,
    ) -> None:
        """`directory` keeps the vectors of queries."""
        self._dense = DenseEncoder(source.directory, source.form.cut(_QUERY_PIECES), name=source.name)
        self._pooling = source.form.pooling
        self._transformer = transformer
        self._vocabulary = vocabulary
        self._pieces = pieces
        self._directory = directory
        self._show = show

    def query_table(self, queries: Sequence[str]) -> FloatArray:
        """Return the dense query table [vocabulary, width]."""
        words = [""] * self._transformer.vocabulary
        excluded = excluded_piece_ids(self._vocabulary)
        for piece, piece_id in self._vocabulary.items():
            if piece_id not in excluded:
                words[piece_id] = piece.removeprefix("##")
        start = load_query_vectors(self._directory, self._dense, "Single pieces", words, self._show)
        vectors = load_query_vectors(self._directory, self._dense, "Queries", queries, self._show)
        counts = count_pieces(self._pieces.ids(queries), self._transformer.vocabulary)
        table = fit_query_table(
            counts, vectors, start, done=lambda at, of: self._show.step("Fitting the table", at, of)
        )
        # A query of unknown words alone has no vector.
        table[sorted(excluded)] = 0.0
        return table

    def passage_vectors(self, rows: Sequence[Sequence[int]], prefix: Sequence[int]) -> FloatArray:
        """Return the vectors [rows, width] of rows of piece ids, by the int8 transformer that the encoder will have.

        `prefix` precedes the pieces of each row.

        Raises InvalidInput (`not_finite_scores`).
        """
        vectors = np.empty((len(rows), self._transformer.width), np.float32)
        encode = make_state_encoder(self._transformer, "int8")
        first, last = self._pieces.id_of("[CLS]"), self._pieces.id_of("[SEP]")
        done = 0
        for batch in batch_by_length([len(row) for row in rows], _BATCH_PIECES):
            framed = [(first, *prefix, *rows[row], last) for row in batch]
            for row, states in zip(batch, encode(framed), strict=True):
                (pooled,) = pool_positions(states[None], np.ones((1, len(states)), np.int64), self._pooling)
                vectors[row] = pooled / max(float(np.linalg.norm(pooled)), 1e-12)
            done += len(batch)
            self._show.step("Passages", done, len(rows))
        if not np.isfinite(vectors).all():
            raise InvalidInput("not_finite_scores", f"The dense encoder {self._dense.name} gave NaN or infinity.")
        return vectors


def _query_weights(reference: PieceFrequencies, vocabulary: int, excluded: set[int]) -> FloatArray:
    """Return the weights of pieces in queries [vocabulary]: their idf in the reference, 0 for excluded pieces."""
    weights = reference.idf(vocabulary).astype(np.float32)
    weights[sorted(excluded)] = 0.0
    return weights


def _write_encoder(
    directory: Path,
    source: DenseSource,
    transformer: Transformer,
    vocabulary: Mapping[str, int],
    head: ProjectionHead,
    options: ProjectionOptions,
) -> None:
    """Write graph, tokeniser and both query tables."""
    model = build_projected_graph(transformer, head, precision=options.precision, top_k=options.top_k)
    onnx.checker.check_model(model)
    (directory / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    copy_tokenizer(source.directory / "tokenizer.json", directory / "tokenizer.json")
    weights = {piece: round(float(head.query_weights[piece_id]), 5) for piece, piece_id in vocabulary.items()}
    weighted = {piece: weight for piece, weight in weights.items() if weight > 0}
    write_query_weights(directory / "query_weights.json", weighted, vocabulary)
    write_dense_table(directory / DENSE_TABLE_FILE, head.table)
