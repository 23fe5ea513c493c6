"""The corpus that every machine has: one document a public name of Python's standard library.

Modules, classes, functions, and the public methods and properties of classes, each with its own docstring: about 5,600
documents, made in a second from the running Python. The same Python gives the same documents in the same order.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from services.errors import ConfigurationError

HARVEST_SCRIPT = Path(__file__).with_name("harvest.py")

# Metadata fields that an index for this corpus declares.
DECLARED_FIELDS = {"kind": "keyword", "module": "keyword"}

# Between "temporaryDirectory" and "HTTPServer": before a capital that starts a word.
WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def read_documents(python: str = sys.executable, timeout: float = 120.0) -> list[dict[str, Any]]:
    """The documents in the shape of the REST API, sorted by id.

    ``python`` is the interpreter whose library is read. It runs isolated (no site-packages), without an environment
    and without standard input, so that nothing that imports can ask, print or show reaches the caller.
    Raises ConfigurationError (`corpus_unreadable`) when it fails or takes longer than ``timeout`` seconds.
    """
    command = [python, "-I", "-S", str(HARVEST_SCRIPT)]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, stdin=subprocess.DEVNULL, env={}, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(
            "corpus_unreadable", f"Reading the standard library of {python} took longer than {timeout:.0f} s."
        ) from error
    if done.returncode != 0:
        last_words = done.stderr.decode(errors="replace").strip()[-500:]
        raise ConfigurationError("corpus_unreadable", f"Reading the standard library of {python} failed: {last_words}")
    return [make_document(orjson.loads(line)) for line in done.stdout.splitlines()]


def make_document(record: dict[str, str]) -> dict[str, Any]:
    """The document of one line of harvest.py."""
    parts = [record["signature"], record["doc"]]
    return {
        "id": record["name"],
        "title": make_title(record["name"]),
        "text": "\n\n".join(part for part in parts if part),
        "metadata": {"kind": record["kind"], "module": record["module"]},
    }


def make_title(name: str) -> str:
    """The name, and the words that it is made of: ``tempfile.TemporaryDirectory (tempfile temporary directory)``.

    An analyser sees one word in ``shutil.copytree`` and in ``get_terminal_size``, so keyword search finds neither
    by its parts without this.
    """
    words = " ".join(split_name(name))
    return name if words == name else f"{name} ({words})"


def split_name(name: str) -> Iterator[str]:
    """The words in a dotted name, in lower case; ``builtins`` is no word of the names that nobody imports."""
    parts = name.split(".")
    for part in parts[1:] if parts[0] == "builtins" and len(parts) > 1 else parts:
        for piece in part.split("_"):
            yield from (word.lower() for word in WORD_START.split(piece) if word)
