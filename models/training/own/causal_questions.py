"""A generator of questions: a causal language model in a local directory, run by transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.training.pairs import texts_fingerprint
from services.errors import ConfigurationError
from services.extra import needs
from services.manifest import record

INSTRUCTION = (
    "Write one short question that somebody would type into a search box and that this passage answers. "
    "Answer with the question only.\n\nPassage: {passage}"
)
# Small models answer in the form that they were shown; without examples one of 135M parameters explained the passage.
EXAMPLES = (
    (
        "Water boils at a lower temperature on a mountain than at the sea, since the air above presses less on it.",
        "why does water boil sooner at high altitude",
    ),
    (
        "To restore a snapshot, close the index first or restore it under another name with rename_pattern.",
        "how to restore a snapshot into an open index",
    ),
    (
        "The treaty of 1648 ended thirty years of war; delegates of both confessions had met in two towns.",
        "which treaty ended the thirty years' war",
    ),
)


class CausalQuestions:
    """See `models.training.own.generated.Generator`. Weights are safetensors, or GGUF where there are no others.

    `each` questions a passage, sampled at `temperature` (0: the likeliest one); `passage_pieces` of the passage are
    read. The same seed asks the same on the same machine.
    """

    def __init__(
        self,
        directory: Path,
        *,
        each: int = 1,
        temperature: float = 0.7,
        passage_pieces: int = 256,
        question_pieces: int = 32,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Raises ConfigurationError: `missing_library` without the extra, `bad_model` for what cannot be loaded."""
        with needs("transformers", "generate questions", "train"):
            import torch
            import transformers

        if each < 1 or temperature < 0 or (each > 1 and temperature == 0):
            raise ConfigurationError(
                "bad_generator", f"{each} different questions need a temperature above 0, not {temperature}."
            )
        weights, options = _weights(directory)
        self._torch, self._seed, self._each = torch, seed, each
        self._passage_pieces, self._device = passage_pieces, device
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False, padding_side="left", **options
            )
            self._model = transformers.AutoModelForCausalLM.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False, use_safetensors=True, **options
            )
        except Exception as error:  # transformers raises errors of several libraries
            raise ConfigurationError("bad_model", f"{directory} is no causal language model: {error}") from None
        self._model.to(device).eval()
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        ends = self._model.generation_config.eos_token_id
        self._ends = {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        sampling: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_p": 0.95} if temperature else {}
        self._generation = {
            "max_new_tokens": question_pieces,
            "num_return_sequences": each,
            "pad_token_id": self._tokenizer.pad_token_id,
            **(sampling or {"do_sample": False}),
        }
        self.name = directory.resolve().name.lower()
        asked = repr((self._generation, passage_pieces, seed, INSTRUCTION, EXAMPLES))
        self.fingerprint = texts_fingerprint([*(record(path).sha256 for path in weights), asked])

    def __call__(self, passages: Sequence[str]) -> list[list[str]]:
        torch = self._torch
        # (a chat template writes the special pieces itself)
        given = self._tokenizer(
            [self._prompt(passage) for passage in passages],
            return_tensors="pt",
            padding=True,
            add_special_tokens=not self._tokenizer.chat_template,
        )
        given = {name: given[name].to(self._device) for name in ("input_ids", "attention_mask")}
        # by the passages and not by what was asked before, so that a run that goes on asks what it would have asked
        seed = int(texts_fingerprint([str(self._seed), *passages]), 16) % 2**31
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(seed)
            answers = self._model.generate(**given, **self._generation)
        found = answers[:, given["input_ids"].shape[1] :]
        written = self._tokenizer.batch_decode(found, skip_special_tokens=True)
        lines = [self._line(ids, answer) for ids, answer in zip(found.tolist(), written, strict=True)]
        return [lines[start : start + self._each] for start in range(0, len(lines), self._each)]

    def _prompt(self, passage: str) -> str:
        clean = passage.encode("utf-8", "replace").decode()
        ids = self._tokenizer(clean, add_special_tokens=False, truncation=True, max_length=self._passage_pieces)
        cut = self._tokenizer.decode(ids["input_ids"], skip_special_tokens=True)
        if not self._tokenizer.chat_template:
            shown = "".join(f"Passage: {example}\nQuestion: {question}\n\n" for example, question in EXAMPLES)
            return f"{shown}Passage: {cut}\nQuestion:"
        messages = [
            {"role": role, "content": content}
            for example, question in EXAMPLES
            for role, content in (("user", INSTRUCTION.format(passage=example)), ("assistant", question))
        ]
        messages.append({"role": "user", "content": INSTRUCTION.format(passage=cut)})
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _line(self, ids: Sequence[int], answer: str) -> str:
        """The first line of an answer; empty when the model had not come to its end."""
        line, broken, _ = answer.strip().partition("\n")
        ended = bool(broken) or self._ends.intersection(ids)
        return line if ended else ""


def _weights(directory: Path) -> tuple[list[Path], dict[str, str]]:
    """The files of weights, and what transformers must be told to read them."""
    found = sorted(directory.glob("*.safetensors"))
    if found:
        return found, {}
    packed = sorted(directory.glob("*.gguf"))
    if len(packed) == 1:
        return packed, {"gguf_file": packed[0].name}
    raise ConfigurationError(
        "bad_model", f"{directory} has neither safetensors nor a single GGUF file (pickled weights are never read)."
    )
