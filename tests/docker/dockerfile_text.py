"""Reads a Dockerfile as far as ours uses the format: stages with their instructions, arguments put in."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """An instruction: its word in capitals, and its arguments with continuation lines joined."""

    word: str
    rest: str

    def listed(self) -> list[str] | None:
        """The JSON form (`CMD ["a"]`) as a list, None for the shell form."""
        return json.loads(self.rest) if self.rest.startswith("[") else None


@dataclass
class Stage:
    """`FROM parent AS name` and what follows it."""

    name: str
    parent: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[Instruction]:
        """The stage's own instructions of that kind, in order."""
        return [each for each in self.instructions if each.word == word]


@dataclass(frozen=True)
class Copy:
    """A COPY: sources and the target as written, and the stage that it copies from (None: the build context)."""

    sources: tuple[str, ...]
    target: str
    stage: str | None


def copy_of(instruction: Instruction) -> Copy:
    """Takes a COPY apart; no flag but `--from` is known."""
    words = instruction.rest.split()
    stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
    if any(word.startswith("--") for word in words):
        raise ValueError(f"a flag of COPY that is not understood here: {instruction.rest}")
    return Copy(tuple(words[:-1]), words[-1], stage)


def read(path: Path) -> dict[str, Stage]:
    """The stages by name, in the order of the file. ARG defaults are put into FROM, LABEL and ENV."""
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "ARG":
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif word == "FROM":
            parent, name = re.fullmatch(r"(\S+) AS (\S+)", _filled(rest, arguments)).groups()  # type: ignore[union-attr]
            stages[name] = Stage(name, parent)
            continue
        if stages and word != "ARG":
            filled = _filled(rest, arguments) if word in ("ENV", "LABEL") else rest.strip()
            list(stages.values())[-1].instructions.append(Instruction(word, filled))
    return stages


def ancestry(stages: dict[str, Stage], name: str) -> list[Stage]:
    """The stage and those that it is built on, the oldest first."""
    chain: list[Stage] = []
    while name in stages:
        chain.insert(0, stages[name])
        name = stages[name].parent
    return chain


def environment(stages: dict[str, Stage], name: str) -> dict[str, str]:
    """The variables that ENV sets in a stage, its ancestors' included."""
    pairs = (pair for stage in ancestry(stages, name) for each in stage.all("ENV") for pair in each.rest.split())
    return {name: value.strip('"') for name, _, value in (pair.partition("=") for pair in pairs)}


def last(stages: dict[str, Stage], name: str, word: str) -> Instruction:
    """The instruction of that kind which holds in a stage: its own last one, else an ancestor's."""
    return [each for stage in ancestry(stages, name) for each in stage.all(word)][-1]


def _filled(text: str, arguments: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], text.strip())
