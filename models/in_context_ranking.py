"""In-context ranking: a decoder scores all passages by its attention, in one prefill and without an answer.

The method is BlockRank (arXiv 2510.05396). A passage attends to the instruction and to itself, never to another
passage. The query attends to everything. The score of a passage is the attention that the last two pieces of the prompt
pay to it in a middle layer: the mean over heads and both pieces, as a share of the attention to all passages. The time
grows in proportion to the passages, and the order of the passages changes no score. Later layers are not computed.

The published code numbers the passages, because its model can also answer with numbers. Here passages have no numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import ConfigurationError, require_extra

# Pieces of a passage and of the query that are read.
PASSAGE_PIECES, QUERY_PIECES = 256, 512
# The published models place the query here, so that its distance to the passages does not depend on their number.
QUERY_POSITION = 16_384
# Passages of one model run.
BATCH_PASSAGES = 16
# The published model for Mistral-7B reads layer 20 of 32.
LAYER_SHARE = 0.625
_PASSAGES = "<<passages>>"
_INSTRUCTION = "Read the passages. Then find the passages that answer a query."


class InContextScorer:
    """A decoder whose attention scores passages, see `PassageScorer`. The scores of a call add up to 1."""

    def __init__(self, name_or_path: str, *, layer: int | None = None, device: str = "cpu") -> None:
        """Load a directory, or a model of a hub. `layer` is read, from 0; None: layer 20 of 32, in proportion.

        Raises ConfigurationError: `missing_library`, `bad_reranker` (cannot be loaded, has no attention weights, has
        too few layers or too few positions).
        """
        with require_extra("transformers", "rerank with a decoder", "train"):
            from transformers import AutoModel, AutoTokenizer
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False)
            # Other implementations of attention do not return its weights.
            self._model: Any = AutoModel.from_pretrained(
                name_or_path, trust_remote_code=False, use_safetensors=True, attn_implementation="eager"
            )
        except Exception as error:  # the library's errors share no base
            raise ConfigurationError("bad_reranker", f"{name_or_path} is not a usable decoder: {error}") from None
        layers = getattr(self._model, "layers", None)
        count = 0 if layers is None else len(layers)
        self.layer = int(count * LAYER_SHARE) if layer is None else layer
        if layers is not None and self.layer >= count:
            raise ConfigurationError(
                "bad_reranker", f"{name_or_path} has {count} layers, so it has no layer {self.layer} (from 0)."
            )
        if layers is not None:
            self._model.layers = layers[: self.layer + 1]
            self._model.config.num_hidden_layers = self.layer + 1
        self._model = self._model.to(device).eval()
        self._positions = int(getattr(self._model.config, "max_position_embeddings", 0) or 0)
        self._check(name_or_path)

    def _check(self, name: str) -> None:
        before, after = self.frame("")
        needed = len(before) + PASSAGE_PIECES + QUERY_PIECES + len(after)
        if 0 < self._positions < needed:
            raise ConfigurationError(
                "bad_reranker",
                f"{name} has {self._positions:,} positions; a passage and the query need {needed:,}.",
            )
        try:
            scores = self("query", ["passage", "text"])
        except Exception as error:  # the library's errors share no base
            raise ConfigurationError(
                "bad_reranker",
                f"{name} gives no attention weights of a prompt in parts: choose LISTWISE_METHOD=permutation ({error})",
            ) from None
        if not np.isfinite(scores).all():
            raise ConfigurationError("bad_reranker", f"{name} gives attention weights that are not finite.")

    def __call__(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        import torch

        if not passages:
            return np.empty(0, dtype=np.float32)
        before, after = self.frame(query)
        with torch.inference_mode():
            start = self._run([before], [], 0)
            instruction = _split_cache(start, 0, [len(before)])[0]
            blocks = []
            for first in range(0, len(passages), BATCH_PASSAGES):
                rows = [self.passage_pieces(passage) for passage in passages[first : first + BATCH_PASSAGES]]
                cache = self._run(rows, instruction, len(before))
                blocks += _split_cache(cache, len(before), [len(row) for row in rows])
            return self._attention(instruction, blocks, after, len(before))

    def frame(self, query: str) -> tuple[list[int], list[int]]:
        """Return the pieces of the prompt before and after the passages."""
        # The query is cut by pieces, so that the end of the prompt stays.
        encoded = self._tokenizer(query, add_special_tokens=False)["input_ids"][:QUERY_PIECES]
        cut = self._tokenizer.decode(encoded) if len(encoded) == QUERY_PIECES else query
        message = f"{_INSTRUCTION}\n{_PASSAGES}\nThe query: {' '.join(cut.replace(_PASSAGES, ' ').split())}"
        has_template = bool(getattr(self._tokenizer, "chat_template", None))
        text = message + "\n"
        if has_template:
            chat = [{"role": "user", "content": message}]
            text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        before, _, after = text.partition(_PASSAGES)
        start = self._tokenizer(before, add_special_tokens=False)["input_ids"]
        # A chat template writes the special pieces itself.
        if not has_template and self._tokenizer.bos_token_id is not None:
            start = [self._tokenizer.bos_token_id, *start]
        return start, self._tokenizer(after + "Answer: [", add_special_tokens=False)["input_ids"]

    def passage_pieces(self, passage: str) -> list[int]:
        """Return the pieces of a passage, `PASSAGE_PIECES` at most and at least one."""
        text = "\n" + " ".join(passage.split()) + "\n"
        pieces: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"][:PASSAGE_PIECES]
        # A passage without pieces has one unknown piece, because a block of the prompt cannot be empty.
        return pieces or [self._tokenizer.unk_token_id or 0]

    def _run(self, rows: Sequence[Sequence[int]], past: Any, position: int, *, weights: bool = False) -> Any:
        """Read rows [batch, length] after the same past. Return the cache, or the last layer's attention weights."""
        import torch
        from transformers import DynamicCache

        device = self._model.device
        length, cache = max(map(len, rows)), DynamicCache()
        for layer, (keys, values) in enumerate(past):
            shape = (len(rows), -1, -1, -1)
            cache.update(keys.expand(shape), values.expand(shape), layer)
        before = past[0][0].shape[2] if past else 0
        # Padding is on the right, so the causal mask hides it. The explicit mask also replaces a sliding window.
        causal = torch.full((length, before + length), torch.finfo(self._model.dtype).min, dtype=self._model.dtype)
        mask = causal.triu(before + 1).expand(len(rows), 1, -1, -1).to(device)
        output = self._model(
            input_ids=torch.tensor([[*row, *[0] * (length - len(row))] for row in rows], device=device),
            attention_mask=mask,
            position_ids=torch.arange(position, position + length, device=device).expand(len(rows), -1),
            past_key_values=cache,
            use_cache=True,
            output_attentions=weights,
        )
        return output.attentions[-1] if weights else output.past_key_values

    def _attention(
        self, instruction: Any, blocks: Sequence[Any], after: Sequence[int], start: int
    ) -> NDArray[np.float32]:
        """Return the share of each passage in the attention of the last two pieces."""
        import torch

        parts = [instruction, *blocks]
        past = [
            tuple(torch.cat([part[layer][kind] for part in parts], dim=2) for kind in (0, 1))
            for layer in range(len(instruction))
        ]
        lengths = [block[0][0].shape[2] for block in blocks]
        position = QUERY_POSITION if self._positions == 0 else min(QUERY_POSITION, self._positions - len(after))
        if len(after) > 2:
            cache = self._run([after[:-2]], past, position)
            past = [(layer.keys, layer.values) for layer in cache.layers]
        # Only two pieces return their weights: those of a whole query would take gigabytes.
        weights = self._run([after[-2:]], past, position + max(0, len(after) - 2), weights=True)
        to_passages = weights[0, :, :, start : start + sum(lengths)].float()
        shares = to_passages / to_passages.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        scores = [part.sum() for part in shares.mean(dim=(0, 1)).split(lengths)]
        return np.asarray(torch.stack(scores).cpu().numpy(), dtype=np.float32)


def _split_cache(cache: Any, start: int, lengths: Sequence[int]) -> list[list[tuple[Any, Any]]]:
    """Return the keys and values of each row by layer, from `start` on and without padding."""
    return [
        [
            (
                layer.keys[row : row + 1, :, start : start + length],
                layer.values[row : row + 1, :, start : start + length],
            )
            for layer in cache.layers
        ]
        for row, length in enumerate(lengths)
    ]
