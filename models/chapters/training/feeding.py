"""Examples as tensors: padded left for a decoder, whose answers then end together, and right for an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.chapters.podtile.checkpoint import Checkpoint
from models.chapters.training.examples import Example

IGNORED = -100  # the label of what is not learned


@dataclass(frozen=True, slots=True)
class Feeding:
    """The collator of a checkpoint. `longest` bounds what is read; what is too long loses its end before the answer."""

    checkpoint: Checkpoint
    longest: int

    def __call__(self, rows: Sequence[Example]) -> dict[str, Any]:
        return self._encoded(rows) if self.checkpoint.seq2seq else self._continued(rows)

    def _target(self, example: Example) -> tuple[list[int], list[int]]:
        held = self.checkpoint
        given = held.answer_ids(example.begun) if example.begun else []
        return given, [*held.answer_ids(example.target), *held.ends[:1]]

    def _continued(self, rows: Sequence[Example]) -> dict[str, Any]:
        ids, labels = [], []
        for example in rows:
            given, target = self._target(example)
            read = self.checkpoint.prompt_ids(example.prompt)[: max(1, self.longest - len(given) - len(target))]
            ids.append([*read, *given, *target])
            labels.append([*[IGNORED] * (len(read) + len(given)), *target])
        input_ids, mask = _padded(ids, 0, left=True)
        return {
            "input_ids": input_ids,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
            "labels": _padded(labels, IGNORED, left=True)[0],
        }

    def _encoded(self, rows: Sequence[Example]) -> dict[str, Any]:
        ids, before, labels = [], [], []
        for example in rows:
            given, target = self._target(example)
            ids.append(self.checkpoint.prompt_ids(example.prompt)[: self.longest])
            start = [] if self.checkpoint.begin is None else [self.checkpoint.begin]
            before.append([*start, *given, *target[:-1]])
            labels.append([*[IGNORED] * len(given), *target])
        input_ids, mask = _padded(ids, 0, left=False)
        return {
            "input_ids": input_ids,
            "attention_mask": mask,
            "decoder_input_ids": _padded(before, 0, left=False)[0],
            "labels": _padded(labels, IGNORED, left=False)[0],
        }


def _padded(rows: Sequence[list[int]], filling: int, *, left: bool) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    values = torch.full((len(rows), width), filling)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        values[i, place], mask[i, place] = torch.tensor(row), 1
    return values, mask
