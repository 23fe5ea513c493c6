"""A decoder that orders passages: it reads several at once, and its answer is their numbers, best first.

The prompt is RankGPT's permutation (arXiv 2304.09542, appendix), and so is the window that slides from the last
passages to the first with half of it overlapping. What a model leaves out or invents does no harm: the rest keeps the
order in which it came.

A cross-encoder of sentence-transformers: it reads the query and one passage at a time.

What a reranker offers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.errors import ConfigurationError, require_extra

# Passages of one run of the model.
BATCH_PASSAGES = 32


class CrossEncoderScorer:
    """See `models.reranking.PassageScorer`. A passage longer than the model reads is cut at its limit."""

    def __init__(self, name_or_path: str, *, device: str | None = None) -> None:
        """A directory, or a hub's name where there is a network. Weights are safetensors, no code of the model's runs.

        Raises ConfigurationError: `missing_library`, `bad_reranker` for what cannot be loaded or has several outputs.
        """
        with require_extra("sentence_transformers", "rerank with a cross-encoder", "train"):
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
        found = self._model.predict(pairs, batch_size=BATCH_PASSAGES, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(found, dtype=np.float32)


class PassageScorer(Protocol):
    """Scores of passages for a query, float32 [passages], higher is better; only their order and ratios matter."""

    def __call__(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]: ...


WINDOW, STEP = 20, 10
# Characters of a passage that the prompt shows: about 200 pieces, twenty of them fit a context of 8,192.
MAX_PASSAGE_CHARACTERS = 800
_NUMBER = re.compile(r"\[(\d+)\]")


def build_prompt(query: str, passages: Sequence[str]) -> str:
    """What the model is asked, in one message."""
    listed = "\n".join(f"[{i}] {_join_lines(passage)}" for i, passage in enumerate(passages, 1))
    return (
        f"I will give you {len(passages)} passages, each with a number in brackets. Rank them by how well they answer "
        f"the query: {_join_lines(query)}\n\n{listed}\n\nThe query: {_join_lines(query)}\nAnswer with the numbers alone, the best "
        "passage first, in the form [2] > [1]."
    )


def _join_lines(text: str) -> str:
    """On one line; brackets with a number in them would count as the number of a passage."""
    return _NUMBER.sub(r"(\1)", " ".join(text.split()))[:MAX_PASSAGE_CHARACTERS]


def parse_permutation(answer: str, count: int) -> list[int]:
    """Positions 0 to `count` - 1 in the order of the answer; what it does not name follows in its old order."""
    named = dict.fromkeys(int(digits) - 1 for digits in _NUMBER.findall(answer) if len(digits) < 6)
    found = [position for position in named if 0 <= position < count]
    return found + [position for position in range(count) if position not in named]


def ranking_windows(count: int, size: int = WINDOW, step: int = STEP) -> list[tuple[int, int]]:
    """Ranges of the list that are ordered, the last one first, so that a good passage climbs to the top."""
    end, found = count, []
    while True:
        start = max(0, end - size)
        found.append((start, end))
        if start == 0:
            return found
        end -= step


class ListwiseScorer:
    """See `models.reranking.PassageScorer`: the scores say the order, from 1 for the first down to 1 / passages."""

    def __init__(self, name_or_path: str, *, device: str = "cpu") -> None:
        """A directory, or a hub's name where there is a network. Weights are safetensors, no code of the model's runs.

        Raises ConfigurationError: `missing_library`, `bad_reranker`.
        """
        with require_extra("transformers", "rerank with a decoder", "train"):
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
        for start, end in ranking_windows(len(passages)):
            part = order[start:end]
            answer = self.answer(build_prompt(query, [passages[position] for position in part]), len(part))
            order[start:end] = [part[position] for position in parse_permutation(answer, len(part))]
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
