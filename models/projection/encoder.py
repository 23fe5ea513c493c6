"""Projected encoder: a graph whose one pass gives sparse weights and the dense vector of each window.

`ProjectedEncoder` is a sparse encoder (`models.encoder.Encoder`) and a dense one (`models.dense.DenseModel`). A worker
whose index stores this encoder's dense vectors runs `encode_jointly`, so they cost no pass of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from models.encoder import TextWindow
from models.onnx_encoder import MAX_BATCH_PIECES, OnnxSparseEncoder
from services.encoders.manifest import Manifest, WindowSettings
from services.encoders.vectors import DenseArray, SparseVector
from services.errors import ConfigurationError, InvalidInput


class ProjectedEncoder(OnnxSparseEncoder):
    """Encoder of a directory that `sparsewell train project` wrote. Vectors are unit vectors, float32 [n, width]."""

    def __init__(
        self, directory: Path, manifest: Manifest, *, threads: int = 0, batch_pieces: int = MAX_BATCH_PIECES
    ) -> None:
        """Raises ConfigurationError as `OnnxSparseEncoder`, and `bad_manifest` if it does not describe the vectors."""
        if manifest.dense is None:
            raise ConfigurationError(
                "bad_manifest", f"The manifest of {directory} does not describe dense vectors: fit the encoder again."
            )
        super().__init__(directory, manifest, threads=threads, batch_pieces=batch_pieces)
        self.form = manifest.dense.form
        self.width = manifest.dense.width

    @property
    def name(self) -> str:
        """Return the encoder's name."""
        return self.manifest.name

    def encode_jointly(self, windows: Sequence[TextWindow]) -> tuple[list[SparseVector], DenseArray]:
        """Return the sparse vector and the dense vector of each window, in order, from one pass.

        A window without pieces has an empty vector and a row of zeros. Raises InvalidInput (`not_finite_weights`,
        `not_finite_scores`).
        """
        outputs = self.outputs(windows, partial(self.run_for, ("ids", "weights", "dense")))
        vectors = self.sparse_vectors(windows, {position: (row[0], row[1]) for position, row in outputs.items()})
        dense = np.zeros((len(windows), self.width), dtype=np.float32)
        for position, (_, _, vector) in outputs.items():
            dense[position] = vector
        return vectors, self._finite(dense)

    def encode_queries(self, texts: Sequence[str]) -> DenseArray:
        """Return one vector a query; the query is truncated to the form's length.

        Raises InvalidInput (`not_finite_scores`), and ConfigurationError (`not_dense`) for a dense encoder that reads
        passages with a prefix: the graph has that prefix, and a query would be read as a passage.
        """
        if self.form.passage_prefix:
            raise ConfigurationError(
                "not_dense",
                f"The graph of {self.name} reads every text as a passage: rerank with its dense query table.",
            )
        return self._texts([self.form.query_prefix + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> DenseArray:
        """Return one vector a passage, truncated like queries. Raises InvalidInput (`not_finite_scores`)."""
        return self._texts(texts)

    def encode_windows(self, windows: Sequence[TextWindow]) -> DenseArray:
        """Return one vector a window, in order. Raises InvalidInput (`not_finite_scores`)."""
        dense = np.zeros((len(windows), self.width), dtype=np.float32)
        for position, (vector,) in self.outputs(windows, partial(self.run_for, ("dense",))).items():
            dense[position] = vector
        return self._finite(dense)

    def windows(
        self, text: str, pieces: int | WindowSettings | None = None, overlap: int | None = None
    ) -> list[TextWindow]:
        """Cut a text into windows, see `models.encoder.Encoder` and `models.dense.DenseModel`."""
        if isinstance(pieces, WindowSettings):
            return super().windows(text, pieces.pieces, pieces.overlap)
        return super().windows(text, pieces, overlap)

    def _texts(self, texts: Sequence[str]) -> DenseArray:
        longest = min(self.form.max_pieces, self.manifest.max_pieces) - 2
        return self.encode_windows([TextWindow(0, 0, tuple(ids[:longest])) for ids in self._pieces.ids(texts)])

    def _finite(self, dense: DenseArray) -> DenseArray:
        if not np.isfinite(dense).all():
            raise InvalidInput("not_finite_scores", f"The encoder {self.name} gave NaN or infinity as a dense vector.")
        return dense
