"""The directory of a training run's checkpoints, which belong to one recipe and one set of texts."""

import json
from pathlib import Path
from typing import Any

from services.errors import ConfigurationError

RUN = "run.json"


def claim(work: Path, run: dict[str, Any], what: str) -> None:
    """Makes the directory of the checkpoints, or sees that it is this run's.

    `run` is what a run is known by, `what` the same in words. One that ended before its first checkpoint leaves nothing
    to lose, and whoever was told to change a setting shall not have to remove it. Raises ConfigurationError
    (`other_training`).
    """
    path, content = work / RUN, json.dumps(run, indent=2, sort_keys=True) + "\n"
    work.mkdir(parents=True, exist_ok=True)
    if not path.exists() or not any(work.glob("checkpoint-*")):
        path.write_text(content, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != content:
        raise ConfigurationError(
            "other_training", f"{work} holds checkpoints of another {what}: remove it, or choose another --out."
        )
