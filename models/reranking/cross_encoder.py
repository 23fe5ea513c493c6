"""A cross-encoder of sentence-transformers: it reads the query and one passage at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.errors import ConfigurationError
from services.extra import needs

# Passages of one run of the model.
BATCH = 32


class CrossEncoderScorer:
    """See `models.reranking.scorer.Scorer`. A passage longer than the model reads is cut at its limit."""

    def __init__(self, name_or_path: str, *, device: str | None = None) -> None:
        """A directory, or a hub's name where there is a network. Weights are safetensors, no code of the model's runs.

        Raises ConfigurationError: `missing_library`, `bad_reranker` for what cannot be loaded or has several outputs.
        """
        with needs("sentence_transformers", "rerank with a cross-encoder", "train"):
            from sentence_transformers import CrossEncoder
        try:
            self._model = CrossEncoder(
                name_or_path, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )
        except Exception as error:  # the library's errors share no base
            raise ConfigurationError("bad_reranker", f"{name_or_path} is no usable cross-encoder: {error}") from None
        if self._model.num_labels != 1:
            raise ConfigurationError(
                "bad_reranker",
                f"{name_or_path} gives {self._model.num_labels} numbers a passage; a reranker gives one.",
            )

    def __call__(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        pairs = [(query, passage) for passage in passages]
        found = self._model.predict(pairs, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(found, dtype=np.float32)
