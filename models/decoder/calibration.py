"""Gives a language model's logits the zero that ReLU needs, from a few hundred texts and without training.

Softmax does not see a shift of all logits, so a pretrained decoder's level means nothing. The logits of SmolLM2 lie at
18 on average: ReLU switches nothing off and every text weighs all 49,152 pieces alike. Were they at -18, every weight
and every gradient would be zero, the dying ReLU of arXiv 2504.10816, which trains an adaptation phase against it. Here
each piece's mean over texts is taken off, so that a weight says how much more than usual a text calls for the piece,
and then as much as leaves a wanted number of pieces. See docs/decisions/0122.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor

from models.batching import length_batches
from models.decoder.module import EchoSplade
from models.training.max_head import largest_logits
from services.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Calibration:
    """`before` and `after` are pieces with a weight a text, means; `alive` the share of pieces that any text weighs."""

    texts: int
    before: float
    after: float
    alive: float


def calibrate(document: EchoSplade, texts: Sequence[str], *, active: int, batch_positions: int = 2048) -> Calibration:
    """Sets the bias so that a text of `texts` weighs `active` pieces on average.

    Raises InvalidInput (`empty_collection`) without a text that has pieces.
    """
    logits = text_logits(document, texts, batch_positions)
    if logits.shape[0] == 0:
        raise InvalidInput("empty_collection", "There is no text with a known piece to calibrate the logits on.")
    wanted = (~document.excluded).cpu()
    before = (logits + document.bias.detach().cpu() > 0)[:, wanted].sum(dim=1).float().mean()
    centred = logits - logits.mean(dim=0)
    share = min(1.0, active / int(wanted.sum()))
    heights = centred[:, wanted].flatten()
    rank = max(1, heights.numel() - int(share * heights.numel()))
    threshold = heights.kthvalue(rank).values
    bias = -(logits.mean(dim=0) + threshold)
    with torch.no_grad():
        document.bias.copy_(bias.masked_fill(~wanted, 0.0))
    above = (logits + bias > 0)[:, wanted]
    return Calibration(
        logits.shape[0], float(before), float(above.sum(dim=1).float().mean()), float(above.any(dim=0).float().mean())
    )


@torch.inference_mode()
def text_logits(document: EchoSplade, texts: Sequence[str], batch_positions: int) -> Tensor:
    """The largest logit of each piece, before the bias, float32 [texts with pieces, vocabulary], on the CPU."""
    rows = [encoding.ids[: document.max_seq_length] for encoding in document.tokenizer.encode_batch_fast(list(texts))]
    rows = [row for row in rows if row]
    found = torch.empty(len(rows), document.get_embedding_dimension())
    for batch in length_batches([document.echo.positions(len(row)) for row in rows], batch_positions):
        features = {name: tensor.to(document.bias.device) for name, tensor in
                    document.features([rows[index] for index in batch]).items()}  # fmt: skip
        states = document.decoder(input_ids=features["input_ids"], use_cache=False).last_hidden_state
        mask = features["pooling_mask"].bool()
        offsets = F.pad(mask.sum(dim=1).cumsum(0), (1, 0))
        found[batch] = largest_logits(states[mask], document.head, offsets, places=False)[0].cpu()
    return found
