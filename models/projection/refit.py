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
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from pydantic import BaseModel, ValidationError

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
from models.projection.moments import PassageMoments
from models.projection.query_table import count_pieces, fit_query_table, load_query_vectors
from models.projection.train import RECORDED_PACKAGES
from models.registry import PROJECTED_ARCHITECTURE
from models.verification import verify_directory
from services.directories import replace_directory
from services.encoders.dense_query_table import DENSE_TABLE_FILE, DenseQueryTable, write_dense_table
from services.encoders.manifest import MANIFEST_FILE, Manifest, read_manifest
from services.encoders.query_table import QueryTable
from services.errors import ConfigurationError


class _FitOptions(BaseModel):
    """The options of `models.projection.train.ProjectionOptions` that the projection needs again."""

    scale: float
    least_query_weight: float
    precision: Precision


def is_projected(manifest: Manifest) -> bool:
    """Whether an encoder is a projected one, which is refitted, and not one that is trained."""
    return manifest.architecture == PROJECTED_ARCHITECTURE


def refit_encoder(
    start: Path, queries: Sequence[str], out: Path, *, corpus: str, cache: Path, show: ProgressReporter
) -> Path:
    """Refit the encoder of the directory `start` to queries of a corpus; write it to OUT, whose name it takes.

    `corpus` names the corpus in the manifest. `cache` keeps the vectors of queries. Raises ConfigurationError
    (`not_projected`, `not_dense`, `bad_moments`, `bad_manifest`, `bad_dense_table`, `bad_name`, `encoder_exists`) and
    InvalidInput (`not_finite_scores`).
    """
    began = time.monotonic()
    require_output_place(out, replace=True)
    manifest = read_manifest(start)
    if not is_projected(manifest):
        raise ConfigurationError("not_projected", f"{manifest.name} is no projected encoder: it cannot be refitted.")
    options = _read_options(manifest)
    encoder = ProjectedEncoder(start, manifest)
    old = _load_rows(start, manifest)
    moments = PassageMoments.load(start, manifest)
    vocabulary = read_vocabulary(start / "tokenizer.json")
    vectors = load_query_vectors(
        cache, encoder.name, manifest.fingerprint, "Queries", queries, encoder.encode_queries, show
    )
    pieces = QueryTable.load(start)
    counts = count_pieces([pieces.ids(query) for query in queries], manifest.vocabulary)
    table = fit_query_table(counts, vectors, old, done=lambda at, of: show.step("Fitting the table", at, of))
    table[sorted(excluded_piece_ids(vocabulary))] = 0.0
    weights = np.array([pieces.weight(piece_id) for piece_id in range(manifest.vocabulary)], np.float32)
    model = onnx.load(str(start / "model.onnx"))
    projection = make_projection(
        table, moments.spread(table), weights, scale=options.scale, least_query_weight=options.least_query_weight
    )
    replace_projection(model, projection, options.precision)
    training = {
        "start": {"name": manifest.name, "fingerprint": manifest.fingerprint},
        "corpus": corpus,
        "queries": len(queries),
        "options": options.model_dump(),
        "seconds": round(time.monotonic() - began),
        "machine": cpu_name(),
        "versions": {package: version(package) for package in RECORDED_PACKAGES},
    }
    with replace_directory(out) as fresh:
        for path in start.iterdir():
            if path.is_file() and path.name not in ("model.onnx", DENSE_TABLE_FILE, MANIFEST_FILE):
                shutil.copy2(path, fresh / path.name)
        (fresh / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
        write_dense_table(fresh / DENSE_TABLE_FILE, table)
        description = manifest.model_dump(mode="json", exclude_none=True)
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


def _load_rows(start: Path, manifest: Manifest) -> FloatArray:
    table = DenseQueryTable.load(start, manifest)
    if table is None:
        raise ConfigurationError("bad_dense_table", f"The encoder {manifest.name} has no dense query table.")
    return table.rows()
