"""The directory of a chapter model: weights or adapters, a tokeniser, and a manifest that says what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.chapters.podtile.prompt import FORMAT
from services.errors import ConfigurationError
from services.manifest import MANIFEST, FileRecord, fingerprint, record, verified

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
TOKENIZER = "tokenizer.json"


class Base(BaseModel):
    """The model that adapters belong to: what `brought` takes, and the weights by which it is known again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ChapterManifest(BaseModel):
    """manifest.json of a chapter model, format `sparsewell-chapters/1`. Unknown members are kept for the reader.

    `base` is named where the files are adapters alone. `boundaries`: written by the model itself, or those of the
    engine `tiling`, which it then gives titles.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    format: Literal["sparsewell-chapters/1"] = "sparsewell-chapters/1"
    name: str = Field(min_length=1, max_length=128)
    prompt: int
    part_pieces: int = Field(ge=128)
    answer_pieces: int = Field(ge=16)
    title_pieces: int = Field(ge=64)
    ahead: float = Field(ge=0, le=0.5)
    boundaries: Literal["own", "tiling"] = "own"
    base: Base | None = None
    licence: str = "unstated"
    files: dict[str, FileRecord] = {}
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16}$")


def write_chapter_manifest(directory: Path, description: dict[str, Any], names: Collection[str]) -> ChapterManifest:
    """Writes manifest.json for the files `names` of a directory, and returns it."""
    files = {name: record(directory / name) for name in sorted(names)}
    content = {"format": "sparsewell-chapters/1", "prompt": FORMAT, **description}
    content |= {"files": {name: one.model_dump() for name, one in files.items()}}
    content["fingerprint"] = _fingerprint(content, files)
    manifest = ChapterManifest.model_validate(content)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (directory / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def read_chapter_manifest(directory: Path) -> ChapterManifest:
    """Reads and checks manifest.json and every file that it lists.

    Raises ConfigurationError: `bad_manifest`, `missing_model_file`, `corrupt_model_file`, and `other_prompt` for a
    model that was trained on another wording than this version's.
    """
    path = directory / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        manifest = ChapterManifest.model_validate(content)
    except (OSError, ValueError, RecursionError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ConfigurationError("bad_manifest", f"{path} is no manifest of a chapter model: {first}.") from None
    if _fingerprint(content, manifest.files) != manifest.fingerprint:
        raise ConfigurationError("bad_manifest", f"{path}: the fingerprint does not belong to what is listed.")
    if manifest.prompt != FORMAT:
        raise ConfigurationError(
            "other_prompt",
            f"{path}: the model was trained on prompts of format {manifest.prompt}, this version writes {FORMAT}; "
            "train it again, or use the version that it belongs to.",
        )
    for name in manifest.files:
        verified(directory, manifest, name)
    return manifest


def _fingerprint(content: dict[str, Any], files: dict[str, FileRecord]) -> str:
    """Over the files and over all that changes what is written; not over names, licence and record."""
    decisive = ("prompt", "part_pieces", "answer_pieces", "title_pieces", "ahead", "boundaries", "base")
    told = json.dumps({name: content.get(name) for name in decisive}, sort_keys=True).encode()
    beside = FileRecord(sha256=hashlib.sha256(told).hexdigest(), bytes=len(told))
    return fingerprint({**files, "": beside})
