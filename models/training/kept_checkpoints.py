"""The checkpoints that a run goes on from: whole or not there, compared before they are used, copied out."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from services.manifest import record

log = logging.getLogger("models.training")
COMPLETE = "complete.json"


def mark_whole(directory: Path, step: int) -> None:
    """Says that a checkpoint was written to its end, and what its files hold.

    States of random numbers are left out: other devices may still write theirs.
    """
    files = {
        path.relative_to(directory).as_posix(): record(path).sha256
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.startswith("rng_state") and path.name != COMPLETE
    }
    (directory / COMPLETE).write_text(json.dumps({"step": step, "files": files}, indent=1) + "\n", encoding="utf-8")


def last_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint that is whole; a run that is killed while it saves leaves half of one, a disk worse."""
    steps = {int(name): path for path in directory.glob("checkpoint-*") if (name := path.name[11:]).isdigit()}
    return next((steps[step] for step in sorted(steps, reverse=True) if _whole(steps[step])), None)


def drop_unfinished(directory: Path) -> None:
    """Removes checkpoints without their mark, and those whose files are not what it says."""
    for path in directory.glob("checkpoint-*"):
        if path.is_dir() and not _whole(path):
            shutil.rmtree(path)


def copy_checkpoint(directory: Path, to: Path) -> None:
    """Puts a copy into the directory `to`, in place of an older one. A copy that fails costs the copy, not the run."""
    made, part = to / directory.name, to / f".{directory.name}.part"
    try:
        to.mkdir(parents=True, exist_ok=True)
        for stale in (made, part):
            shutil.rmtree(stale, ignore_errors=True)
        shutil.copytree(directory, part)
        part.rename(made)
        for older in to.glob("checkpoint-*"):
            if older != made:
                shutil.rmtree(older, ignore_errors=True)
    except OSError as error:
        log.warning("%s was not copied to %s (%s); the run goes on", directory.name, to, error.strerror or error)


def _whole(path: Path) -> bool:
    try:
        files = json.loads((path / COMPLETE).read_bytes()).get("files", {})
    except (OSError, ValueError):
        return False
    damaged = [name for name, sha256 in files.items() if not _is(path / name, sha256)]
    if damaged:
        log.warning("%s is damaged (%s) and is passed over", path, ", ".join(damaged))
    return not damaged


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and record(path).sha256 == sha256
