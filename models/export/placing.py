"""Puts a finished model directory in its place: what was there stays until all of the new one is written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.errors import ConfigurationError
from services.manifest import NAME, has_manifest


def require_place(out: Path, *, replace: bool) -> None:
    """Finds out before the work whether its result may stand at `out`, whose name becomes the encoder's.

    Raises ConfigurationError: `bad_name`, `encoder_exists` unless `replace`, `not_empty` for what is no encoder.
    """
    place = out.resolve()
    name = place.name
    if not re.fullmatch(NAME, name):
        raise ConfigurationError(
            "bad_name",
            f"{name!r} is no name of an encoder: at most 64 lower-case letters, digits, dots, hyphens, underscores.",
        )
    if place == Path.cwd():
        raise ConfigurationError("not_empty", f"{out} is the directory that you stand in: name another one.")
    if has_manifest(out) and not replace:
        raise ConfigurationError(
            "encoder_exists",
            f"{out} holds an encoder already: choose another directory, or remove that one (an export: --replace).",
        )
    if out.exists() and not has_manifest(out) and (out.is_file() or any(out.iterdir())):
        raise ConfigurationError("not_empty", f"{out} is there and is no encoder: choose another directory.")


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """An empty directory beside `out`, on the same disk; it takes the place of `out` when the block ends well, and is
    gone otherwise. Raises ConfigurationError (`unwritable_file`)."""
    place = out.resolve()
    fresh, old = place.with_name(f".{place.name}.part"), place.with_name(f".{place.name}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
    except OSError as error:
        raise ConfigurationError("unwritable_file", f"{fresh} cannot be made: {error.strerror}.") from None
    try:
        yield fresh
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        fresh.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
