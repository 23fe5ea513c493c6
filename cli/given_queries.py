"""Queries of a command, from its arguments and from a file with one query per line."""

from collections.abc import Sequence
from pathlib import Path

from services.errors import InvalidInput
from services.web.answers import utf8


def given_queries(named: Sequence[str] | None, file: Path | None) -> list[str]:
    """Return the named queries, then those of the file. Raises InvalidInput (`no_queries`, `bad_queries_file`)."""
    found = [*(utf8(one, "A query") for one in named or ()), *(_lines(file) if file is not None else ())]
    if not found:
        raise InvalidInput("no_queries", "Give queries, or a file of them with --queries.")
    return found


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InvalidInput("bad_queries_file", f"{path} cannot be read: {error}") from None
