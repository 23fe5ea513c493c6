"""Rerankers: a cross-encoder and a listwise decoder.

`CrossEncoderScorer` reads the query and one passage at a time (sentence-transformers). `ListwiseScorer` is RankGPT
(arXiv 2304.09542): a decoder reads 20 passages at once and answers with their numbers, best first; the window slides
from the last passages to the first in steps of 10. Passages that the answer omits keep their order, invented numbers
are ignored. Both load safetensors only and run no code of a model's repository.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.errors import ConfigurationError, require_extra

# Passages of one model run.
BATCH_PASSAGES = 32
WINDOW, STEP = 20, 10
# Characters of a passage in the prompt: about 200 pieces, so 20 passages fit a context of 8,192 pieces.
MAX_PASSAGE_CHARACTERS = 800
_NUMBER = re.compile(r"\[(\d+)\]")


class PassageScorer(Protocol):
    """A reranker: scores of passages for a query, float32 [passages]. Higher is better; the scale is free."""

    def __call__(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]: ...


class CrossEncoderScorer:
    """A cross-encoder, see `PassageScorer`. Passages are truncated at the model's length."""

    def __init__(self, name_or_path: str, *, device: str | None = None) -> None:
        """Load a directory, or a model of a hub.

        Raises ConfigurationError: `missing_library`, `bad_reranker` (cannot be loaded, or has several outputs).
        """
        with require_extra("sentence_transformers", "rerank with a cross-encoder", "train"):
            from sentence_transformers import CrossEncoder
        try:
            self.model: Any = CrossEncoder(
                name_or_path, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )
        except Exception as error:  # the library's errors share no base
            raise ConfigurationError("bad_reranker", f"{name_or_path} is not a usable cross-encoder: {error}") from None
        if self.model.num_labels != 1:
            raise ConfigurationError(
                "bad_reranker",
                f"{name_or_path} gives {self.model.num_labels} numbers a passage; a reranker gives one.",
            )

    @property
    def max_pieces(self) -> int | None:
        """The longest query and passage together, in pieces; None without a limit."""
        length: int | None = self.model.max_seq_length
        return length

    def __call__(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        return self.score_pairs([(query, passage) for passage in passages])

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Return a score for each (query, passage), float32 [pairs]."""
        scores = self.model.predict(
            list(pairs), batch_size=BATCH_PASSAGES, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(scores, dtype=np.float32)


class ListwiseScorer:
    """A decoder that orders passages, see `PassageScorer`. Scores fall from 1 (first) to 1 / passages (last)."""

    def __init__(self, name_or_path: str, *, device: str = "cpu") -> None:
        """Load a directory, or a model of a hub. Raises ConfigurationError: `missing_library`, `bad_reranker`."""
        with require_extra("transformers", "rerank with a decoder", "train"):
            from transformers import AutoModelForCausalLM, AutoTokenizer
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False)
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                name_or_path, trust_remote_code=False, use_safetensors=True
            )
        except Exception as error:  # the library's errors share no base
            raise ConfigurationError("bad_reranker", f"{name_or_path} is not a usable decoder: {error}") from None
        self._model = self._model.to(device).eval()

    def __call__(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        order = list(range(len(passages)))
        for start, end in ranking_windows(len(passages)):
            window = order[start:end]
            answer = self.answer(build_prompt(query, [passages[position] for position in window]), len(window))
            order[start:end] = [window[position] for position in parse_permutation(answer, len(window))]
        scores = np.empty(len(passages), dtype=np.float32)
        scores[order] = np.arange(len(passages), 0, -1, dtype=np.float32) / max(1, len(passages))
        return scores

    def answer(self, message: str, passages: int) -> str:
        """Return the model's greedy answer, at most 8 pieces a passage (about 5 are needed)."""
        import torch

        has_template = bool(getattr(self._tokenizer, "chat_template", None))
        text = message + "\n"
        if has_template:
            chat = [{"role": "user", "content": message}]
            text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        # A chat template writes the special pieces itself.
        encoding = self._tokenizer(text, return_tensors="pt", add_special_tokens=not has_template)
        ids = encoding["input_ids"].to(self._model.device)
        with torch.inference_mode():
            output = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=8 * passages,
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id or 0,
            )
        return str(self._tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))


def ranking_windows(count: int, size: int = WINDOW, step: int = STEP) -> list[tuple[int, int]]:
    """Return the ranges (start, end) to rank, last first: a good passage climbs from range to range to the top."""
    end, windows = count, []
    while True:
        start = max(0, end - size)
        windows.append((start, end))
        if start == 0:
            return windows
        end -= step


def build_prompt(query: str, passages: Sequence[str]) -> str:
    """Build the message that asks a decoder to rank passages."""
    listed = "\n".join(f"[{i}] {_join_lines(passage)}" for i, passage in enumerate(passages, 1))
    return (
        f"I will give you {len(passages)} passages, each with a number in brackets. Rank them by how well they answer "
        f"the query: {_join_lines(query)}\n\n{listed}\n\nThe query: {_join_lines(query)}\n"
        "Answer with the numbers alone, the best passage first, in the form [2] > [1]."
    )


def _join_lines(text: str) -> str:
    """Return the text on one line. Numbers in brackets get parentheses, because brackets mark passage numbers."""
    return _NUMBER.sub(r"(\1)", " ".join(text.split()))[:MAX_PASSAGE_CHARACTERS]


def parse_permutation(answer: str, count: int) -> list[int]:
    """Return positions 0 to `count` - 1 in the order of the answer; omitted positions follow in their old order."""
    named = dict.fromkeys(int(digits) - 1 for digits in _NUMBER.findall(answer) if len(digits) < 6)
    ranked = [position for position in named if 0 <= position < count]
    return ranked + [position for position in range(count) if position not in named]
