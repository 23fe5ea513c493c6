"""Directory of a training run: one recipe, one process, and checkpoints that are complete.

`begin_run` binds a directory to a recipe and its pair files, `claim_run_directory` to any description of a run.
`hold_run_directory` keeps other processes out. `mark_complete`, `last_checkpoint`, `drop_unfinished` and
`copy_checkpoint` handle the checkpoints from which a run resumes: files are compared with their checksums before use.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from models.training.recipe import TrainingRecipe
from services.encoders.manifest import NAME_PATTERN, describe_file
from services.errors import ConfigurationError

log = logging.getLogger("models.training")
CHECKPOINTS, RUN_FILE, COMPLETE_FILE = "checkpoints", "run.json", "complete.json"
# Names of a run's own directories, which lie beside the encoder.
_RUN_ENTRIES = (
    "best", CHECKPOINTS, "vectors", "questions", RUN_FILE, "run.lock", "start.lock", "curve.jsonl", "pairs.jsonl.gz",
    "report.md", "report.json", "quality.png", "learning.png", "weights.png",
)  # fmt: skip
START_PREFIX = "start-"  # the fingerprint of the exported encoder follows


def is_main_process() -> bool:
    """Tell whether this process writes the run's files: the first of several devices does (accelerate sets RANK)."""
    return os.environ.get("RANK", "0") == "0"


def checked_encoder_name(name: str) -> str:
    """Return the name if a manifest may have it. Raises ConfigurationError (`bad_encoder_name`)."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigurationError(
            "bad_encoder_name",
            f"{name!r} cannot be an encoder's name: at most 64 lower-case letters, digits, dots, dashes, underscores. "
            "Say --name.",
        )
    if name in _RUN_ENTRIES or name.startswith(START_PREFIX):
        raise ConfigurationError(
            "bad_encoder_name", f"A run has a file or directory of its own called {name}: choose another --name."
        )
    return name


@contextmanager
def hold_run_directory(out: Path) -> Iterator[None]:
    """Lock the run's directory, because two commands would write one curve. Among several devices, the first locks it.

    Raises ConfigurationError (`run_in_progress`).
    """
    if not is_main_process():
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(out / "run.lock").acquire(blocking=False)
    except Timeout:
        raise ConfigurationError(
            "run_in_progress", f"Another process works in {out}: wait for it, or give another directory."
        ) from None
    with lock:
        yield


def begin_run(recipe: TrainingRecipe, out: Path) -> None:
    """Record the recipe in a new run's directory, or check that the directory's recipe is the same.

    A directory holds one run, so that its learning curve has one meaning. Raises ConfigurationError (`recipe_changed`).
    """
    out.mkdir(parents=True, exist_ok=True)
    if not is_same_run(recipe, out) and is_main_process():
        fresh = out / f"{RUN_FILE}.part"
        fresh.write_text(json.dumps(run_identity(recipe, out), indent=2) + "\n", encoding="utf-8")
        fresh.replace(out / RUN_FILE)


def is_same_run(recipe: TrainingRecipe, out: Path) -> bool:
    """Tell whether `out` holds a run of this recipe. Raises ConfigurationError (`recipe_changed`) for another."""
    path = out / RUN_FILE
    if not path.is_file():
        return False
    if json.loads(path.read_text(encoding="utf-8")) != run_identity(recipe, out):
        raise ConfigurationError(
            "recipe_changed",
            f"{out} holds a run of another recipe, or of other pairs in the same files: give another directory, or "
            "remove that one.",
        )
    return True


def run_identity(recipe: TrainingRecipe, out: Path) -> dict[str, Any]:
    """Return the identity of a run: the recipe and the contents of its pair files.

    The path of `out` is not part of it: a run may be copied, or have several paths.
    """
    identity: dict[str, Any] = json.loads(recipe.model_dump_json())
    for entry, source in zip(identity["pairs"], recipe.pairs, strict=True):
        with source.path.open("rb") as file:
            entry["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        if source.path.parent == out:
            entry["path"] = source.path.name
    # an exported start is reopened into the run's directory, or into that of its ablation
    if Path(recipe.start).parent in (out, out.parent) and Path(recipe.start).name.startswith(START_PREFIX):
        identity["start"] = Path(recipe.start).name
    return identity


def claim_run_directory(work: Path, run: dict[str, Any], parts: str) -> None:
    """Create the directory of the checkpoints, or check that it belongs to this run.

    `run` identifies a run, `parts` names its parts for the error. A run that ended before its first checkpoint may be
    replaced, so a changed setting does not require removing the directory. Raises ConfigurationError
    (`other_training`).
    """
    path, content = work / RUN_FILE, json.dumps(run, indent=2, sort_keys=True) + "\n"
    work.mkdir(parents=True, exist_ok=True)
    if not path.exists() or not any(work.glob("checkpoint-*")):
        path.write_text(content, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != content:
        raise ConfigurationError(
            "other_training", f"{work} holds checkpoints of another {parts}: remove it, or choose another --out."
        )


def mark_complete(directory: Path, step: int) -> None:
    """Mark a checkpoint as completely written, with the checksums of its files.

    The states of random generators are left out: other devices may still write theirs.
    """
    files = {
        path.relative_to(directory).as_posix(): describe_file(path).sha256
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.startswith("rng_state") and path.name != COMPLETE_FILE
    }
    (directory / COMPLETE_FILE).write_text(
        json.dumps({"step": step, "files": files}, indent=1) + "\n", encoding="utf-8"
    )


def last_checkpoint(directory: Path) -> Path | None:
    """Return the newest complete checkpoint. A killed run or a failing disk can leave a damaged one."""
    steps = {int(name): path for path in directory.glob("checkpoint-*") if (name := path.name[11:]).isdigit()}
    return next((steps[step] for step in sorted(steps, reverse=True) if _is_complete(steps[step])), None)


def drop_unfinished(directory: Path) -> None:
    """Remove checkpoints without their mark, and checkpoints whose files differ from it."""
    for path in directory.glob("checkpoint-*"):
        if path.is_dir() and not _is_complete(path):
            shutil.rmtree(path)


def copy_checkpoint(directory: Path, to: Path) -> None:
    """Copy a checkpoint into the directory `to`, in place of older ones. A failed copy is logged; the run continues."""
    target, partial = to / directory.name, to / f".{directory.name}.part"
    try:
        to.mkdir(parents=True, exist_ok=True)
        for stale in (target, partial):
            shutil.rmtree(stale, ignore_errors=True)
        shutil.copytree(directory, partial)
        partial.rename(target)
        for older in to.glob("checkpoint-*"):
            if older != target:
                shutil.rmtree(older, ignore_errors=True)
    except OSError as error:
        log.warning("%s was not copied to %s (%s); the run continues", directory.name, to, error.strerror or error)


def describe_kept_checkpoint(directory: Path) -> str:
    """Describe the checkpoint that a stopped run leaves, in a sentence."""
    checkpoint = last_checkpoint(directory)
    return f"The last good checkpoint is {checkpoint}." if checkpoint else "There was no checkpoint yet."


def _is_complete(path: Path) -> bool:
    try:
        files = json.loads((path / COMPLETE_FILE).read_bytes()).get("files", {})
    except (OSError, ValueError):
        return False
    damaged = [name for name, sha256 in files.items() if not _has_sha256(path / name, sha256)]
    if damaged:
        log.warning("%s is damaged (%s) and is skipped", path, ", ".join(damaged))
    return not damaged


def _has_sha256(path: Path, sha256: str) -> bool:
    return path.is_file() and describe_file(path).sha256 == sha256
