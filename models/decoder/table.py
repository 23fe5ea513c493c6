"""The start of a query table over a decoder's vocabulary: inverse document frequency over passages."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np
from tokenizers import Tokenizer

from models.training.idf import Weights, document_frequencies, inverse_document_frequency
from services.pieces import piece_display

# What `services.pieces` shows for bytes that are no whole character.
_PART = re.compile(r"<[0-9a-f]{2}(?: [0-9a-f]{2})*>")
TOGETHER = 1024


def passage_weights(tokenizer: Tokenizer, passages: Sequence[str], size: int, excluded: Collection[int]) -> Weights:
    """The IDF of pieces over passages, float32 [size], 0 for `excluded` ids.

    Unseen signs, and unseen parts of characters that have no piece of their own, get the smallest value of a seen piece
    instead of the largest: one byte of three says nothing about which character it was.
    Raises InvalidInput (`empty_collection`).
    """
    shown = piece_display(tokenizer)
    pieces = {shown(piece): index for piece, index in tokenizer.get_vocab().items()}
    rows = (
        encoding.ids
        for first in range(0, len(passages), TOGETHER)
        for encoding in tokenizer.encode_batch_fast(list(passages[first : first + TOGETHER]), add_special_tokens=False)
    )
    frequencies, number = document_frequencies(rows, size)
    weights = inverse_document_frequency(frequencies, number, pieces, excluded)
    counted = np.ones(size, dtype=bool)
    counted[list(excluded)] = False
    parts = [index for piece, index in pieces.items() if _PART.fullmatch(piece) and counted[index]]
    unseen = [index for index in parts if not frequencies[index]]
    weights[unseen] = weights[counted & (frequencies > 0)].min()
    return weights
