"""A query without a model: tokenise, look each distinct piece up in a table of weights that belongs to the encoder.

This is the inference-free query side of arXiv 2411.04403: repeated pieces count once, the weight is the table's.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from tokenizers import Tokenizer

from services.errors import ConfigurationError, InvalidInput
from services.manifest import Manifest, read_manifest, verified

TOKENIZER = "tokenizer.json"
QUERY_WEIGHTS = "query_weights.json"


@dataclass(frozen=True, slots=True)
class QueryVector:
    """Distinct pieces in order of appearance: vocabulary ids and their weights; `pieces` counts repeated ones too."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    pieces: int

    def by_id(self) -> dict[int, float]:
        return dict(zip(self.ids, self.weights, strict=True))


class QueryTable:
    """Tokeniser and weights of one encoder. Stateless after loading; safe to share between threads."""

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, weights: Sequence[float]) -> None:
        self.manifest = manifest
        self._tokenizer = tokenizer
        self._weights = weights

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Reads tokenizer.json and query_weights.json of a model directory and nothing else of it.

        Raises ConfigurationError for missing or changed files, for unknown pieces, and for weights that are not
        finite and positive (OpenSearch refuses a boost below zero).
        """
        manifest = read_manifest(directory)
        tokenizer = Tokenizer.from_file(str(verified(directory, manifest, TOKENIZER)))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # "[MASK]" in a query is five characters that somebody typed, as it is in a document.
        tokenizer.encode_special_tokens = True
        table = json.loads(verified(directory, manifest, QUERY_WEIGHTS).read_bytes())
        weights = [0.0] * manifest.vocabulary
        vocabulary = tokenizer.get_vocab()
        for piece, weight in table.items():
            if piece not in vocabulary or not np.isfinite(weight) or weight < 0:
                raise ConfigurationError(
                    "bad_query_table", f"{directory / QUERY_WEIGHTS}: {piece!r} with weight {weight!r} is not usable."
                )
            weights[vocabulary[piece]] = float(weight)
        return cls(manifest, tokenizer, weights)

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    def encode(self, text: str, max_pieces: int) -> QueryVector:
        """The weighted pieces of a query. Pieces of weight zero (special ones, unknown words) are left out.

        Raises InvalidInput (`query_too_long`) when the text has more than `max_pieces` pieces.
        """
        found = self._tokenizer.encode(text, add_special_tokens=False).ids
        if len(found) > max_pieces:
            raise InvalidInput(
                "query_too_long",
                f"The query has {len(found):,} pieces and the limit is {max_pieces:,}: shorten it, "
                "or search with its most telling sentences.",
            )
        weights = self._weights
        ids = tuple(i for i in dict.fromkeys(found) if weights[i] > 0.0)
        return QueryVector(ids, tuple([weights[i] for i in ids]), len(found))

    def piece(self, piece_id: int) -> str:
        """The piece of a vocabulary id, `##` kept; an id outside the vocabulary is shown as `#id`."""
        return self._tokenizer.id_to_token(piece_id) or f"#{piece_id}"

    def ids(self, text: str) -> list[int]:
        """All vocabulary ids of a text in order, without special pieces."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
