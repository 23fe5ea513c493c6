"""Changed copies of model directories, with manifests that match the changed files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.encoders.manifest import FileRecord, compute_fingerprint, describe_file

Copy = Callable[[str, str], Path]


def restate(directory: Path, **members: Any) -> str:
    """Change members of a manifest, update its file list and return the new fingerprint."""
    manifest = json.loads((directory / "manifest.json").read_text()) | members
    files: dict[str, FileRecord] = {name: describe_file(directory / name) for name in manifest["files"]}
    manifest["files"] = {name: file.model_dump() for name, file in files.items()}
    manifest["fingerprint"] = compute_fingerprint(files)
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return str(manifest["fingerprint"])
