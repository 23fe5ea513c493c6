"""What a run of the demo measured, with the machine and the versions that it ran on."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from examples.stdlib.tally import Asked, as_json

PACKAGES = ("sparsewell", "onnxruntime", "opensearch-py", "celery", "fastapi", "numpy", "tokenizers")


def record(
    asked: Sequence[Asked], corpus: Mapping[str, Any], seconds: Mapping[str, float], encoder: Mapping[str, str]
) -> dict[str, Any]:
    """The record as JSON values. ``seconds`` are by stage; ``corpus`` describes the documents."""
    return {
        "benchmark": "stdlib-demo",
        "command": "sparsewell demo --json FILE",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "encoder": dict(encoder),
        "corpus": dict(corpus),
        "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
        "answers": as_json(asked),
    }


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory and system; no host name."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Python's and the packages' versions; a package that is missing here is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
