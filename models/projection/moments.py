"""Mean and covariance of a dense encoder's vectors of general passages.

Projected weights are centred by the mean and divided by the spread of each piece's product over general passages. An
encoder keeps both beside its graph, so that `models.projection.refit` can give a changed table its spread. The user's
own passages cannot replace them: they lie close together, and found less (docs/decisions/0246).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from services.encoders.manifest import Manifest, check_file
from services.encoders.vectors import DenseArray
from services.errors import ConfigurationError

MOMENTS_FILE = "passage_moments.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class PassageMoments:
    """Moments of unit vectors: `mean` [width] and `covariance` [width, width], float32.

    They take width x (width + 1) x 4 bytes: .6 MB for 384. They change no vector, so the fingerprint of an encoder does
    not cover them.
    """

    mean: DenseArray
    covariance: DenseArray

    @classmethod
    def of(cls, vectors: DenseArray) -> Self:
        """Measure vectors [passages, width]."""
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        return cls(mean, centred.T @ centred / len(centred))

    def spread(self, table: DenseArray) -> DenseArray:
        """Return the standard deviation [vocabulary] of the product of passages and each row of [vocabulary, width].

        Frequent pieces have short rows and so small products. Division by the spread makes pieces comparable; it was
        worth .7 points of NDCG@10 (docs/decisions/0242).
        """
        variance = ((table @ self.covariance) * table).sum(axis=1)
        spread: DenseArray = np.sqrt(np.maximum(variance, 0.0)).astype(np.float32) + np.float32(1e-3)
        return spread

    def write(self, path: Path) -> None:
        """Write the moments to a file."""
        path.write_bytes(save({"mean": self.mean, "covariance": np.ascontiguousarray(self.covariance)}))

    @classmethod
    def load(cls, directory: Path, manifest: Manifest) -> Self:
        """Read the moments of a projected encoder.

        Raises ConfigurationError (`bad_moments`, `missing_model_file`, `corrupt_model_file`).
        """
        if manifest.dense is None or manifest.moments is None:
            raise ConfigurationError(
                "bad_moments",
                f"The encoder {manifest.name} has no {MOMENTS_FILE}: fit it with `sparsewell train project`.",
            )
        path = directory / MOMENTS_FILE
        check_file(path, manifest.moments)
        try:
            tensors = load_file(path)
            mean, covariance = tensors["mean"], tensors["covariance"]
        except (OSError, SafetensorError, KeyError) as error:
            raise ConfigurationError("bad_moments", f"{path} does not hold passage moments: {error!r}") from None
        width = manifest.dense.width
        if mean.shape != (width,) or covariance.shape != (width, width):
            raise ConfigurationError("bad_moments", f"{path} does not hold moments of width {width}: fit it again.")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ConfigurationError("bad_moments", f"{path} holds NaN or infinity: fit the encoder again.")
        return cls(mean.astype(np.float32), covariance.astype(np.float32))
