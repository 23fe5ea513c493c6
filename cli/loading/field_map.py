"""Which column becomes which part of a document: `--map TARGET=COLUMN,COLUMN` and `--id-from`."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from cli.loading.conversion import as_id, as_text, as_whole, converted
from cli.loading.source import Record
from cli.loading.talk_columns import TALK_COLUMNS, talk_columns
from services.errors import ConfigurationError, InvalidInput
from services.index_spec import FieldType

CONTENT = "@content"
_METADATA = "metadata."
# What `sparsewell export` writes beside the document itself.
EXPORTED_MEMBERS = ("state", "error", "encoder", "windows")
_SINGLE = ("id", "version")
_JOINED = ("title", "text")
_KEPT_NAMES = 20
_ABSENT = object()


@dataclass(frozen=True)
class FieldMap:
    """As it was given: columns by target. What is not mapped takes the column of its own name."""

    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hashed_id: bool = False

    @property
    def given(self) -> bool:
        return bool(self.targets) or self.hashed_id

    @property
    def metadata(self) -> list[str]:
        """The metadata fields that are mapped."""
        return [target.removeprefix(_METADATA) for target in self.targets if target.startswith(_METADATA)]

    def require(self, columns: Sequence[str], name: str) -> None:
        """Raises ConfigurationError (`unknown_column`) when a mapped column is not there."""
        for wanted in (column for several in self.targets.values() for column in several):
            if wanted not in columns and wanted.partition(".")[0] not in columns:
                known = ", ".join(name[:80] for name in columns[:30])
                raise ConfigurationError("unknown_column", f"{name} has no column {wanted!r} (it has {known}).")


def parse_map(pairs: Sequence[str], id_from: str | None) -> FieldMap:
    """Raises ConfigurationError (`bad_map`)."""
    targets: dict[str, tuple[str, ...]] = {}
    if id_from not in (None, CONTENT):
        targets["id"] = (id_from,)
    for pair in pairs:
        target, equals, listed = pair.partition("=")
        # (a column whose name holds a comma is quoted as in CSV)
        columns = tuple(name for name in next(csv.reader([listed]), []) if name)
        known = target in _SINGLE + _JOINED or (target.startswith(_METADATA) and target != _METADATA)
        if not equals or not columns or not known:
            raise _bad_map(pair, "is not TARGET=COLUMN[,COLUMN]: a target is id, title, text, version or metadata.NAME")
        if target in _SINGLE and len(columns) > 1:
            raise _bad_map(pair, f"gives {target} more than one column")
        if target in targets or (target == "id" and id_from):
            raise _bad_map(pair, f"says a second time what {target} is")
        targets[target] = columns
    return FieldMap(targets, id_from == CONTENT)


class Mapper:
    """Makes documents of one index from columns; `unused` are names of columns that went nowhere (the first 20)."""

    def __init__(self, field_map: FieldMap, fields: Mapping[str, FieldType], *, talk: bool = False) -> None:
        """`talk`: rows may be talk. Raises ConfigurationError (`undeclared_metadata`)."""
        for name in field_map.metadata:
            if name not in fields:
                raise ConfigurationError(
                    "undeclared_metadata",
                    f"The index declares no metadata field {name!r} (declared: {', '.join(sorted(fields)) or 'none'}).",
                )
        self._targets = field_map.targets
        self._hashed_id = field_map.hashed_id
        self._fields = fields
        self._talk = talk
        self._used = {"metadata", *_SINGLE, *_JOINED, *fields, *(_METADATA + name for name in fields)}
        self._used |= {column for columns in self._targets.values() for column in columns}
        self._used |= {column.partition(".")[0] for column in self._used}
        self.unused: dict[str, None] = {}

    def wants(self, column: str) -> bool:
        """Whether it goes anywhere."""
        if column in self._used or (self._talk and column in TALK_COLUMNS):  # (of which a row makes use if it is talk)
            return True
        self._leave(column)
        return False

    def _leave(self, column: str) -> None:
        if len(self.unused) < _KEPT_NAMES:
            self.unused[column] = None

    def __call__(self, record: Record) -> bytes:
        """The JSON of a document. Raises InvalidInput, with the id where it is known."""
        document: dict[str, Any] = {}
        if not self._hashed_id:
            document["id"] = self._single("id", record, as_id)
        try:
            document |= {name: self._joined(name, record) for name in _JOINED}
            document["version"] = self._single("version", record, as_whole)
            document["metadata"] = self._metadata(record)
            if self._talk:
                document |= talk_columns(record)
        except InvalidInput as error:
            error.extra.setdefault("id", document.get("id"))
            raise
        for name in record.keys() - self._used - (set(TALK_COLUMNS) if "kind" in document else set()):
            self._leave(name)
        document = {name: value for name, value in document.items() if value is not None and value != {}}
        if self._hashed_id:
            stable = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
            document = {"id": hashlib.sha256(stable).hexdigest()[:32], **document}
        return _json(document)

    def _columns(self, target: str) -> tuple[str, ...]:
        return self._targets.get(target, (target,))

    def _single(self, target: str, record: Record, convert: Any) -> Any:
        (column,) = self._columns(target)
        return convert(_value(record, column), column)

    def _joined(self, target: str, record: Record) -> str | None:
        found = [as_text(_value(record, column), column) for column in self._columns(target)]
        return "\n\n".join(part for part in found if part) or None

    def _metadata(self, record: Record) -> dict[str, Any]:
        whole = _value(record, "metadata")
        found: dict[str, Any] = {}
        if isinstance(whole, str) and whole:
            whole = _object(whole)
        if isinstance(whole, Mapping):
            found.update(whole)
        elif whole not in (None, ""):
            raise InvalidInput("bad_metadata", "`metadata` must be an object.")
        for name, kind in self._fields.items():
            if name in found and _METADATA + name not in self._targets:
                continue  # a member of `metadata` wins over a column of the same name, which may mean something else
            value, column = self._metadata_value(name, record)
            if value is not _ABSENT and (one := converted(kind, value, column)) is not None:
                found[name] = one
        return found

    def _metadata_value(self, name: str, record: Record) -> tuple[Any, str]:
        target = _METADATA + name
        columns = self._targets.get(target)
        if columns is None:
            if target in record:
                return record[target], target
            # beside a `metadata` of its own, which an export writes, `state` and the like are the export's words
            taken = (*_SINGLE, *_JOINED, *(EXPORTED_MEMBERS if "metadata" in record else ()))
            bare = name in record and name not in taken
            return (record[name], name) if bare else (_ABSENT, name)
        if len(columns) == 1:
            return _value(record, columns[0]), columns[0]
        several: list[Any] = []
        for column in columns:
            value = _value(record, column)
            several += value if isinstance(value, list) else [value]
        return several, ", ".join(columns)


def _value(record: Record, column: str) -> Any:
    """A column by its name, or the member of an object by a dotted one; None when it is not there."""
    if column in record:
        return record[column]
    value: Any = record
    for name in column.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _object(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("bad_metadata", f"`metadata` is not JSON: {error}") from None


def _json(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except (TypeError, ValueError) as error:
        raise InvalidInput("bad_value", f"It cannot be written as JSON: {error}.") from None


def _bad_map(pair: str, why: str) -> ConfigurationError:
    return ConfigurationError("bad_map", f"--map {pair!r} {why}.")
