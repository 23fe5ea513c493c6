"""Parse the parts of the Dockerfile format that this project uses: stages, instructions and expanded arguments."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """An instruction: its keyword in capitals, and its arguments with continuation lines joined."""

    word: str
    rest: str

    def listed(self) -> list[str] | None:
        """Return the list of the JSON form (`CMD ["a"]`), or None for the shell form."""
        return json.loads(self.rest) if self.rest.startswith("[") else None


@dataclass
class Stage:
    """The line `FROM parent AS name` and the instructions after it."""

    name: str
    parent: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[Instruction]:
        """Return the stage's own instructions of a kind in order."""
        return [each for each in self.instructions if each.word == word]


@dataclass(frozen=True)
class Copy:
    """A COPY instruction: its sources and target as written, and its source stage (None: the build context)."""

    sources: tuple[str, ...]
    target: str
    stage: str | None


def copy_of(instruction: Instruction) -> Copy:
    """Parse a COPY instruction. `--from` is the only supported flag."""
    words = instruction.rest.split()
    stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
    if any(word.startswith("--") for word in words):
        raise ValueError(f"a flag of COPY that is not understood here: {instruction.rest}")
    return Copy(tuple(words[:-1]), words[-1], stage)


def read(path: Path) -> dict[str, Stage]:
    """Return the stages by name in the order of the file. FROM, LABEL and ENV contain the expanded ARG defaults."""
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
    """Return the stage and its parent stages, the oldest first."""
    chain: list[Stage] = []
    while name in stages:
        chain.insert(0, stages[name])
        name = stages[name].parent
    return chain


def environment(stages: dict[str, Stage], name: str) -> dict[str, str]:
    """Return the variables that ENV sets in a stage and its parents."""
    pairs = (pair for stage in ancestry(stages, name) for each in stage.all("ENV") for pair in each.rest.split())
    return {name: value.strip('"') for name, _, value in (pair.partition("=") for pair in pairs)}


def last(stages: dict[str, Stage], name: str, word: str) -> Instruction:
    """Return the effective instruction of a kind: the stage's last one, or else that of a parent."""
    return [each for stage in ancestry(stages, name) for each in stage.all(word)][-1]


def _filled(text: str, arguments: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], text.strip())
