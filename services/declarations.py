"""Declaration files: the indexes that an installation should have, and their differences from the existing ones.

`find_differences` compares a declared index with the API's answer about it, and `reindex_options` returns the arguments
of `cli.reindex.reindex` that remove the differences. See docs/decisions/0095. An export has a declaration file beside
it, which declares the exported index; `describe_declaration` makes its content from the API's answer (0253).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from services.errors import ConfigurationError, Conflict, InvalidInput
from services.index_spec import IndexSpec, validate_index_name


class Declaration(BaseModel):
    """File of declared indexes: `{"indexes": {"notes": {"fields": {"year": "number"}}}}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    indexes: dict[str, IndexSpec]

    @field_validator("indexes")
    @classmethod
    def _validate_names(cls, indexes: dict[str, IndexSpec]) -> dict[str, IndexSpec]:
        for name in indexes:
            try:
                validate_index_name(name)
            except InvalidInput as error:
                raise ValueError(f"{name[:80]!r}: {error.detail}") from None
        return indexes


def read_declaration(file: Path) -> Declaration:
    """Read a declaration file. Raises ConfigurationError (`bad_declaration`) with the place of the error."""
    try:
        return Declaration.model_validate(json.loads(file.read_bytes()))
    except OSError as error:
        raise ConfigurationError("bad_declaration", f"{file} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigurationError(
            "bad_declaration", f"{file}: {place}: {first['msg'].removeprefix('Value error, ')}."
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError("bad_declaration", f"{file} is not valid JSON: {error}.") from None


def declaration_path(exported: Path) -> Path:
    """Return the path of the declaration file beside an exported file."""
    return exported.with_name(f"{exported.name}.declaration.json")


def describe_declaration(existing: Mapping[str, Any]) -> dict[str, Any]:
    """Return the declaration that creates an index equal to an existing one. `existing` is the API's answer."""
    same = ("fields", "window", "windows", "language", "document_top_k", "talk")
    declared = {name: existing[name] for name in same} | {"encoder": existing["encoder"]["name"]}
    # An API of an earlier version refuses a member that it does not know.
    if not existing.get("adapt_weights", True):
        declared["adapt_weights"] = False
    if existing.get("piece_features"):
        declared["piece_features"] = True
    return declared | ({} if existing["dense"] is None else {"dense": existing["dense"]["name"]})


def read_export_declaration(exported: Path) -> dict[str, Any] | None:
    """Return the declaration beside an exported file; None if there is none.

    Raises ConfigurationError (`bad_declaration`).
    """
    file = declaration_path(exported)
    if not file.is_file():
        return None
    indexes = list(read_declaration(file).indexes.values())
    if len(indexes) != 1:
        raise ConfigurationError("bad_declaration", f"{file} must declare one index; it declares {len(indexes)}.")
    return indexes[0].model_dump(mode="json", exclude_unset=True)


def find_differences(declared: IndexSpec, existing: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the members of an index that differ from its declaration, each as (existing, declared).

    `existing` is the API's answer. An undeclared encoder or window never differs.
    """
    encoder, dense = existing["encoder"]["name"], existing["dense"]
    pairs: dict[str, tuple[Any, Any]] = {
        "fields": (existing["fields"], declared.fields),
        "encoder": (encoder, encoder if declared.encoder is None else declared.encoder),
        "window": (existing["window"], existing["window"] if declared.window is None else declared.window.model_dump()),
        "windows": (existing["windows"], declared.windows),
        "language": (existing["language"], declared.language),
        "document_top_k": (existing["document_top_k"], declared.document_top_k),
        "adapt_weights": (existing.get("adapt_weights", declared.adapt_weights), declared.adapt_weights),
        "piece_features": (existing.get("piece_features", declared.piece_features), declared.piece_features),
        "dense": (None if dense is None else dense["name"], declared.dense),
        "talk": (existing["talk"], None if declared.talk is None else declared.talk.model_dump()),
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def reindex_options(index: str, differences: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Return the arguments of `cli.reindex.reindex` that make the index as declared.

    Raises Conflict (`cannot_reindex`) for a removed field or removed talk: a reindex cannot remove them.
    """
    options: dict[str, Any] = {}
    for name, (existing, declared) in differences.items():
        if name == "fields":
            if removed := sorted(set(existing) - set(declared)):
                raise _cannot_reindex(index, f"the fields {', '.join(removed)}")
            options["field"] = [f"{field}={kind}" for field, kind in declared.items() if existing.get(field) != kind]
        elif name == "window":
            options |= {"window": declared["pieces"], "overlap": declared["overlap"]}
        elif name == "dense":
            options["dense"] = "none" if declared is None else declared
        elif name == "talk":
            if declared is None:
                raise _cannot_reindex(index, "`talk`")
            options["chapters"] = declared["chapters"]
            options["talk"] = [f"{key}={json.dumps(value)}" for key, value in declared.items() if key != "chapters"]
        else:
            options["top_k" if name == "document_top_k" else name] = declared
    return options


def _cannot_reindex(index: str, removed: str) -> Conflict:
    return Conflict(
        "cannot_reindex",
        f"{index}: a reindex cannot remove {removed}. Declare it again, or create another index and load it.",
    )
