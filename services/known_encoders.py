"""The encoders that an installation knows: the configured one, further ones from the settings, the shipped ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.environment import listed
from services.errors import ConfigurationError
from services.manifest import (
    MANIFEST,
    Manifest,
    as_path,
    has_manifest,
    is_path,
    model_folders,
    read_manifest,
    resolve,
    shipped_directories,
)
from services.settings import Settings

Origin = Literal["configured", "given", "further", "shipped"]


@dataclass(frozen=True, slots=True)
class KnownEncoder:
    """A model directory and what its manifest says."""

    directory: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Named:
    """A directory that is named as an encoder's, and who named it: an encoder, or why it is none."""

    origin: Origin
    directory: Path
    encoder: KnownEncoder | ConfigurationError


def named_encoders(settings: Settings, further: Sequence[str] = ()) -> list[Named]:
    """Every encoder that the settings, `further` (names or paths) or the shipped weights name, each directory once."""
    asked: list[tuple[Origin, str]] = [("configured", settings.encoder)]
    asked += [("given", name) for name in further]
    asked += [("further", name) for name in listed(settings.more_encoders)]
    asked += [("shipped", str(directory)) for directory in shipped_directories()]
    named: dict[str, Named] = {}
    for origin, name in asked:
        directory, found = Path(name), None
        try:
            directory = resolve(name)
            found = KnownEncoder(directory, read_manifest(directory))
        except ConfigurationError as error:
            named.setdefault(str(directory.absolute()), Named(origin, directory, error))
        else:
            named.setdefault(str(directory.resolve()), Named(origin, directory, found))
    return list(named.values())


def known_encoders(settings: Settings, *further: str) -> list[KnownEncoder]:
    """The configured encoder first, each fingerprint once; `further` are more names or paths.

    Raises ConfigurationError for a directory that cannot be used.
    """
    found: dict[str, KnownEncoder] = {}
    for one in named_encoders(settings, further):
        if isinstance(one.encoder, ConfigurationError):
            raise one.encoder
        found.setdefault(one.encoder.manifest.fingerprint, one.encoder)
    return list(found.values())


def model_directories(path: Path) -> list[Path]:
    """The model directories in a folder; the path itself when it is one, or when there is none in it.

    Raises ConfigurationError (`unknown_encoder`) for what is no folder.
    """
    try:
        inside = model_folders(path)
    except OSError as error:
        raise ConfigurationError(
            "unknown_encoder",
            f"{path} cannot be listed ({error.strerror}): name a model directory or a folder of them.",
        ) from None
    return [path] if has_manifest(path) or not inside else inside


def find_encoder(named: Sequence[Named], name: str) -> KnownEncoder:
    """The one encoder that is meant by a path, by a fingerprint, or by the name of the encoder or of its directory.

    Raises ConfigurationError: the directory's own error where it cannot be used, `unknown_encoder`, and
    `ambiguous_encoder` where encoders of different fingerprints bear the name.
    """
    path = as_path(name)
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
        f"No encoder is called {name!r} (known: {', '.join(known) or 'none'}), and there is no {MANIFEST} in "
        "a directory of that name.",
    )
