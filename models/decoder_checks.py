"""Whether the directory of a decoder is the one that its manifest describes, told without PyTorch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from models.decoder.echo import Echo
from services.errors import ConfigurationError
from services.manifest import Manifest


def decoder_problems(directory: Path, manifest: Manifest) -> Iterator[ConfigurationError]:
    """Errors (`bad_model`): vocabulary, and the longest input.

    A decoder computes something for positions that it was never trained for, so no run would show them.
    """
    try:
        config = json.loads((directory / "config.json").read_bytes())
        side = json.loads((directory / "document_side.json").read_bytes())
        vocabulary, positions = int(config["vocab_size"]), int(config["max_position_embeddings"])
        positions = min(positions, int(config.get("sliding_window") or positions))
        room = Echo(tuple(side["before"]), tuple(side["between"])).room(positions)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield _bad(directory, f"config.json and document_side.json are not a decoder's ({error!r})")
        return
    if vocabulary != manifest.vocabulary:
        yield _bad(
            directory, f"its vocabulary of {vocabulary:,} is not the manifest's of {manifest.vocabulary:,} pieces"
        )
    if manifest.max_pieces - 2 > room:
        yield _bad(
            directory, f"it has room for windows of {room} pieces, and the manifest promises {manifest.max_pieces - 2}"
        )


def _bad(directory: Path, what: str) -> ConfigurationError:
    return ConfigurationError("bad_model", f"{directory}: {what}; write it again with `sparsewell train mistral`.")
