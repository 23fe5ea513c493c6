"""Generated questions about passages, kept when a search finds the passage again (round trip).

`generate_pairs` asks a generator and stores its questions. `CausalQuestionGenerator` is a causal language model in a
local directory, run by transformers.

The round trip makes generated questions usable: a question that its own passage does not answer best is vague, or about
something else (arXiv 2002.03932; most later work on generated queries filters alike).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson

from models.progress import ProgressReporter
from models.training.batches import Mask
from models.training.mining import CandidateSource, VectorCandidates
from models.training.pairs import Pair, PairSet, texts_fingerprint
from models.training.teacher_vectors import load_teacher_vectors
from models.training.teachers import SparseTeacher
from services.encoders.manifest import describe_file
from services.errors import ConfigurationError, InvalidInput, require_extra
from services.text_encoding import replace_surrogates

# A question that does not find its passage among the first three hits is too general to train on.
_MAX_RANK = 3
QUESTION_ORIGIN = "question"
_LEAST_WORDS, _MOST_WORDS = 3, 32
# Passages between two saves; a small model on a core takes a second or more for each.
BLOCK_PASSAGES = 16
_NUMBERED = re.compile(r"^(?:[-*•]|\(?\d{1,2}[.):])\s+")
_LABEL = re.compile(r"^(?:question|query|q)\s*\d*\s*[:.]\s*", re.IGNORECASE)
_QUOTES = "\"'“”*` \t"
QUESTION_INSTRUCTION = (
    "Write one short question that somebody would type into a search box and that this passage answers. "
    "Answer with the question only.\n\nPassage: {passage}"
)
# Small models copy the form of examples; without them a model of 135M parameters explained the passage.
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


class QuestionGenerator(Protocol):
    """Generator of questions. `fingerprint` must change whenever a question could. A call keeps the order of passages.

    The result has a list of questions for each passage.
    """

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
    """Return the questions about every passage as pairs of origin `question`; ask once and keep them in `directory`.

    A stopped run resumes after the last saved block; another generator or other passages have another file. Lines that
    are not questions (too short, too long, repeated) are left out. `done` receives the number of finished passages.

    Raises InvalidInput (`bad_generator`) for a generator that loses passages, ConfigurationError
    (`unwritable_directory`), and the errors of the generator.
    """
    fingerprint = texts_fingerprint([generator.fingerprint, texts_fingerprint(passages)])
    path = directory / f"questions-{generator.name}-{fingerprint}.jsonl"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        answers = _read_stored(path)
        with path.open("ab") as file:
            done(len(answers))
            while len(answers) < len(passages):
                block = list(passages[len(answers) : len(answers) + BLOCK_PASSAGES])
                questions = generator(block)
                if len(questions) != len(block):
                    raise InvalidInput(
                        "bad_generator", f"{generator.name} answered {len(questions)} of {len(block)} passages."
                    )
                questions = [[replace_surrogates(line) for line in lines] for lines in questions]
                file.writelines(orjson.dumps(lines) + b"\n" for lines in questions)
                file.flush()
                os.fsync(file.fileno())
                answers += questions
                done(len(answers))
    except OSError as error:
        raise ConfigurationError(
            "unwritable_directory",
            f"Cannot write {path} ({error.strerror}). Make room or choose another directory; saved questions stay.",
        ) from None
    return PairSet.of(_make_pairs(passages, answers))


def _make_pairs(passages: Sequence[str], answers: Sequence[Sequence[str]]) -> Iterator[Pair]:
    for passage, lines in zip(passages, answers, strict=True):
        for text in dict.fromkeys(parse_question(line) for line in lines):
            if text:
                yield Pair(text, passage, QUESTION_ORIGIN)


def parse_question(line: str) -> str:
    """Return the question in a line of a generator; empty when the line is not a question."""
    text = _LABEL.sub("", _NUMBERED.sub("", line.strip()).strip(_QUOTES)).strip(_QUOTES)
    return text if _LEAST_WORDS <= len(text.split()) <= _MOST_WORDS else ""


def _read_stored(path: Path) -> list[list[str]]:
    """Read the complete lines; cut off a line that a killed run left half written."""
    if not path.exists():
        return []
    answers: list[list[str]] = []
    complete_bytes = 0
    with path.open("rb+") as file:
        for line in file:
            try:
                answers.append([str(question) for question in orjson.loads(line)])
            except (orjson.JSONDecodeError, TypeError):
                break
            if not line.endswith(b"\n"):
                answers.pop()
                break
            complete_bytes += len(line)
        file.truncate(complete_bytes)
    return answers


def check_round_trip(pairs: PairSet, candidates: CandidateSource, within: int, block: int = 256) -> Mask:
    """Return bool [links]: whether the passage is among the first `within` candidates for its query.

    Raises InvalidInput (`bad_filter`) for a `within` below 1.
    """
    if within < 1:
        raise InvalidInput("bad_filter", f"`within` must be at least 1, not {within}.")
    kept = np.zeros(len(pairs), dtype=np.bool_)
    for start in range(0, len(pairs), block):
        links = slice(start, start + block)
        candidate_rows = candidates.best(pairs.query_rows[links], within)
        kept[links] = (candidate_rows == pairs.passage_rows[links][:, None]).any(axis=1)
    return kept


class CausalQuestionGenerator:
    """Causal language model as a `QuestionGenerator`. Weights are safetensors, or GGUF if there are none.

    A call asks `each` questions a passage, sampled at `temperature` (0: the likeliest question), about the first
    `passage_pieces` of the passage. The same seed asks the same questions on the same machine.
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
        """Load the model. Raises ConfigurationError: `missing_library` without the extra, `bad_generator` for wrong
        settings, `bad_model` for a directory that transformers cannot load.
        """
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
        except Exception as error:  # transformers passes on errors of several libraries
            raise ConfigurationError("bad_model", f"{directory} is not a causal language model: {error}") from None
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
        settings = repr((self._generation, passage_pieces, seed, QUESTION_INSTRUCTION, QUESTION_EXAMPLES))
        self.fingerprint = texts_fingerprint([*(describe_file(path).sha256 for path in weights), settings])

    def __call__(self, passages: Sequence[str]) -> list[list[str]]:
        torch = self._torch
        # a chat template already writes the special pieces
        inputs = self._tokenizer(
            [self._prompt(passage) for passage in passages],
            return_tensors="pt",
            padding=True,
            add_special_tokens=not self._tokenizer.chat_template,
        )
        inputs = {name: inputs[name].to(self._device) for name in ("input_ids", "attention_mask")}
        # seeded by the passages alone, so that a resumed run asks the same questions
        seed = int(texts_fingerprint([str(self._seed), *passages]), 16) % 2**31
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(seed)
            answers = self._model.generate(**inputs, **self._generation)
        generated = answers[:, inputs["input_ids"].shape[1] :]
        written = self._tokenizer.batch_decode(generated, skip_special_tokens=True)
        lines = [self._line(ids, answer) for ids, answer in zip(generated.tolist(), written, strict=True)]
        return [lines[start : start + self._each] for start in range(0, len(lines), self._each)]

    def _prompt(self, passage: str) -> str:
        clean = replace_surrogates(passage)
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
        """Return the first line of an answer; empty when the model had not finished it."""
        line, has_more, _ = answer.strip().partition("\n")
        ended = bool(has_more) or self._ends.intersection(ids)
        return line if ended else ""


def _weight_files(directory: Path) -> tuple[list[Path], dict[str, str]]:
    """Return the files of weights, and the options with which transformers reads them."""
    weights = sorted(directory.glob("*.safetensors"))
    if weights:
        return weights, {}
    gguf_files = sorted(directory.glob("*.gguf"))
    if len(gguf_files) == 1:
        return gguf_files, {"gguf_file": gguf_files[0].name}
    raise ConfigurationError(
        "bad_model", f"{directory} has neither safetensors nor a single GGUF file (pickled weights are never read)."
    )


def make_question_generator(
    directory: Path, start: str, out: Path, show: ProgressReporter
) -> Callable[[PairSet], PairSet]:
    """Return a function that generates a question for each passage with the language model of `directory`.

    It keeps the questions for which the encoder `start` finds their passage among the first `_MAX_RANK` hits.
    """

    def generate(pairs: PairSet) -> PairSet:
        generator = CausalQuestionGenerator(directory)
        total = len(pairs.passages)
        generated = generate_pairs(
            pairs.passages, generator, out / "questions", lambda done: show.step("Questions", done, total)
        )
        teacher = SparseTeacher(start)
        vectors = load_teacher_vectors(teacher, generated, out / "vectors")
        kept = check_round_trip(generated, VectorCandidates(vectors, teacher.fingerprint), _MAX_RANK)
        show.report(f"{int(kept.sum()):,} of {len(generated):,} questions find their passage.")
        return generated.take(kept)

    return generate
