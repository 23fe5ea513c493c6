"""A decoder that orders passages: it reads several at once, and its answer is their numbers, best first.

The prompt is RankGPT's permutation (arXiv 2304.09542, appendix), and so is the window that slides from the last
passages to the first with half of it overlapping. What a model leaves out or invents does no harm: the rest keeps the
order in which it came.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import ConfigurationError
from services.extra import needs

WINDOW, STEP = 20, 10
# Characters of a passage that the prompt shows: about 200 pieces, twenty of them fit a context of 8,192.
SHOWN = 800
_NUMBER = re.compile(r"\[(\d+)\]")


def prompt(query: str, passages: Sequence[str]) -> str:
    """What the model is asked, in one message."""
    listed = "\n".join(f"[{i}] {_line(passage)}" for i, passage in enumerate(passages, 1))
    return (
        f"I will give you {len(passages)} passages, each with a number in brackets. Rank them by how well they answer "
        f"the query: {_line(query)}\n\n{listed}\n\nThe query: {_line(query)}\nAnswer with the numbers alone, the best "
        "passage first, in the form [2] > [1]."
    )


def _line(text: str) -> str:
    """On one line; brackets with a number in them would count as the number of a passage."""
    return _NUMBER.sub(r"(\1)", " ".join(text.split()))[:SHOWN]


def permutation(answer: str, count: int) -> list[int]:
    """Positions 0 to `count` - 1 in the order of the answer; what it does not name follows in its old order."""
    named = dict.fromkeys(int(digits) - 1 for digits in _NUMBER.findall(answer) if len(digits) < 6)
    found = [position for position in named if 0 <= position < count]
    return found + [position for position in range(count) if position not in named]


def windows(count: int, size: int = WINDOW, step: int = STEP) -> list[tuple[int, int]]:
    """Ranges of the list that are ordered, the last one first, so that a good passage climbs to the top."""
    end, found = count, []
    while True:
        start = max(0, end - size)
        found.append((start, end))
        if start == 0:
            return found
        end -= step


class ListwiseScorer:
    """See `models.reranking.scorer.Scorer`: the scores say the order, from 1 for the first down to 1 / passages."""

    def __init__(self, name_or_path: str, *, device: str = "cpu") -> None:
        """A directory, or a hub's name where there is a network. Weights are safetensors, no code of the model's runs.

        Raises ConfigurationError: `missing_library`, `bad_reranker`.
        """
        with needs("transformers", "rerank with a decoder", "train"):
            from transformers import AutoModelForCausalLM, AutoTokenizer
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False)
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                name_or_path, trust_remote_code=False, use_safetensors=True
            )
        except Exception as error:  # the library's errors share no base
            raise ConfigurationError("bad_reranker", f"{name_or_path} is no usable decoder: {error}") from None
        self._model = self._model.to(device).eval()

    def __call__(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        order = list(range(len(passages)))
        for start, end in windows(len(passages)):
            part = order[start:end]
            answer = self.answer(prompt(query, [passages[position] for position in part]), len(part))
            order[start:end] = [part[position] for position in permutation(answer, len(part))]
        scores = np.empty(len(passages), dtype=np.float32)
        scores[order] = np.arange(len(passages), 0, -1, dtype=np.float32) / max(1, len(passages))
        return scores

    def answer(self, message: str, passages: int) -> str:
        """What the model says, without choosing at random; about five pieces a passage are enough."""
        import torch

        chats = bool(getattr(self._tokenizer, "chat_template", None))
        text = message + "\n"
        if chats:
            asked = [{"role": "user", "content": message}]
            text = self._tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        # (a chat's template writes the special pieces itself)
        given = self._tokenizer(text, return_tensors="pt", add_special_tokens=not chats)
        ids = given["input_ids"].to(self._model.device)
        with torch.inference_mode():
            made = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=8 * passages,
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id or 0,
            )
        return str(self._tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))
