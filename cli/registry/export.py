"""An export, with what only the command knows: the settings' encoders, and which packages are there."""

from pathlib import Path
from typing import Any, get_args

from services.errors import ConfigurationError, Conflict, InvalidInput
from services.known_encoders import KnownEncoder, named_encoders
from services.manifest import Manifest
from services.settings import Settings


def carry_out(source: str, out: Path, *, replace: bool, **options: Any) -> Manifest:
    """What `models.export.order.carry_out` does, with the options of its Order by name.

    Raises what it raises; ConfigurationError (`missing_extra`), InvalidInput (`bad_option`) and Conflict
    (`encoder_name_taken`).
    """
    try:
        from models.export import order
        from models.export.graph import Precision
        from models.training.recipe_encoder import Activation
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "missing_extra", f"Exporting needs the package {error.name}: pip install -e '.[train,worker]'."
        ) from None
    for option, choices in (("precision", Precision), ("activation", Activation)):
        if options[option] not in {None, *get_args(choices)}:
            raise InvalidInput("bad_option", f"--{option} is one of {', '.join(get_args(choices))}.")
    _require_free(out)
    return order.carry_out(order.Order(source, out, replace=replace, **options))


def _require_free(out: Path) -> None:
    """Of two encoders of one name the API would give new indexes the first, so no second one is made."""
    for one in named_encoders(Settings.read()):
        if not isinstance(one.encoder, KnownEncoder) or one.encoder.manifest.name != out.resolve().name:
            continue
        if one.encoder.directory.resolve() != out.resolve():
            raise Conflict(
                "encoder_name_taken",
                f"The encoder in {one.encoder.directory} is called {out.resolve().name!r} already: choose another "
                "directory name.",
            )
