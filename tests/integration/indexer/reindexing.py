"""Provide encoders to reindex to, and run the commands as a user does."""

import json
import shutil
from pathlib import Path

from infra.stack import settings_environment
from services.encoders.manifest import MANIFEST_FILE, WEIGHTS_ROOT, compute_fingerprint, describe_file
from services.settings import Settings
from tests.preloaded import run_sparsewell

FILES = ("tokenizer.json", "query_weights.json")


def another_encoder(directory: Path, *, spoilt: bool = False) -> Path:
    """Write the stand-in under another name with another table. A `spoilt` encoder does not know numbers."""
    source = WEIGHTS_ROOT / "standin"
    directory.mkdir(parents=True)
    shutil.copy(source / "tokenizer.json", directory)
    table = json.loads((source / "query_weights.json").read_bytes())
    weights = {piece: 0.0 if spoilt and piece.strip("#").isdigit() else weight / 2 for piece, weight in table.items()}
    (directory / "query_weights.json").write_text(json.dumps(weights))
    manifest = json.loads((source / MANIFEST_FILE).read_bytes())
    files = {name: describe_file(directory / name) for name in FILES}
    manifest |= {
        "name": directory.name,
        "files": {name: one.model_dump() for name, one in files.items()},
        "fingerprint": compute_fingerprint(files),
    }
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest))
    return directory


def command_environment(settings: Settings) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path.cwd()), **settings_environment(settings)}


def run_command(settings: Settings, *arguments: str, seconds: float = 120) -> tuple[int, str]:
    """Run a `sparsewell` command to its end and return the exit status and all output."""
    done = run_sparsewell(*arguments, environment=command_environment(settings), timeout=seconds, merged=True)
    return done.returncode, done.stdout
