"""Dense query table: the vector of a query for stored dense vectors, without a model.

The vector is the sum over the query's distinct pieces of sqrt(count) times the piece's row, scaled to length 1. The
table is fitted to a dense encoder's vectors of queries (`models.projection.query_table`, docs/decisions/0242). It
belongs to one encoder: the manifest lists its file, so the fingerprint covers it. Published independently as
asymmetric encoders by Qdrant (2026).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from services.encoders.manifest import Manifest, verify_file
from services.encoders.query_table import QueryTable
from services.encoders.vectors import DenseArray, quantise_rows
from services.errors import ConfigurationError

DENSE_TABLE_FILE = "dense_query_table.safetensors"


class DenseQueryTable:
    """The rows of one encoder, one for each piece of its vocabulary. Immutable, so threads can share it."""

    def __init__(self, codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float32]) -> None:
        """`codes` [vocabulary, width] times `scales` [vocabulary] are the rows."""
        self._codes, self._scales = codes, scales

    @classmethod
    def load(cls, directory: Path, manifest: Manifest) -> Self | None:
        """Read the table of a model directory; None if the encoder has none.

        Raises ConfigurationError (`bad_dense_table`, `missing_model_file`, `corrupt_model_file`).
        """
        if manifest.dense is None or DENSE_TABLE_FILE not in manifest.files:
            return None
        path = verify_file(directory, manifest, DENSE_TABLE_FILE)
        try:
            tensors = load_file(path)
            codes, scales = tensors["codes"], tensors["scales"]
        except (OSError, SafetensorError, KeyError) as error:
            raise ConfigurationError("bad_dense_table", f"{path} is not a dense query table: {error!r}") from None
        rows, width = manifest.vocabulary, manifest.dense.width
        if (codes.dtype, codes.shape) != (np.int8, (rows, width)) or scales.shape != (rows,):
            raise ConfigurationError(
                "bad_dense_table", f"{path} does not hold {rows:,} rows of {width} numbers: fit the encoder again."
            )
        if not np.isfinite(scales).all():
            raise ConfigurationError("bad_dense_table", f"{path} holds NaN or infinity: fit the encoder again.")
        return cls(codes, scales.astype(np.float32))

    def rows(self) -> DenseArray:
        """Return the rows [vocabulary, width], float32."""
        return self._codes.astype(np.float32) * self._scales[:, None]

    def vector(self, piece_ids: Sequence[int]) -> DenseArray | None:
        """Return the unit vector [width] of a query's pieces, float32; None if none of them has a row."""
        counts = Counter(piece_ids)
        ids = np.fromiter(counts, dtype=np.int64, count=len(counts))
        factors = np.sqrt(np.fromiter(counts.values(), dtype=np.float32, count=len(counts))) * self._scales[ids]
        total = factors @ self._codes[ids].astype(np.float32)
        length = float(np.sqrt(total @ total))
        return None if length < 1e-12 else np.asarray(total / length, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class DenseQueryEncoder:
    """A dense query table with the tokeniser of its encoder: microseconds a query."""

    pieces: QueryTable
    table: DenseQueryTable

    @classmethod
    def load(cls, directory: Path, pieces: QueryTable) -> Self | None:
        """Read the table beside a query table; None if the encoder has none. Raises ConfigurationError."""
        table = DenseQueryTable.load(directory, pieces.manifest)
        return None if table is None else cls(pieces, table)

    def encode(self, text: str) -> DenseArray | None:
        """Return the unit vector [width] of a query; None for a text of unknown pieces alone."""
        return self.table.vector(self.pieces.ids(text))


def write_dense_table(path: Path, table: npt.ArrayLike) -> None:
    """Write a table [vocabulary, width] as int8 rows with a scale each.

    Raises ConfigurationError (`bad_dense_table`) for NaN and infinity.
    """
    matrix = np.asarray(table, dtype=np.float32)
    if not np.isfinite(matrix).all():
        raise ConfigurationError("bad_dense_table", "The dense query table to write holds NaN or infinity.")
    rows = quantise_rows(matrix)
    tensors = {"codes": np.ascontiguousarray(rows["codes"]), "scales": np.ascontiguousarray(rows["scale"])}
    path.write_bytes(save(tensors))
