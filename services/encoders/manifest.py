"""The manifest of a model directory: what the files are, that they are unchanged, and the encoder's fingerprint.

How a dense model is used, and what tells its vectors from those of every other.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.errors import ConfigurationError

MANIFEST_FILE = "manifest.json"
# What an encoder may be called.
NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,63}"
# Vectors keep a vocabulary id in two bytes.
MAX_VOCABULARY = 65_536
WEIGHTS_ROOT = Path(__file__).resolve().parents[2] / "models" / "weights"


class FileRecord(BaseModel):
    """Checksum and size of one file of a model directory."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class WindowSettings(BaseModel):
    """How long texts are cut: pieces of a window without the special ones, and pieces that neighbours share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pieces: int = Field(strict=True, ge=16, le=8192)
    overlap: int = Field(strict=True, ge=0)

    def model_post_init(self, _context: Any) -> None:
        if self.overlap * 2 > self.pieces:
            raise ValueError("overlap may be at most half of pieces")


class Manifest(BaseModel):
    """manifest.json of a model directory, format `sparsewell-encoder/1`. Unknown members are kept for the reader."""

    model_config = ConfigDict(extra="allow", frozen=True)

    format: Literal["sparsewell-encoder/1"]
    name: str = Field(pattern=f"^{NAME_PATTERN}$")
    architecture: str
    vocabulary: int = Field(ge=1, le=MAX_VOCABULARY)
    max_pieces: int = Field(ge=16)
    window: WindowSettings
    top_k: int = Field(ge=1)
    licence: str
    files: dict[str, FileRecord]
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16}$")


def compute_fingerprint(files: dict[str, FileRecord]) -> str:
    """First 16 hex digits of the sha256 over the lines `name:sha256`, sorted by name.

    Two directories with the same fingerprint give the same vectors and read queries with the same table.
    """
    lines = "".join(f"{name}:{files[name].sha256}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def describe_file(path: Path) -> FileRecord:
    """Reads a file once and describes it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(sha256=digest, bytes=path.stat().st_size)


def resolve_model_directory(name_or_path: str) -> Path:
    """The directory of shipped weights of that name, or the path as given; what has a slash is a path.

    Raises ConfigurationError: `unknown_encoder`, and `ambiguous_encoder` where a shipped encoder and a directory here
    are both meant by it and are not the same encoder.
    """
    here = expand_path(name_or_path)
    places = [here] if is_path(name_or_path) else [WEIGHTS_ROOT / name_or_path, here]
    found = [directory for directory in places if has_manifest(directory)]
    if len(found) > 1 and (found[0] / MANIFEST_FILE).read_bytes() != (found[1] / MANIFEST_FILE).read_bytes():
        raise ConfigurationError(
            "ambiguous_encoder",
            f"{name_or_path!r} is the shipped encoder in {found[0]} and another one in {here.absolute()}: "
            f"write ./{name_or_path} for that one, or rename it.",
        )
    if found:
        return found[0]
    names = [directory.name for directory in list_shipped_directories()]
    raise ConfigurationError(
        "unknown_encoder",
        f"There is no encoder {name_or_path!r}: it is neither a directory with a {MANIFEST_FILE} "
        f"nor one of the shipped ones ({', '.join(names) or 'none'}).",
    )


def expand_path(name: str) -> Path:
    """The path that a person means, `~` read as their home; what stands for nobody's home is left as it is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def list_model_directories(folder: Path) -> list[Path]:
    """The model directories in a folder, by name. A hidden one is the unfinished work of an export beside it.

    Raises OSError where the folder cannot be listed.
    """
    return sorted(child for child in folder.iterdir() if not child.name.startswith(".") and has_manifest(child))


def list_shipped_directories() -> list[Path]:
    """The model directories of the shipped weights, by name; none where they were left out."""
    return list_model_directories(WEIGHTS_ROOT) if WEIGHTS_ROOT.is_dir() else []


def is_path(name_or_path: str) -> bool:
    """Whether it can only be meant as a path."""
    return "/" in name_or_path or os.sep in name_or_path


def has_manifest(directory: Path) -> bool:
    """Whether a file manifest.json is there; False for what cannot be a path (too long, unreadable)."""
    try:
        return (directory / MANIFEST_FILE).is_file()
    except (OSError, ValueError):
        return False


def read_manifest(directory: Path) -> Manifest:
    """Reads manifest.json and checks it against its own fingerprint. Raises ConfigurationError (`bad_manifest`)."""
    path = directory / MANIFEST_FILE
    try:
        manifest = Manifest.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            "bad_manifest", f"{path} cannot be used: {_reason(error)}; fetch or export the encoder again."
        ) from None
    if compute_fingerprint(manifest.files) != manifest.fingerprint:
        raise ConfigurationError(
            "bad_manifest", f"{path}: the fingerprint does not belong to the listed files; export the encoder again."
        )
    return manifest


def _reason(error: Exception) -> str:
    """On one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"it is not JSON ({error})"


class FileManifest(Protocol):
    """A manifest of any kind of model."""

    @property
    def files(self) -> dict[str, FileRecord]: ...


def verify_file(directory: Path, manifest: FileManifest, name: str) -> Path:
    """The path of a listed file, after its checksum was compared. Raises ConfigurationError."""
    path = directory / name
    wanted = manifest.files.get(name)
    if wanted is None:
        raise ConfigurationError("bad_manifest", f"{directory / MANIFEST_FILE} does not list the file {name}.")
    if not path.is_file():
        raise ConfigurationError("missing_model_file", f"{path} is missing; fetch or export the encoder again.")
    if describe_file(path).sha256 != wanted.sha256:
        raise ConfigurationError(
            "corrupt_model_file", f"{path} is not the file that its manifest lists; fetch or export the encoder again."
        )
    return path


class Pooling(StrEnum):
    """Which positions a text's vector comes from."""

    first = "first"
    mean = "mean"


class DenseForm(BaseModel):
    """How a model wants its texts and what becomes of its positions. It reads `max_pieces` at once, the special ones
    and the prefix included. Vectors have length 1, so that a dot product is a cosine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pooling: Pooling = Pooling.mean
    query_prefix: str = ""
    passage_prefix: str = ""
    max_pieces: int = Field(512, ge=3)

    def cut(self, max_pieces: int | None) -> "DenseForm":
        """The same with another limit, if one is given."""
        return self if max_pieces is None else self.model_copy(update={"max_pieces": max_pieces})


class DenseIdentity(BaseModel):
    """Which dense encoder made the vectors of a generation, and of which windows. Vectors of two never meet."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=f"^{NAME_PATTERN}$")
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16}$")
    width: int = Field(ge=1, le=4096, description="numbers of a vector")
    window: WindowSettings


def dense_fingerprint(files: Mapping[str, str], form: DenseForm) -> str:
    """First 16 hex digits of the sha256 over the files' own (by name) and the form: what a vector depends on."""
    value = orjson.dumps([sorted(files.items()), form.model_dump(mode="json")], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(value).hexdigest()[:16]
