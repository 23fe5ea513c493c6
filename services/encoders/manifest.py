"""The manifest of a model directory: which files it holds, their checksums, and the fingerprint of the encoder.

The fingerprint identifies the vectors: two directories with the same one give the same vectors and weight queries with
the same table. The module also describes dense encoders (`DenseForm`, `DenseIdentity`).
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from services.errors import ConfigurationError

# The largest vocabularies of encoders in use have 256,000 pieces. A dense query table of so many has 400 MB.
MAX_VOCABULARY = 262_144
MANIFEST_FILE = "manifest.json"
# Names of encoders.
NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,63}"
WEIGHTS_ROOT = Path(__file__).resolve().parents[2] / "models" / "weights"


class FileRecord(BaseModel):
    """Checksum and size of one file of a model directory."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class WindowSettings(BaseModel):
    """The windows of long texts: their pieces without special pieces, and the pieces that neighbours share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pieces: int = Field(strict=True, ge=16, le=8192)
    overlap: int = Field(strict=True, ge=0)

    def model_post_init(self, _context: Any) -> None:
        if self.overlap * 2 > self.pieces:
            raise ValueError("overlap may be at most half of pieces")


class Pooling(StrEnum):
    """The positions that a text's vector is computed from."""

    first = "first"
    mean = "mean"


class DenseForm(BaseModel):
    """The form of a dense model: the texts that it takes, and the pooling of its positions.

    It reads `max_pieces` at once, including special pieces and the prefix. Vectors have length 1, so a dot product is a
    cosine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pooling: Pooling = Pooling.mean
    query_prefix: str = ""
    passage_prefix: str = ""
    max_pieces: int = Field(512, ge=3)

    def cut(self, max_pieces: int | None) -> "DenseForm":
        """Return the form with another limit on pieces, or itself for None."""
        return self if max_pieces is None else self.model_copy(update={"max_pieces": max_pieces})


class DenseOutput(BaseModel):
    """The dense vectors that a sparse encoder gives beside its weights: their width, and the form of their model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(ge=1, le=4096)
    form: DenseForm


def _refuse_lane_name(name: str) -> str:
    """Refuse names such as `x.load.3`: the queue of this encoder would be a load lane of the encoder `x`."""
    if re.search(r"\.load\.\d+$", name):
        raise ValueError("a name must not end with `.load.` and a number, which is the name of a queue")
    return name


class Manifest(BaseModel):
    """The content of manifest.json, format `sparsewell-encoder/1`. Unknown members are kept for the reader."""

    model_config = ConfigDict(extra="allow", frozen=True)

    format: Literal["sparsewell-encoder/1"]
    name: Annotated[str, AfterValidator(_refuse_lane_name)] = Field(pattern=f"^{NAME_PATTERN}$")
    architecture: str
    vocabulary: int = Field(ge=1, le=MAX_VOCABULARY)
    max_pieces: int = Field(ge=16)
    window: WindowSettings
    top_k: int = Field(ge=1)
    licence: str
    files: dict[str, FileRecord]
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16}$")
    # Dense vectors from the same pass; None: the encoder gives sparse weights alone.
    dense: DenseOutput | None = None
    # Document frequencies of the pieces in a reference corpus. They change no vector, so `files` does not list them.
    reference: FileRecord | None = None
    # The score of a text for its own first words, divided by the weight of the query: the median over texts. It is the
    # scale of `min_score` (docs/decisions/0258).
    full_match: float | None = Field(None, gt=0)
    # Mean and covariance of dense vectors of general passages, which a refit needs. They change no vector either.
    moments: FileRecord | None = None


def read_manifest(directory: Path) -> Manifest:
    """Read manifest.json and check it against its fingerprint. Raises ConfigurationError (`bad_manifest`)."""
    path = directory / MANIFEST_FILE
    try:
        manifest = Manifest.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            "bad_manifest", f"{path} cannot be used: {_reason(error)}; fetch or export the encoder again."
        ) from None
    if compute_fingerprint(manifest.files) != manifest.fingerprint:
        raise ConfigurationError(
            "bad_manifest", f"{path}: the fingerprint does not match the listed files; export the encoder again."
        )
    return manifest


def _reason(error: Exception) -> str:
    """Return the reason of an error on one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"it is not JSON ({error})"


def compute_fingerprint(files: dict[str, FileRecord]) -> str:
    """Return the first 16 hex digits of the sha256 over the lines `name:sha256`, sorted by name.

    Two directories with the same fingerprint give the same vectors and weight queries with the same table.
    """
    lines = "".join(f"{name}:{files[name].sha256}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def describe_file(path: Path) -> FileRecord:
    """Return checksum and size of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(sha256=digest, bytes=path.stat().st_size)


class FileManifest(Protocol):
    """The manifest of any kind of model."""

    @property
    def files(self) -> dict[str, FileRecord]: ...


def verify_file(directory: Path, manifest: FileManifest, name: str) -> Path:
    """Check a listed file against its checksum and return its path.

    Raises ConfigurationError (`bad_manifest`, `missing_model_file`, `corrupt_model_file`).
    """
    path = directory / name
    record = manifest.files.get(name)
    if record is None:
        raise ConfigurationError("bad_manifest", f"{directory / MANIFEST_FILE} does not list the file {name}.")
    check_file(path, record)
    return path


def check_file(path: Path, record: FileRecord) -> None:
    """Check a file against its record. Raises ConfigurationError (`missing_model_file`, `corrupt_model_file`)."""
    if not path.is_file():
        raise ConfigurationError("missing_model_file", f"{path} is missing; fetch or export the encoder again.")
    if describe_file(path).sha256 != record.sha256:
        raise ConfigurationError(
            "corrupt_model_file",
            f"{path} differs from its checksum in the manifest; fetch or export the encoder again.",
        )


def resolve_model_directory(name_or_path: str) -> Path:
    """Return the directory of the shipped weights of that name, or the path itself; a name with a slash is a path.

    Raises ConfigurationError: `unknown_encoder`, and `ambiguous_encoder` if a shipped encoder and a different encoder
    in the working directory have that name.
    """
    path = expand_path(name_or_path)
    candidates = [path] if is_path(name_or_path) else [WEIGHTS_ROOT / name_or_path, path]
    matches = [directory for directory in candidates if has_manifest(directory)]
    if len(matches) > 1 and (matches[0] / MANIFEST_FILE).read_bytes() != (matches[1] / MANIFEST_FILE).read_bytes():
        raise ConfigurationError(
            "ambiguous_encoder",
            f"{name_or_path!r} is the shipped encoder in {matches[0]} and another encoder in {path.absolute()}: "
            f"write ./{name_or_path} for the latter, or rename it.",
        )
    if matches:
        return matches[0]
    names = [directory.name for directory in list_shipped_directories()]
    raise ConfigurationError(
        "unknown_encoder",
        f"There is no encoder {name_or_path!r}: it is neither a directory with a {MANIFEST_FILE} "
        f"nor one of the shipped ones ({', '.join(names) or 'none'}).",
    )


def expand_path(name: str) -> Path:
    """Return the path with `~` expanded; an unknown user's home is left as it is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def is_path(name_or_path: str) -> bool:
    """Return whether the text can only be a path."""
    return "/" in name_or_path or os.sep in name_or_path


def has_manifest(directory: Path) -> bool:
    """Return whether the directory holds a manifest.json; False for an invalid path (too long, unreadable)."""
    try:
        return (directory / MANIFEST_FILE).is_file()
    except (OSError, ValueError):
        return False


def list_model_directories(folder: Path) -> list[Path]:
    """Return the model directories in a folder, by name. Hidden ones are unfinished exports and left out.

    Raises OSError if the folder cannot be listed.
    """
    return sorted(child for child in folder.iterdir() if not child.name.startswith(".") and has_manifest(child))


def list_shipped_directories() -> list[Path]:
    """Return the model directories of the shipped weights, by name; empty if the weights are not installed."""
    return list_model_directories(WEIGHTS_ROOT) if WEIGHTS_ROOT.is_dir() else []


class DenseIdentity(BaseModel):
    """The dense encoder and the windows of a generation's vectors.

    Vectors of different identities are never compared. `window` is that of a pass for dense vectors alone: the
    vectors of an index's own encoder are those of the index's windows.
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=f"^{NAME_PATTERN}$")
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16}$")
    width: int = Field(ge=1, le=4096, description="numbers of a vector")
    window: WindowSettings


def dense_fingerprint(files: Mapping[str, str], form: DenseForm) -> str:
    """Return the first 16 hex digits of the sha256 over the files' checksums (by name) and the form."""
    value = orjson.dumps([sorted(files.items()), form.model_dump(mode="json")], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(value).hexdigest()[:16]
