"""Documents from columns: `--map TARGET=COLUMN,COLUMN` and `--id-from`.

`DocumentMapper` makes a document of a row: it takes the mapped columns, converts values to the field types that the
index declares, and reads the members of a talk from rows with the kind talk. A value with more than one reading is
refused (`bad_value`).
"""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson

from cli.loading.source import FRONT_MATTER_PREFIX, SourceRecord
from services.documents.conversion import INTEGER, as_text, bad_value, convert_value
from services.errors import ConfigurationError, InvalidInput
from services.index_spec import FieldType

CONTENT_COLUMN = "@content"
_METADATA_PREFIX = "metadata."
# Members that `sparsewell export` adds to a document.
EXPORTED_MEMBERS = ("state", "error", "encoder", "windows", "dense", "dense_encoder", "dense_error")
_SINGLE_COLUMN_TARGETS = ("id", "version")
_JOINED_TARGETS = ("title", "text")
_TEXT_COLUMNS = ("kind", "description", "url")
_JSON_COLUMNS = ("segments", "transcript", "chapters")
TALK_COLUMNS = (*_TEXT_COLUMNS, *_JSON_COLUMNS, "duration")
_MAX_UNUSED_NAMES = 20
_ABSENT = object()


@dataclass(frozen=True)
class FieldMap:
    """Columns by target, as in the options. A target that is not mapped takes the column of the same name."""

    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hashed_id: bool = False

    @property
    def is_given(self) -> bool:
        """Tell whether --map or --id-from was given."""
        return bool(self.targets) or self.hashed_id

    @property
    def maps_ids(self) -> bool:
        """Tell whether ids come from the columns that an option names."""
        return self.hashed_id or "id" in self.targets

    @property
    def metadata(self) -> list[str]:
        """Return the mapped metadata fields."""
        return [target.removeprefix(_METADATA_PREFIX) for target in self.targets if target.startswith(_METADATA_PREFIX)]

    def require(self, columns: Sequence[str], name: str) -> None:
        """Raise ConfigurationError (`unknown_column`) if a file `name` lacks a mapped column."""
        for mapped in (column for mapped_columns in self.targets.values() for column in mapped_columns):
            if mapped not in columns and mapped.partition(".")[0] not in columns:
                known = ", ".join(name[:80] for name in columns[:30])
                raise ConfigurationError("unknown_column", f"{name} has no column {mapped!r} (it has {known}).")


def parse_field_map(pairs: Sequence[str], id_from: str | None) -> FieldMap:
    """Parse the options --map and --id-from. Raises ConfigurationError (`bad_map`)."""
    targets: dict[str, tuple[str, ...]] = {}
    if id_from not in (None, CONTENT_COLUMN):
        targets["id"] = (id_from,)
    for pair in pairs:
        target, equals, listed = pair.partition("=")
        # A column name with a comma is quoted as in CSV.
        columns = tuple(name for name in next(csv.reader([listed]), []) if name)
        known = target in _SINGLE_COLUMN_TARGETS + _JOINED_TARGETS or (
            target.startswith(_METADATA_PREFIX) and target != _METADATA_PREFIX
        )
        if not equals or not columns or not known:
            raise _bad_map(pair, "is not TARGET=COLUMN[,COLUMN]: a target is id, title, text, version or metadata.NAME")
        if target in _SINGLE_COLUMN_TARGETS and len(columns) > 1:
            raise _bad_map(pair, f"gives {target} more than one column")
        if target in targets or (target == "id" and id_from):
            raise _bad_map(pair, f"maps {target} a second time")
        targets[target] = columns
    return FieldMap(targets, id_from == CONTENT_COLUMN)


def _bad_map(pair: str, reason: str) -> ConfigurationError:
    return ConfigurationError("bad_map", f"--map {pair!r} {reason}.")


class DocumentMapper:
    """A maker of documents for one index. `unused` has the names of the first 20 columns that no document uses."""

    def __init__(self, field_map: FieldMap, fields: Mapping[str, FieldType], *, talk: bool = False) -> None:
        """Check the mapped metadata fields. With `talk`, rows may be talks.

        Raises ConfigurationError (`undeclared_metadata`).
        """
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
        self._used = {
            "metadata",
            *_SINGLE_COLUMN_TARGETS,
            *_JOINED_TARGETS,
            *fields,
            *(prefix + name for prefix in (_METADATA_PREFIX, FRONT_MATTER_PREFIX) for name in fields),
        }
        self._used |= {column for columns in self._targets.values() for column in columns}
        self._used |= {column.partition(".")[0] for column in self._used}
        self.unused: dict[str, None] = {}

    def uses_column(self, column: str) -> bool:
        """Tell whether documents use a column. A column of talks counts, though only talks use it."""
        if column in self._used or (self._talk and column in TALK_COLUMNS):
            return True
        self._note_unused(column)
        return False

    def _note_unused(self, column: str) -> None:
        if len(self.unused) < _MAX_UNUSED_NAMES:
            self.unused[column] = None

    def __call__(self, record: SourceRecord) -> bytes:
        """Return the JSON of a document. Raises InvalidInput, with the document's id if it is known."""
        document: dict[str, Any] = {}
        if not self._hashed_id:
            document["id"] = self._single("id", record, as_id)
        try:
            document |= {name: self._joined(name, record) for name in _JOINED_TARGETS}
            document["version"] = self._single("version", record, as_version)
            document["metadata"] = self._metadata(record)
            if self._talk:
                document |= read_talk_columns(record)
        except InvalidInput as error:
            error.extra.setdefault("id", document.get("id"))
            raise
        for name in record.keys() - self._used - (set(TALK_COLUMNS) if "kind" in document else set()):
            self._note_unused(name)
        document = {name: value for name, value in document.items() if value is not None and value != {}}
        if self._hashed_id:
            stable = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
            document = {"id": hashlib.sha256(stable).hexdigest()[:32], **document}
        return _encode_document(document)

    def _columns(self, target: str) -> tuple[str, ...]:
        return self._targets.get(target, (target,))

    def _single(self, target: str, record: SourceRecord, convert: Any) -> Any:
        (column,) = self._columns(target)
        return convert(_column_value(record, column), column)

    def _joined(self, target: str, record: SourceRecord) -> str | None:
        texts = [as_text(_column_value(record, column), column) for column in self._columns(target)]
        return "\n\n".join(text for text in texts if text) or None

    def _metadata(self, record: SourceRecord) -> dict[str, Any]:
        column_value = _column_value(record, "metadata")
        metadata: dict[str, Any] = {}
        if isinstance(column_value, str) and column_value:
            column_value = _parse_object(column_value)
        if isinstance(column_value, Mapping):
            metadata.update(column_value)
        elif column_value not in (None, ""):
            raise InvalidInput("bad_metadata", "`metadata` must be an object.")
        for name, kind in self._fields.items():
            if name in metadata and _METADATA_PREFIX + name not in self._targets:
                continue  # a member of `metadata` overrides a column of the same name, which may mean something else
            value, column = self._metadata_value(name, record)
            if value is not _ABSENT and (converted := convert_value(kind, value, column)) is not None:
                metadata[name] = converted
        return metadata

    def _metadata_value(self, name: str, record: SourceRecord) -> tuple[Any, str]:
        target = _METADATA_PREFIX + name
        columns = self._targets.get(target)
        if columns is None:
            for column in (target, FRONT_MATTER_PREFIX + name):
                if column in record:
                    return record[column], column
            # In a row with a `metadata` column, as an export writes it, `state` and the like belong to the export.
            reserved = (*_SINGLE_COLUMN_TARGETS, *_JOINED_TARGETS, *(EXPORTED_MEMBERS if "metadata" in record else ()))
            same_name = name in record and name not in reserved
            return (record[name], name) if same_name else (_ABSENT, name)
        if len(columns) == 1:
            return _column_value(record, columns[0]), columns[0]
        values: list[Any] = []
        for column in columns:
            value = _column_value(record, column)
            values += value if isinstance(value, list) else [value]
        return values, ", ".join(columns)


def _column_value(record: SourceRecord, column: str) -> Any:
    """Return a column by its name, or a member of an object by a dotted name; None if it is missing."""
    if column in record:
        return record[column]
    value: Any = record
    for name in column.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _parse_object(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("bad_metadata", f"`metadata` is not JSON: {error}") from None


def _encode_document(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except (TypeError, ValueError) as error:
        raise InvalidInput("bad_value", f"The document cannot be written as JSON: {error}.") from None


def read_talk_columns(record: SourceRecord) -> dict[str, Any]:
    """Read the members of a talk from a row. Lists and objects may be JSON text, as in Parquet.

    Returns no members if the row's kind is not talk.

    Raises InvalidInput (`bad_value`).
    """
    if record.get("kind") != "talk":
        return {}
    members = {name: as_text(record.get(name), name) for name in _TEXT_COLUMNS}
    return (
        members
        | {name: _decode_json(record.get(name), name) for name in _JSON_COLUMNS}
        | {"duration": _read_duration(record)}
    )


def _decode_json(value: Any, name: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value) if value else None
    except orjson.JSONDecodeError as error:
        raise InvalidInput("bad_value", f"Column {name!r} is not JSON: {error}.") from None


def _read_duration(record: SourceRecord) -> Any:
    """Read a duration: a number, or a clock, which the service parses."""
    value = record.get("duration")
    if isinstance(value, str):
        try:
            return float(value) if value.strip() else None
        except ValueError:
            return value
    return value


def as_id(value: Any, column: str) -> str | None:
    """Convert a value to a document id. Other numbers than integers are refused: they have several spellings."""
    if isinstance(value, float | Decimal | bool):
        raise bad_value(value, column, "an id (text or a whole number)")
    return as_text(value, column)


def as_version(value: Any, column: str) -> int | None:
    """Convert a value to a document version. Raises InvalidInput (`bad_value`)."""
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and INTEGER.fullmatch(value.strip()):
        return int(value)
    raise bad_value(value, column, "a whole number")
