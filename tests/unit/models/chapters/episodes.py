"""A generator with given answers, and talks as its input."""

from collections.abc import Callable, Sequence

from models.chapters.engine import Episode
from services.talk.model import UNKNOWN_TIME, Segments


class Written:
    """A generator that calls a function for its answers and records its prompts. A piece is a word."""

    fingerprint = "written"

    def __init__(self, answer: Callable[[str, str], str], part_pieces: int = 200, answer_pieces: int = 20) -> None:
        self._answer, self.part_pieces, self.answer_pieces = answer, part_pieces, answer_pieces
        self.title_pieces = part_pieces // 2
        self.prompts: list[tuple[str, str]] = []

    def pieces(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def write(self, prompt: str, lines: int, prefix: str = "", seconds: float | None = None) -> str:
        self.prompts.append((prompt, prefix))
        return prefix + self._answer(prompt, prefix)


def talk(sentences: Sequence[str], title: str = "A talk", description: str = "") -> Episode:
    """Make an episode with a segment for each sentence, without times."""
    offsets, at = [], 0
    for sentence in sentences:
        offsets.append(at)
        at += len(sentence) + 1
    unknown = [UNKNOWN_TIME] * len(offsets)
    return Episode(title, description, " ".join(sentences), Segments(offsets, unknown, unknown, unknown))
