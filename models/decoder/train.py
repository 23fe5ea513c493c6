"""`sparsewell train mistral START PAIRS... --out DIR`: Mistral-SPLADE with a table on the query side.

START is a directory with config.json, model.safetensors and tokenizer.json (`python -m models.decoder.start smollm2`
makes one), or a name like mistralai/Mistral-7B-v0.1 where there is a network. PAIRS are files of
{"query": ..., "passage": ...} a line. Stopped or killed, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from models.decoder.recipe import DecoderRecipe
from services.errors import SparsewellError

log = logging.getLogger("models.decoder")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sparsewell train mistral",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("start")
    parser.add_argument("pairs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="model directory; its name becomes the encoder's")
    parser.add_argument("--recipe", type=Path, help="JSON of a recipe; options below win over it")
    parser.add_argument("--licence", default="unstated", help="of the decoder's weights, for the manifest")
    parser.add_argument("--adapters", type=Path, help="a checkpoint directory whose trained parameters are taken over")
    for name, field in DecoderRecipe.model_fields.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default=None, metavar=str(field.default), dest=name)
    return parser.parse_args(argv)


def read_recipe(path: Path | None, options: dict[str, str]) -> DecoderRecipe:
    """A recipe of a file and of options as text. Raises ValidationError."""
    written = DecoderRecipe.model_validate_json(path.read_bytes()).model_dump() if path else {}
    return DecoderRecipe.model_validate({**written, **options}, strict=False)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    from transformers.utils.logging import disable_progress_bar

    from models.decoder.training import train_decoder

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    disable_progress_bar()
    arguments = _arguments(argv)
    given = {name: value for name in DecoderRecipe.model_fields if (value := getattr(arguments, name)) is not None}
    try:
        recipe = read_recipe(arguments.recipe, given)
        done = train_decoder(
            recipe,
            arguments.start,
            arguments.pairs,
            arguments.out,
            licence=arguments.licence,
            adapters=arguments.adapters,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise SystemExit(f"{'.'.join(map(str, first['loc'])) or 'recipe'}: {first['msg']}") from None
    except (SparsewellError, OSError) as error:
        raise SystemExit(str(error)) from None
    log.info("%s has the fingerprint %s, trained in %.0f s", done.directory, done.fingerprint, done.seconds)


if __name__ == "__main__":
    main()
