"""The corpus of the demo: one document for each public name of Python's standard library.

Modules, classes, functions, methods and properties have their own docstrings: about 5,600 documents, made in a second
from the running Python. The same Python gives the same documents in the same order (`docs/decisions/0030`).
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

# The position before a capital that starts a word, as in "temporaryDirectory" and "HTTPServer".
WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def read_documents(python: str = sys.executable, timeout: float = 120.0) -> list[dict[str, Any]]:
    """Return the documents for the REST API, sorted by id.

    `python`: the interpreter whose library is read. It runs isolated (no site-packages), without environment variables
    and standard input, so that imported modules cannot affect the caller. Raises ConfigurationError
    (`corpus_unreadable`) when it fails or takes longer than `timeout` seconds.
    """
    command = [python, "-I", "-S", str(HARVEST_SCRIPT)]
    try:
        process = subprocess.run(
            command, check=False, capture_output=True, stdin=subprocess.DEVNULL, env={}, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(
            "corpus_unreadable", f"Reading the standard library of {python} took longer than {timeout:.0f} s."
        ) from error
    if process.returncode != 0:
        message = process.stderr.decode(errors="replace").strip()[-500:]
        raise ConfigurationError("corpus_unreadable", f"Reading the standard library of {python} failed: {message}")
    return [make_document(orjson.loads(line)) for line in process.stdout.splitlines()]


def make_document(record: dict[str, str]) -> dict[str, Any]:
    """Make the document of a line of harvest.py."""
    parts = [record["signature"], record["doc"]]
    return {
        "id": record["name"],
        "title": make_title(record["name"]),
        "text": "\n\n".join(part for part in parts if part),
        "metadata": {"kind": record["kind"], "module": record["module"]},
    }


def make_title(name: str) -> str:
    """Make a title of the name and its words: `tempfile.TemporaryDirectory (tempfile temporary directory)`.

    An analyser makes one word of `shutil.copytree` and of `get_terminal_size`, so lexical search needs the words.
    """
    words = " ".join(split_name(name))
    return name if words == name else f"{name} ({words})"


def split_name(name: str) -> Iterator[str]:
    """Yield the words of a dotted name in lower case, without the module `builtins`."""
    parts = name.split(".")
    for part in parts[1:] if parts[0] == "builtins" and len(parts) > 1 else parts:
        for piece in part.split("_"):
            yield from (word.lower() for word in WORD_START.split(piece) if word)
