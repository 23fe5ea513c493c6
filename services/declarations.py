"""Comparison of declared indexes with existing ones, and the reindex options that remove differences. Pure."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from services.errors import ConfigurationError, Conflict, InvalidInput
from services.index_spec import IndexSpec, validate_index_name


class Declaration(BaseModel):
    """A file of declared indexes: `{"indexes": {"notes": {"fields": {"year": "number"}}}}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    indexes: dict[str, IndexSpec]

    @field_validator("indexes")
    @classmethod
    def _names(cls, indexes: dict[str, IndexSpec]) -> dict[str, IndexSpec]:
        for name in indexes:
            try:
                validate_index_name(name)
            except InvalidInput as error:
                raise ValueError(f"{name[:80]!r}: {error.detail}") from None
        return indexes


def read_declaration(file: Path) -> Declaration:
    """Read a file of declared indexes. Raises ConfigurationError (`bad_declaration`) with the place of the fault."""
    try:
        return Declaration.model_validate(json.loads(file.read_bytes()))
    except OSError as error:
        raise ConfigurationError("bad_declaration", f"{file} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise ConfigurationError(
            "bad_declaration", f"{file}: {place}: {first['msg'].removeprefix('Value error, ')}."
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError("bad_declaration", f"{file} is not JSON: {error}.") from None


def find_differences(wanted: IndexSpec, there: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the members of an index that differ from the declaration, each as (existing, declared).

    An undeclared encoder or window never differs.
    """
    encoder, dense = there["encoder"]["name"], there["dense"]
    pairs: dict[str, tuple[Any, Any]] = {
        "fields": (there["fields"], wanted.fields),
        "encoder": (encoder, encoder if wanted.encoder is None else wanted.encoder),
        "window": (there["window"], there["window"] if wanted.window is None else wanted.window.model_dump()),
        "windows": (there["windows"], wanted.windows),
        "language": (there["language"], wanted.language),
        "document_top_k": (there["document_top_k"], wanted.document_top_k),
        "dense": (None if dense is None else dense["name"], wanted.dense),
        "talk": (there["talk"], None if wanted.talk is None else wanted.talk.model_dump()),
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def reindex_options(index: str, differing: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Return the arguments of `cli.reindex.reindex` that make the index as declared.

    Raises Conflict (`cannot_reindex`) for a removed field or removed talk, which a reindex cannot remove.
    """
    options: dict[str, Any] = {}
    for name, (there, wanted) in differing.items():
        if name == "fields":
            if gone := sorted(set(there) - set(wanted)):
                raise _cannot(index, f"the fields {', '.join(gone)}")
            options["field"] = [f"{field}={kind}" for field, kind in wanted.items() if there.get(field) != kind]
        elif name == "window":
            options |= {"window": wanted["pieces"], "overlap": wanted["overlap"]}
        elif name == "dense":
            options["dense"] = "none" if wanted is None else wanted
        elif name == "talk":
            if wanted is None:
                raise _cannot(index, "that its documents may be talk")
            options["chapters"] = wanted["chapters"]
            options["talk"] = [f"{key}={json.dumps(value)}" for key, value in wanted.items() if key != "chapters"]
        else:
            options["top_k" if name == "document_top_k" else name] = wanted
    return options


def _cannot(index: str, what: str) -> Conflict:
    return Conflict(
        "cannot_reindex",
        f"{index}: no reindexing takes away {what}: declare it as it is, or make another index and load it.",
    )
