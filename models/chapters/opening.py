"""Opens what makes the chapters of talk: an engine by its name, with what it proposes checked and titled."""

from __future__ import annotations

from collections.abc import Sequence

from models.chapters.accepting import Titler, accepted
from models.chapters.engine import ChapterEngine, Episode
from models.chapters.tiling.engine import Tiling
from models.chapters.titles.phrases import phrase_titles
from models.encoder import Encoder
from services.errors import ConfigurationError
from services.talk.chapters import Chapter, Repair

# Changes when the same proposals would become other chapters.
_ACCEPTING = 2


class ChapterMaker:
    """An engine whose proposals are checked; missing and refused titles are made of the words of the chapter."""

    def __init__(self, engine: ChapterEngine, titler: Titler = phrase_titles) -> None:
        self.engine, self._titler = engine, titler

    @property
    def fingerprint(self) -> str:
        return f"{self.engine.fingerprint}-{_ACCEPTING}"

    def chapters(self, episode: Episode, seconds: float | None = None) -> tuple[Sequence[Chapter], Sequence[Repair]]:
        """Raises what the engine raises (Overloaded, `chapters_late`)."""
        return accepted(episode, self.engine.propose(episode, seconds), self._titler)


def open_engine(name: str, encoder: Encoder, model: str = "", *, threads: int | None = None) -> ChapterEngine:
    """The engine `tiling`, by the vectors of `encoder`, or `podtile` with the generator `model` (directory or name).

    Raises ConfigurationError: `unknown_engine`, and for podtile those of `open_podtile`.
    """
    tiling = Tiling(encoder)
    if name == "tiling":
        return tiling
    if name == "podtile":
        # torch and transformers, which workers without this engine need not have
        from models.chapters.podtile.opening import open_podtile

        return open_podtile(model, tiling=tiling, threads=threads)
    raise ConfigurationError("unknown_engine", f"There is no chapter engine {name!r}: tiling and podtile there are.")
