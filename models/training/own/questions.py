"""A generator of questions: a causal language model in a local directory, run by transformers.

Questions that a generator asks about passages, kept when a search finds the passage again (round trip).

The round trip is what makes generated questions usable: one that its own passage does not answer better than the
others do is vague, or about something else (arXiv 2002.03932 and most later work on generated queries filter so).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson

from models.training.batches import Mask
from models.training.mining import CandidateSource
from models.training.pairs import Pair, PairSet, texts_fingerprint
from services.encoders.manifest import describe_file
from services.errors import ConfigurationError, InvalidInput, require_extra

QUESTION_ORIGIN = "question"
_LEAST_WORDS, _MOST_WORDS = 3, 32
# Between two saves; a passage takes a small model on a core a second or more.
BLOCK_PASSAGES = 16
_NUMBERED = re.compile(r"^(?:[-*•]|\(?\d{1,2}[.):])\s+")
_LABEL = re.compile(r"^(?:question|query|q)\s*\d*\s*[:.]\s*", re.IGNORECASE)


_QUOTES = "\"'“”*` \t"


class QuestionGenerator(Protocol):
    """Asks about passages. `fingerprint` changes whenever the questions could; a call keeps the order of passages."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, passages: Sequence[str]) -> list[list[str]]: ...


def generate_pairs(
    passages: Sequence[str],
    generator: QuestionGenerator,
    directory: Path,
    done: Callable[[int], object] = lambda passages: None,
) -> PairSet:
    """The questions of every passage as pairs of origin `question`, asked once and kept in `directory`.

    A stopped run goes on behind the last block that was saved; another generator or other passages have a file of
    their own. Lines that are no question (too short, too long, repeated) are left out. `done` hears how many passages
    were asked about.

    Raises InvalidInput (`bad_generator`) for a generator that loses passages, ConfigurationError
    (`unwritable_directory`), and what the generator raises.
    """
    prints = texts_fingerprint([generator.fingerprint, texts_fingerprint(passages)])
    path = directory / f"questions-{generator.name}-{prints}.jsonl"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        asked = _read_stored(path)
        with path.open("ab") as file:
            done(len(asked))
            while len(asked) < len(passages):
                block = list(passages[len(asked) : len(asked) + BLOCK_PASSAGES])
                found = generator(block)
                if len(found) != len(block):
                    raise InvalidInput(
                        "bad_generator", f"{generator.name} answered {len(found)} of {len(block)} passages."
                    )
                found = [[_drop_surrogates(one) for one in several] for several in found]
                file.writelines(orjson.dumps(several) + b"\n" for several in found)
                file.flush()
                os.fsync(file.fileno())
                asked += found
                done(len(asked))
    except OSError as error:
        raise ConfigurationError(
            "unwritable_directory",
            f"Cannot write {path} ({error.strerror}). Make room or choose another directory; what is asked stays.",
        ) from None
    return PairSet.of(_make_pairs(passages, asked))


def check_round_trip(pairs: PairSet, candidates: CandidateSource, within: int, block: int = 256) -> Mask:
    """Bool [links]: whether the passage is among the first `within` that `candidates` finds for its query.

    Raises InvalidInput (`bad_filter`) for a `within` below 1.
    """
    if within < 1:
        raise InvalidInput("bad_filter", f"A passage is looked for among the first 1 or more, not {within}.")
    kept = np.zeros(len(pairs), dtype=np.bool_)
    for start in range(0, len(pairs), block):
        links = slice(start, start + block)
        found = candidates.best(pairs.query_rows[links], within)
        kept[links] = (found == pairs.passage_rows[links][:, None]).any(axis=1)
    return kept


def parse_question(line: str) -> str:
    """A line that a generator wrote as a question; empty when it is none."""
    text = _LABEL.sub("", _NUMBERED.sub("", line.strip()).strip(_QUOTES)).strip(_QUOTES)
    return text if _LEAST_WORDS <= len(text.split()) <= _MOST_WORDS else ""


def _make_pairs(passages: Sequence[str], asked: Sequence[Sequence[str]]) -> Iterator[Pair]:
    for passage, lines in zip(passages, asked, strict=True):
        for text in dict.fromkeys(parse_question(line) for line in lines):
            if text:
                yield Pair(text, passage, QUESTION_ORIGIN)


def _read_stored(path: Path) -> list[list[str]]:
    """What is there whole; a line that a killed run left half written is cut off the file."""
    if not path.exists():
        return []
    found: list[list[str]] = []
    whole = 0
    with path.open("rb+") as file:
        for line in file:
            try:
                found.append([str(one) for one in orjson.loads(line)])
            except (orjson.JSONDecodeError, TypeError):
                break
            if not line.endswith(b"\n"):
                found.pop()
                break
            whole += len(line)
        file.truncate(whole)
    return found


def _drop_surrogates(line: str) -> str:
    """Without halves of surrogates, which a model may write and JSON cannot hold."""
    return line.encode("utf-8", "replace").decode()


QUESTION_INSTRUCTION = (
    "Write one short question that somebody would type into a search box and that this passage answers. "
    "Answer with the question only.\n\nPassage: {passage}"
)
# Small models answer in the form that they were shown; without examples one of 135M parameters explained the passage.
QUESTION_EXAMPLES = (
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


class CausalQuestionGenerator:
    """See `models.training.own.questions.QuestionGenerator`. Weights are safetensors, or GGUF where there are no others.

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
        with require_extra("transformers", "generate questions", "train"):
            import torch
            import transformers

        if each < 1 or temperature < 0 or (each > 1 and temperature == 0):
            raise ConfigurationError(
                "bad_generator", f"{each} different questions need a temperature above 0, not {temperature}."
            )
        weights, options = _weight_files(directory)
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
        asked = repr((self._generation, passage_pieces, seed, QUESTION_INSTRUCTION, QUESTION_EXAMPLES))
        self.fingerprint = texts_fingerprint([*(describe_file(path).sha256 for path in weights), asked])

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
            shown = "".join(f"Passage: {example}\nQuestion: {question}\n\n" for example, question in QUESTION_EXAMPLES)
            return f"{shown}Passage: {cut}\nQuestion:"
        messages = [
            {"role": role, "content": content}
            for example, question in QUESTION_EXAMPLES
            for role, content in (("user", QUESTION_INSTRUCTION.format(passage=example)), ("assistant", question))
        ]
        messages.append({"role": "user", "content": QUESTION_INSTRUCTION.format(passage=cut)})
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _line(self, ids: Sequence[int], answer: str) -> str:
        """The first line of an answer; empty when the model had not come to its end."""
        line, broken, _ = answer.strip().partition("\n")
        ended = bool(broken) or self._ends.intersection(ids)
        return line if ended else ""


def _weight_files(directory: Path) -> tuple[list[Path], dict[str, str]]:
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
