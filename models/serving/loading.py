"""Loads the models that the settings name."""

from __future__ import annotations

from pathlib import Path

from models.dense.opening import load_dense
from models.fetching import Report
from models.reranking.scorer import Scorer
from models.serving.held import Held
from services.environment import listed
from services.known_dense import find_dense, known_dense
from services.settings import Settings


def load_held(settings: Settings, cache: Path, report: Report) -> Held:
    """Raises InvalidInput (`unknown_dense_encoder`) and ConfigurationError before anything is served."""
    known = known_dense(settings)
    names, threads = listed(settings.model_encoders), settings.worker_threads
    dense = {name: load_dense(find_dense(known, name), cache, report, threads=threads) for name in names}
    scorers: dict[str, Scorer] = {}
    if settings.cross_encoder:
        from models.reranking.cross_encoder import CrossEncoderScorer

        scorers["cross-encoder"] = CrossEncoderScorer(settings.cross_encoder)
    if settings.listwise_reranker:
        from models.reranking.listwise import ListwiseScorer

        scorers["listwise"] = ListwiseScorer(settings.listwise_reranker)
    return Held(dense, scorers)
