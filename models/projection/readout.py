"""Read-out of states: how much one occurrence of a piece counts, learned on frozen states of the dense encoder.

An occurrence counts softplus(w h + b), where h is its state; without a read-out it counts 1. The counts of a piece are
summed before BM25's saturation. w and b are learned from pairs, beside the expansions: the scores of a batch of queries
and passages are trained towards the pairs (cross entropy) and towards the dense encoder's own scores (Kullback-Leibler
divergence). The states do not change, so a step takes half a second on two cores.

The scale of expansions is not learned. It came out at .6, and then the cut to the heaviest pieces took own pieces in
place of expansions, which cost 2 points (docs/decisions/0242).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from models.export.checkpoint import FloatArray
from models.projection.graph import K1, B, ProjectionHead, Readout
from models.projection.query_table import EncodedPairs

BATCH = 128
LEARNING_RATE = 2e-3
# Of the dense encoder's cosines, as in its own training.
TEMPERATURE = 0.05
# softplus of this is 1, so training starts with plain counts.
_PLAIN_BIAS = 0.5413
_WARM_UP_STEPS = 50


def fit_readout(
    pairs: EncodedPairs,
    head: ProjectionHead,
    *,
    steps: int,
    seed: int = 0,
    done: Callable[[int, int, float], object] = lambda step, steps, loss: None,
) -> ProjectionHead:
    """Return the head with a read-out. `done` receives step, steps and the loss of the step."""
    torch.manual_seed(seed)
    model = _ReadoutModel(pairs.states.shape[1], head)
    optimiser = torch.optim.AdamW(
        [
            {"params": model.linear.parameters(), "lr": LEARNING_RATE},
            {"params": [model.log_temperature], "lr": 1e-2},
        ]
    )
    random = np.random.default_rng(seed)
    batch = min(BATCH, len(pairs))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, (step + 1) / _WARM_UP_STEPS) * (1 - step / steps)
        loss = model.loss(pairs, random.choice(len(pairs), batch, replace=False))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        done(step + 1, steps, loss.item())
    weight = model.linear.weight.detach().numpy()[0].astype(np.float32)
    readout = Readout(weight, float(model.linear.bias.detach()[0]))
    return replace(head, readout=readout)


class _ReadoutModel(nn.Module):  # type: ignore[misc]  # torch has no types here
    """Scores of a batch by own pieces and expansions, as the graph computes the weights."""

    def __init__(self, width: int, head: ProjectionHead) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, _PLAIN_BIAS)
        self.log_temperature = nn.Parameter(torch.tensor(float(np.log(0.1))))
        self._head = head
        self._query_weights = torch.from_numpy(head.query_weights)
        self._own = torch.from_numpy((head.query_weights >= head.least_own_weight).astype(np.float32))

    def loss(self, pairs: EncodedPairs, chosen: NDArray[np.int64]) -> torch.Tensor:
        rows = [slice(pairs.starts[pair], pairs.starts[pair + 1]) for pair in chosen.tolist()]
        lengths = torch.tensor([float(row.stop - row.start) for row in rows])
        states = torch.from_numpy(np.concatenate([pairs.states[row] for row in rows]).astype(np.float32))
        ids = torch.from_numpy(np.concatenate([pairs.ids[row] for row in rows]).astype(np.int64))
        owners = torch.arange(len(rows)).repeat_interleave(lengths.long())
        vocabulary = len(self._query_weights)

        counted = functional.softplus(self.linear(states)).squeeze(1)
        counts = torch.zeros(len(rows) * vocabulary).scatter_add_(0, owners * vocabulary + ids, counted)
        counts = counts.view(len(rows), vocabulary) * self._own
        norm = K1 * (1 - B + B * lengths / self._head.average_length)
        weights = counts * (K1 + 1) / (counts + norm[:, None])
        weights = weights + self._head.scale * torch.from_numpy(project(self._head, pairs.vectors[chosen]))

        asked = torch.zeros(len(rows), vocabulary)
        for number, pair in enumerate(chosen.tolist()):
            asked[number, list(pairs.queries[pair])] = 1.0
        scores = (asked * self._query_weights) @ weights.T * self.log_temperature.exp()
        teacher = torch.from_numpy(pairs.query_vectors[chosen] @ pairs.vectors[chosen].T) / TEMPERATURE
        divergence = functional.kl_div(
            torch.log_softmax(scores, 1), torch.log_softmax(teacher, 1), log_target=True, reduction="batchmean"
        )
        return divergence + functional.cross_entropy(scores, torch.arange(len(rows)))


def project(head: ProjectionHead, vectors: FloatArray) -> FloatArray:
    """Return the expansions of dense vectors [n, width] before the scale: [n, vocabulary]."""
    allowed = head.query_weights >= head.least_query_weight
    projected = (vectors - head.mean) @ (head.table * (allowed / head.spread)[:, None].astype(np.float32)).T
    kept = min(head.expansions, int(allowed.sum()))
    smallest = np.partition(projected, -kept, axis=1)[:, -kept, None]
    result: FloatArray = np.where((projected >= smallest) & (projected > 0), projected, np.float32(0))
    return result
