"""Refit a projected encoder to a corpus: its dense query table and its projection, in closed form.

The dense query table is fitted again to the encoder's own vectors of the corpus's queries, with the rows of the encoder
as the ridge's centre: pieces that the corpus does not use keep their rows. The spread of the new rows comes from the
encoder's moments of general passages (`models.projection.moments`). The transformer stays, and so do the dense vectors
of documents. docs/decisions/0246 has the measurements.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
from pydantic import BaseModel, Field, ValidationError

from models.export.checkpoint import FloatArray
from models.export.package import (
    excluded_piece_ids,
    read_vocabulary,
    require_output_place,
    write_manifest,
)
from models.export.throughput import cpu_name
from models.export.transformer_graph import Precision
from models.progress import ProgressReporter
from models.projection.encoder import ProjectedEncoder
from models.projection.graph import make_projection, replace_projection
from models.projection.moments import MOMENTS_FILE, PassageMoments
from models.projection.query_table import count_pieces, fit_query_table, load_query_vectors
from models.projection.train import RECORDED_PACKAGES
from models.registry import load_projected_encoder
from models.verification import verify_directory
from services.directories import replace_directory
from services.encoders.dense_query_table import DENSE_TABLE_FILE, DenseQueryTable, write_dense_table
from services.encoders.manifest import Manifest, has_manifest, read_manifest
from services.encoders.query_table import REFERENCE_FILE, QueryTable
from services.errors import ConfigurationError, InvalidInput

# With fewer, held-out figures are noise.
MIN_REFIT_QUERIES = 64


class _FitOptions(BaseModel):
    """The options of `models.projection.train.ProjectionOptions` that the projection needs again."""

    scale: float = Field(ge=0, allow_inf_nan=False)
    least_query_weight: float = Field(ge=0, allow_inf_nan=False)
    precision: Precision


@dataclass(frozen=True, slots=True, eq=False)
class RefitStart:
    """A projected encoder that can be refitted. `rows` [vocabulary, width] are those of its dense query table."""

    directory: Path
    manifest: Manifest
    encoder: ProjectedEncoder
    rows: FloatArray
    moments: PassageMoments
    options: _FitOptions

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the encoder of a directory.

        Raises ConfigurationError: `not_projected`, `not_refittable`, `bad_moments`, `bad_manifest`, `bad_dense_table`,
        and those of `load_encoder`.
        """
        encoder = load_projected_encoder(str(directory))
        manifest = encoder.manifest
        options = _read_options(manifest)
        if encoder.form.passage_prefix:
            raise ConfigurationError(
                "not_refittable",
                f"The graph of {manifest.name} reads every text as a passage, with a prefix, so it gives no vectors of "
                "queries to refit it to. Fit it again with `sparsewell train project` and your own pairs.",
            )
        table = DenseQueryTable.load(directory, manifest)
        if table is None:
            raise ConfigurationError("bad_dense_table", f"The encoder {manifest.name} has no dense query table.")
        return cls(directory, manifest, encoder, table.rows(), PassageMoments.load(directory, manifest), options)


def require_refit_place(start: RefitStart, out: Path, corpus: str) -> None:
    """Check before the work whether `out` may hold the refit of `start` to the corpus of that name.

    A refit of the same start to the same corpus is replaced. Raises ConfigurationError: those of
    `require_output_place`, and `encoder_exists` for another encoder.
    """
    require_output_place(out, replace=True)
    if not has_manifest(out):
        return
    training: Any = (read_manifest(out).model_extra or {}).get("training")
    try:
        found = training["start"]["fingerprint"], training["corpus"]
    except (TypeError, KeyError):  # the record of another command
        found = None
    if found != (start.manifest.fingerprint, corpus):
        raise ConfigurationError(
            "encoder_exists",
            f"{out} holds another encoder, and no refit of {start.manifest.name} to {corpus}: choose another --out or "
            "--name, or remove it.",
        )


def refit_encoder(
    start: RefitStart, queries: Sequence[str], out: Path, *, corpus: str, cache: Path, show: ProgressReporter
) -> Path:
    """Refit an encoder to queries of a corpus; write it to OUT, whose name it takes.

    `corpus` names the corpus in the manifest. `cache` keeps the vectors of queries. Raises ConfigurationError (those of
    `require_refit_place`, `bad_model`, `unwritable_directory`, `unwritable_file`) and InvalidInput (`too_few_queries`,
    `not_finite_scores`).
    """
    began = time.monotonic()
    require_refit_place(start, out, corpus)
    if len(queries) < MIN_REFIT_QUERIES:
        raise InvalidInput(
            "too_few_queries",
            f"The documents of {corpus} have {len(queries)} titles, headings and sentences that the encoder can be "
            f"refitted to; a refit needs at least {MIN_REFIT_QUERIES}. Add documents, or use the encoder as it is.",
        )
    manifest, directory = start.manifest, start.directory
    vectors = load_query_vectors(cache, start.encoder, "Queries", queries, show)
    pieces = QueryTable.load(directory)
    counts = count_pieces([pieces.ids(query) for query in queries], manifest.vocabulary)
    table = fit_query_table(counts, vectors, start.rows, done=lambda at, of: show.step("Fitting the table", at, of))
    table[sorted(excluded_piece_ids(read_vocabulary(directory / "tokenizer.json")))] = 0.0
    weights = np.array([pieces.weight(piece_id) for piece_id in range(manifest.vocabulary)], np.float32)
    model = onnx.load(str(directory / "model.onnx"))
    options = start.options
    projection = make_projection(
        table, start.moments.spread(table), weights, scale=options.scale, least_query_weight=options.least_query_weight
    )
    replace_projection(model, projection, options.precision)
    description = manifest.model_dump(mode="json", exclude_none=True)
    earlier = {"name": manifest.name, "fingerprint": manifest.fingerprint, "training": description["training"]}
    training = {
        "start": earlier,
        "corpus": corpus,
        "queries": len(queries),
        "options": options.model_dump(),
        "seconds": round(time.monotonic() - began),
        "machine": cpu_name(),
        "versions": {package: version(package) for package in RECORDED_PACKAGES},
    }
    kept = {*manifest.files, MOMENTS_FILE, *([REFERENCE_FILE] if manifest.reference else [])}
    with replace_directory(out) as fresh:
        for name in kept - {"model.onnx", DENSE_TABLE_FILE}:
            shutil.copy2(directory / name, fresh / name)
        (fresh / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
        write_dense_table(fresh / DENSE_TABLE_FILE, table)
        write_manifest(fresh, description | {"name": out.resolve().name, "training": training}, manifest.files)
        for problem in verify_directory(fresh).problems:
            raise problem
    return out


def _read_options(manifest: Manifest) -> _FitOptions:
    training: Any = (manifest.model_extra or {}).get("training")
    try:
        return _FitOptions.model_validate(training["options"])
    except (TypeError, KeyError, ValidationError):
        raise ConfigurationError(
            "bad_manifest", f"The manifest of {manifest.name} does not record the options of its fit: fit it again."
        ) from None
