"""Provenance of figures: the commit, the machine and the package versions, recorded beside a result.

Two results can be compared only if these are known. A record has the processor, the cores and the system of the
machine, and neither its name nor its user.
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Packages whose versions a result records, by kind of measurement.
CHAPTER_PACKAGES = (
    "sparsewell",
    "segeval",
    "rouge-score",
    "nltk",
    "numpy",
    "onnxruntime",
    "tokenizers",
    "torch",
    "transformers",
)
COLLECTION_PACKAGES = ("sparsewell", "ir_measures", "pytrec_eval-terrier", "httpx", "tokenizers", "numpy")
DEMONSTRATION_PACKAGES = ("sparsewell", "onnxruntime", "opensearch-py", "celery", "fastapi", "numpy", "tokenizers")
_SOURCE_DIRECTORY = Path(__file__).resolve().parent.parent.parent


def write_result(path: Path, result: Mapping[str, Any], indent: int = 2) -> None:
    """Write a result as JSON, and make its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def collect_provenance(packages: Iterable[str]) -> dict[str, Any]:
    """Return the time in UTC, commit, machine and package versions."""
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": source_commit(),
        "machine": describe_machine(),
        "versions": package_versions(packages),
    }


def describe_machine() -> dict[str, Any]:
    """Return processor, cores and system, without names of the machine or its user."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": _processor_name(), "cores": usable, "system": platform.system(), "machine": platform.machine()}


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of the installed packages."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def source_commit() -> str | None:
    """Return the commit of this source tree, with `-dirty` if tracked files differ; None without a repository."""
    if not (_SOURCE_DIRECTORY / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=_SOURCE_DIRECTORY, capture_output=True, text=True, check=True, timeout=10,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
