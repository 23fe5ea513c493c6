"""Brings a published encoder here by its hub name, its data files alone."""

from __future__ import annotations

import re
from pathlib import Path

from services.errors import BackendUnavailable, ConfigurationError, NotFound

# Data that the layouts are made of. Everything else (pickles, code, other runtimes' files) stays where it is.
PATTERNS = ("*.json", "*.safetensors", "*.txt", "README.md")
LEFT_OUT = ("onnx/*", "openvino/*", "training_args*")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def is_hub_name(source: str) -> bool:
    """Whether a source is `owner/name` or `owner/name@revision` and no directory of that name is here."""
    return _NAME.fullmatch(source) is not None and not Path(source).is_dir()


def fetch(name: str) -> Path:
    """The directory of a snapshot in the hub client's cache; what is there already is not fetched again.

    Raises ConfigurationError (`missing_extra`), NotFound (`hub_not_found`) and BackendUnavailable (`hub_unreachable`).
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "missing_extra", f"Fetching {name} needs the package {error.name}: pip install -e '.[train]'."
        ) from None
    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(
                repository, revision=revision or None, allow_patterns=list(PATTERNS), ignore_patterns=list(LEFT_OUT)
            )
        )
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise NotFound(
            "hub_not_found",
            f"There is no directory {name} here, and the hub has none that it shows without a login: check owner, name "
            f"and revision, or the path ({_first_line(error)}).",
        ) from None
    except Exception as error:  # the client and its HTTP library raise many kinds; what is left is no answer
        raise BackendUnavailable(
            "hub_unreachable",
            f"There is no directory {name} here, it is not in the hub's cache, and the hub gave no answer "
            f"({_first_line(error)}). Without a network, copy the directory from a machine that has one and give its "
            "path.",
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
