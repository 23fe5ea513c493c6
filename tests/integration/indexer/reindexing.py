"""Provide encoders to reindex to, and run the commands as a user does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from infra.stack import settings_environment
from services.encoders.manifest import MANIFEST_FILE, WEIGHTS_ROOT, compute_fingerprint, describe_file
from services.settings import Settings

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


def start_command(settings: Settings, *arguments: str) -> "subprocess.Popen[str]":
    """Start a `sparsewell` command with the test's settings. The caller must wait for it or kill it."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path.cwd()), **settings_environment(settings)}
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path.cwd(),
    )  # fmt: skip


def run_command(settings: Settings, *arguments: str, seconds: float = 120) -> tuple[int, str]:
    """Return the exit status and all output."""
    with start_command(settings, *arguments) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, output
