"""The dense encoders that an installation knows: those that can be fetched, those of the settings, the stand-in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.dense_form import DenseForm, DenseIdentity, dense_fingerprint
from services.environment import listed
from services.errors import ConfigurationError, InvalidInput
from services.known_models import SHA256, known_models
from services.manifest import NAME, WindowSettings, as_path
from services.settings import Settings

DENSE_MANIFEST = "dense.json"
STANDIN = "standin-dense"


class DenseManifest(BaseModel):
    """dense.json in the directory of a dense encoder of one's own; `files` are their sha256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["sparsewell-dense/1"]
    name: str = Field(pattern=f"^{NAME}$")
    width: int = Field(ge=1, le=4096)
    form: DenseForm
    window: WindowSettings
    licence: str
    files: dict[Literal["model.onnx", "tokenizer.json"], Annotated[str, Field(pattern=SHA256)]] = Field(min_length=2)


@dataclass(frozen=True, slots=True)
class KnownDense:
    """A dense encoder by what its vectors depend on. `directory` is None for what is fetched, and for the stand-in."""

    identity: DenseIdentity
    form: DenseForm
    licence: str
    directory: Path | None = None


def known_dense(settings: Settings) -> dict[str, KnownDense]:
    """By name. Raises ConfigurationError (`bad_dense_encoder`) for a directory of the settings that cannot be used."""
    found = {STANDIN: _standin()}
    for name, model in known_models().items():
        if model.form is not None and model.window is not None:
            files = {file: member.sha256 for file, member in model.files.items()}
            found[name] = _known(name, model.width, files, model.form, model.window, model.licence)
    for given in listed(settings.dense_encoders):
        one = _of_directory(as_path(given))
        found[one.identity.name] = one
    return found


def find_dense(known: Mapping[str, KnownDense], name: str) -> KnownDense:
    """The encoder of that name. Raises InvalidInput (`unknown_dense_encoder`)."""
    if name not in known:
        names = ", ".join(sorted(known))
        raise InvalidInput("unknown_dense_encoder", f"No dense encoder is called {name[:80]!r} (known: {names}).")
    return known[name]


def dense_identity(known: Mapping[str, KnownDense], name: str) -> DenseIdentity:
    """The identity of the encoder of that name. Raises InvalidInput (`unknown_dense_encoder`)."""
    return find_dense(known, name).identity


def _known(
    name: str, width: int, files: Mapping[str, str], form: DenseForm, window: WindowSettings, licence: str
) -> KnownDense:
    fingerprint = dense_fingerprint(files, form)
    return KnownDense(DenseIdentity(name=name, fingerprint=fingerprint, width=width, window=window), form, licence)


def _standin() -> KnownDense:
    """No model: sums of random vectors of the pieces. See `models.dense.standin`."""
    return _known(STANDIN, 32, {"rule": "1"}, DenseForm(), WindowSettings(pieces=64, overlap=8), "Apache-2.0")


def _of_directory(directory: Path) -> KnownDense:
    path = directory / DENSE_MANIFEST
    try:
        manifest = DenseManifest.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
        raise ConfigurationError("bad_dense_encoder", f"{path} cannot be used: {reason}.") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_dense_encoder", f"{path} cannot be used: {error}.") from None
    files = {str(name): digest for name, digest in manifest.files.items()}
    known = _known(manifest.name, manifest.width, files, manifest.form, manifest.window, manifest.licence)
    return KnownDense(known.identity, known.form, known.licence, directory)
