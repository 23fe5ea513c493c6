"""Model directories that were changed on purpose, with manifests that fit their files again."""

import json
from pathlib import Path
from typing import Any

from services.encoders.manifest import FileRecord, compute_fingerprint, describe_file


def restate(directory: Path, **members: Any) -> str:
    """Changes members of a manifest and lets it list the files as they are; returns the fingerprint."""
    manifest = json.loads((directory / "manifest.json").read_text()) | members
    files: dict[str, FileRecord] = {name: describe_file(directory / name) for name in manifest["files"]}
    manifest["files"] = {name: file.model_dump() for name, file in files.items()}
    manifest["fingerprint"] = compute_fingerprint(files)
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return str(manifest["fingerprint"])
