"""Documents as clients send them: validation of every member, and external versions.

Each invalid member has an error code. Nothing is converted or dropped silently.
One number, OpenSearch's external version, orders raw writes, lifecycle transitions and encodings of a document. A
client version v (or the server's clock in microseconds) owns the 1,024 external versions from 1024 v: the raw write
takes the first, each transition of the same raw document (attempt, dead letter, retry) the next free one, the encoded
document the last. So duplicates and any order of delivery give the same final state, a transition is a
compare-and-swap, and a newer raw write wins over all writes of an older one. See docs/decisions/0002.
"""

import json
import math
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson

from services.documents.read_document import strip_read_members
from services.errors import InvalidInput
from services.index_spec import DEFAULT_DOCUMENT_LIMITS, DocumentLimits, FieldType, IndexSpec
from services.talk.model import TALK_KIND, Talk
from services.talk.parse import TALK_MEMBERS, parse_talk
from services.text_encoding import explain_bytes

# The states of a stored document. The journal (`services.opensearch.journal`) moves a document from one to the next.
DOCUMENT_STATES = ("pending", "encoded", "dead", "deleted")
VERSION_STRIDE = 1024
# 2**53 - 1 is the largest integer that every JSON reader keeps exact; times the stride it still fits Lucene's long.
MAX_CLIENT_VERSION = 2**53 - 1
# A write or a delete without a version goes above the stored one, so producers leave a million versions free.
MAX_PRODUCER_VERSION = MAX_CLIENT_VERSION - 2**20
MAX_ID_BYTES = 512  # OpenSearch's own limit on _id
MAX_KEYWORD_BYTES = 8191  # far below Lucene's 32,766 bytes a term, above which the whole document is refused
MAX_VALUES = 1000
_DOCUMENT_MEMBERS = frozenset({"id", "title", "text", "metadata", "version", "kind"})
# Dates that OpenSearch's strict_date_optional_time accepts. datetime.fromisoformat then checks the calendar.
_DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Document:
    """Validated raw document.

    `version` is the client's; None leaves the order to the server's clock. `talk` holds the members of a transcript
    beside its text; None for other documents.
    """

    id: str
    text: str
    title: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    version: int | None = None
    talk: Talk | None = None


def is_talk(document: Mapping[str, Any]) -> bool:
    """Return whether the members of a sent or stored document make it a talk."""
    return document.get("kind") == TALK_KIND


def joined_text(title: str, text: str) -> str:
    """Return the text that is encoded, and that window offsets refer to: the title, a line break, the text."""
    return f"{title}\n{text}" if title else text


def parse_document(
    value: Any, spec: IndexSpec, limits: DocumentLimits = DEFAULT_DOCUMENT_LIMITS, size: int = 0
) -> Document:
    """Validate one decoded JSON value of `size` bytes against the index.

    A metadata value of null counts as absent. Raises InvalidInput or TooLarge.
    """
    if not isinstance(value, dict):
        limits.check(size, spec, talk=False)
        raise InvalidInput("not_an_object", "A document is a JSON object with `id` and `text`.")
    document_id = None
    try:
        document_id = validate_document_id(value.get("id"))
        limits.check(size, spec, talk=is_talk(value))
        return _parse_members(document_id, strip_read_members(value), spec, limits)
    except InvalidInput as error:
        if document_id is not None:
            error.extra.setdefault("id", document_id)  # a client needs the ids in a list of rejections
        raise


def parse_document_bytes(raw: bytes, spec: IndexSpec, limits: DocumentLimits = DEFAULT_DOCUMENT_LIMITS) -> Document:
    """Parse one document from JSON text.

    Raises InvalidInput (`invalid_json`, `too_many_values`) or TooLarge (`document_too_large`).
    """
    limits.check(len(raw), spec, talk=True)
    return parse_document(decode_document(raw), spec, limits, len(raw))


def decode_document(raw: bytes | bytearray, complaint: str = "Not JSON in UTF-8") -> Any:
    """Decode the JSON text of a document. Raises InvalidInput (`invalid_json`, `too_many_values`)."""
    # numpy takes a tenth of a second to import, and `sparsewell load` needs none of it.
    from services.documents.json_structure import check_values

    check_values(raw)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("invalid_json", f"{complaint}: {explain_bytes(bytes(raw)) or f'{error}.'}") from None


def validate_document_id(value: Any) -> str:
    """Return the id if OpenSearch accepts it and it fits a URL. Raises InvalidInput (`missing_id`, `bad_id`)."""
    if value is None:
        raise InvalidInput("missing_id", "A document needs an `id` (a string), so that sending it again replaces it.")
    if not isinstance(value, str) or not value or _CONTROL.search(value):
        raise InvalidInput("bad_id", "`id` must be a string of at least one character, without control characters.")
    if value in (".", ".."):
        # HTTP clients resolve dot segments (RFC 3986, 5.2.4): DELETE of the document `..` would delete its index
        raise InvalidInput("bad_id", "`id` must not be `.` or `..`: URLs use them as relative path segments.")
    if len(value.encode()) > MAX_ID_BYTES:
        raise InvalidInput("bad_id", f"`id` may have {MAX_ID_BYTES} bytes at most.")
    return value


def _parse_members(document_id: str, value: Mapping[str, Any], spec: IndexSpec, limits: DocumentLimits) -> Document:
    talk_expected = _validate_kind(value, spec)
    if unknown := value.keys() - (_DOCUMENT_MEMBERS | TALK_MEMBERS if talk_expected else _DOCUMENT_MEMBERS):
        raise InvalidInput(
            "unknown_field",
            f"Unknown field {min(unknown)[:80]!r}: a document has id, title, text, metadata and version"
            + (
                ", talk (`kind`) also description, segments, transcript, chapters, duration and url"
                if spec.talk
                else ""
            )
            + "; put your own fields under `metadata` and declare them on the index.",
        )
    title = value.get("title")
    if title is not None and not isinstance(title, str):
        raise InvalidInput("bad_title", "`title` must be a string.")
    text, talk = parse_talk(value, limits.document) if talk_expected else (_validate_text(value.get("text")), None)
    metadata, version = validate_metadata(value.get("metadata"), spec.fields), _validate_version(value.get("version"))
    return Document(document_id, text, title or "", metadata, version, talk)


def _validate_kind(value: Mapping[str, Any], spec: IndexSpec) -> bool:
    """Return whether the document is a talk. Raises InvalidInput (`bad_kind`, `talk_not_declared`)."""
    if value.get("kind") is None:
        return False
    if not is_talk(value):
        raise InvalidInput("bad_kind", f"`kind` must be {TALK_KIND!r} or absent.")
    if spec.talk is None:
        raise InvalidInput(
            "talk_not_declared",
            "The index does not accept talk: create it with `talk`, or run `sparsewell reindex --chapters`.",
        )
    return True


def _validate_text(text: Any) -> str:
    if text is None:
        raise InvalidInput("missing_text", "A document needs a `text`.")
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput("bad_text", "`text` must be a string that is not blank.")
    return text


def _validate_version(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_PRODUCER_VERSION:
        raise InvalidInput("bad_version", f"`version` must be a whole number from 0 to {MAX_PRODUCER_VERSION}.")
    return value


def validate_metadata(value: Any, fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """Return metadata without nulls. Raises InvalidInput (`bad_metadata`, `undeclared_metadata`)."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput("bad_metadata", "`metadata` must be an object.")
    checked = {}
    for name, content in value.items():
        kind = fields.get(name)
        if kind is None:
            declared = ", ".join(sorted(fields)) or "none"
            raise InvalidInput(
                "undeclared_metadata", f"The index declares no metadata field {name[:80]!r} (declared: {declared})."
            )
        if content is None:
            continue
        items = content if isinstance(content, list) else [content]
        if len(items) > MAX_VALUES:
            raise InvalidInput("bad_metadata", f"`metadata.{name}` may have {MAX_VALUES} values at most.")
        for item in items:
            if not _fits(kind, item):
                raise InvalidInput(
                    "bad_metadata", f"`metadata.{name}` must be of type {kind}; got {describe_value(item)}.", field=name
                )
        checked[name] = content
    return checked


def _fits(kind: FieldType, value: Any) -> bool:
    match kind:
        case "keyword":
            return isinstance(value, str) and len(value.encode()) <= MAX_KEYWORD_BYTES
        case "text":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
        case "date":
            return isinstance(value, str) and is_date(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def is_date(value: str) -> bool:
    """Tell whether OpenSearch accepts a string as a date that exists in the calendar."""
    if not _DATE.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def describe_value(value: Any) -> str:
    """Return a value in the terms of JSON for a message: a long one is cut, objects and arrays are only named."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    text = repr(value[:61]) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def raw_version(version: int) -> int:
    """Return the external version of the raw write, or of a tombstone, of a client version."""
    return version * VERSION_STRIDE


def encoded_version(version: int) -> int:
    """Return the external version of the encoded document of a client version."""
    return version * VERSION_STRIDE + VERSION_STRIDE - 1


def next_transition(external: int) -> int:
    """Return the next external version of the same raw document. Raises ValueError after 1,022 transitions."""
    if external % VERSION_STRIDE >= VERSION_STRIDE - 2:
        raise ValueError("a document has 1,022 lifecycle transitions at most")
    return external + 1


def client_version(external: int) -> int:
    """Return the client version of an external version."""
    return external // VERSION_STRIDE


class VersionClock:
    """Hybrid logical clock for writes without a client version: microseconds since 1970.

    Its versions increase strictly in this process, and each is above the stored version of its document, so a later
    write never loses to an earlier one of a host whose clock is ahead. The clock follows such a host by MAX_LEAD at
    most; beyond that, only the version of the document itself is raised. See Kulkarni et al., Logical Physical Clocks
    (2014), section 3.
    """

    MAX_LEAD: Final = 60_000_000  # microseconds

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def is_far_behind(self, version: int) -> bool:
        """Tell whether a stored version is so far ahead that the clock does not follow it."""
        return version >= time.time_ns() // 1000 + self.MAX_LEAD

    def next(self, above: int = -1) -> int:
        """Return the next client version, above `above`, which is the stored version of the document.

        The last possible version is returned again and again.
        """
        now = time.time_ns() // 1000
        with self._lock:
            self._last = max(self._last + 1, now, min(above + 1, now + self.MAX_LEAD))
            return min(max(self._last, above + 1), MAX_CLIENT_VERSION)
