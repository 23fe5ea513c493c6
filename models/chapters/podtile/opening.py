"""The engine `podtile` by the name of its model."""

from __future__ import annotations

from models.chapters.podtile.engine import Boundaries, Podtile
from models.chapters.podtile.generator import open_generator
from services.errors import ConfigurationError


def open_podtile(source: str, *, tiling: Boundaries | None = None, threads: int | None = None) -> Podtile:
    """The engine with the model of a directory, of a hub's name, or of a start (`smollm2`, untrained).

    `tiling` gives the boundaries to a model whose manifest asks for them; it may be left out for others. Raises
    ConfigurationError: `no_chapter_model` for an empty `source`, and those of `open_generator`.
    """
    if not source:
        raise ConfigurationError(
            "no_chapter_model",
            "The engine podtile needs a model: SPARSEWELL_CHAPTER_MODEL is the shipped `podtile-smollm2`, a "
            "directory (`sparsewell train chapters` makes one) or a name on a hub.",
        )
    generator, manifest = open_generator(source, threads)
    if manifest is None:
        return Podtile(generator)
    if manifest.boundaries == "own":
        return Podtile(generator, ahead=manifest.ahead)
    if tiling is None:
        raise ConfigurationError(
            "no_boundaries", f"{source} titles the chapters of the engine tiling, which is missing."
        )
    return Podtile(generator, boundaries=tiling, ahead=manifest.ahead)
