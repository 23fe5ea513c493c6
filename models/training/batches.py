"""Batches of a run: the dataset holds rows; texts and teachers' scores are looked up when a batch is put together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers.sparse_encoder.data_collator import SparseEncoderDataCollator

from models.training.masks import Positives, left_out
from models.training.pairs import PairSet, Rows
from models.training.teachers.ensemble import Ensemble

QUERY, OWN = "query", "positive"


def negative_column(number: int) -> str:
    return f"negative_{number}"


def columns(negatives: int) -> dict[str, str]:
    """Column names in their order, each with the side of the encoder that reads it."""
    return {QUERY: "query", OWN: "document"} | {negative_column(n): "document" for n in range(negatives)}


def link_dataset(pairs: PairSet, negatives: Rows | None, order: Rows) -> Dataset:
    """One row for each of the links in `order`, which may name one several times.

    `rows` holds the query's row, its passage's and those of its hard negatives; `negatives` is int32 [links, count].
    """
    rows = np.stack([pairs.query_rows, pairs.passage_rows], axis=1)
    if negatives is not None:
        rows = np.concatenate([rows, negatives], axis=1)
    return Dataset.from_dict({"rows": rows[order].astype(np.int32)})


@dataclass
class PairCollator(SparseEncoderDataCollator):
    """Puts a batch together: tokenised columns and `label`, see `models.training.losses.RankingLoss`.

    Passages are ordered column by column, as the loss sees them. Without teachers the run is contrastive only.
    """

    pairs: PairSet = field(default_factory=lambda: PairSet.of([]))
    teachers: Ensemble | None = None
    _positives: Positives = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._positives = Positives(self.pairs)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        rows = np.asarray([feature["rows"] for feature in features], dtype=np.int32)
        names = columns(rows.shape[1] - 2)
        texts = [self.pairs.queries, *[self.pairs.passages] * (rows.shape[1] - 1)]
        batch: dict[str, Any] = super().__call__(
            [
                # a pair for which too few hard negatives were found has row -1 for the others
                {name: texts[column][row[column]] if row[column] >= 0 else "" for column, name in enumerate(names)}
                for row in rows.tolist()
            ]
        )
        query_rows, passage_rows = rows[:, 0].copy(), rows[:, 1:].T.reshape(-1).copy()
        out = left_out(self._positives, query_rows, passage_rows)
        found = np.zeros(out.shape) if self.teachers is None else self.teachers.targets(query_rows, passage_rows, out)
        batch["label"] = torch.from_numpy(np.stack([found, ~out], axis=1).astype(np.float32))
        return batch
