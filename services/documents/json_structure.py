"""The structure of JSON text, read without building its values.

Small values cost far more memory than their text: an empty object has two bytes of JSON and 64 bytes as a dictionary.
So the memory of a document's values is estimated before they are built (`check_values`), and an array is split into
the texts of its items (`ArraySplitter`), of which only one at a time becomes values. The scan takes about 15
nanoseconds a byte for any text (docs/decisions/0250).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInput

# The scan needs about 20 bytes of memory for each byte of a block. 8,000 items of a block take about 3 ms.
BLOCK_BYTES: Final = 16 * 1024
# Bytes of memory of an object of up to five members, of an array of one value, and of a short string in an array, each
# with the 16 bytes that the parser takes meanwhile for a value or a name.
_OBJECT_BYTES: Final = 240
_ARRAY_BYTES: Final = 112
_VALUE_BYTES: Final = 80
_OBJECT_MEMBERS: Final = 5
# Bytes of memory of each further member of an object, beside its comma. Its name may occur once.
_MEMBER_BYTES: Final = 80
# A document may take ten times its size as values, and this much more. A hundred fields of a thousand keywords of three
# letters take 8 MB, 100,000 segments of one word each 48 MB for 4.4 MB of JSON.
_FREE_BYTES: Final = 8 * 1024**2
_MAX_TIMES: Final = 10
# The decoder lets no other thread run: 100,000 objects take it 25 ms, and the 280,000 of 8 MiB 100 ms. A talk may have
# 100,000 segments.
_MAX_OBJECTS: Final = 150_000
# Members with different names are the slowest: 500,000 take 75 ms, and the 900,000 of 8 MiB 130 to 180 ms. The segments
# of a talk have 400,000 at most.
_MAX_MEMBERS: Final = 500_000

_QUOTE, _BACKSLASH, _COMMA, _COLON, _CLOSING = b'"\\,:]'
# The change of the depth at each byte, and whether the byte is a bracket or a comma.
_DEPTH_CHANGE = np.zeros(256, np.int64)
_DEPTH_CHANGE[[*b"[{"]] = 1
_DEPTH_CHANGE[[*b"]}"]] = -1
_IS_STRUCTURE = np.zeros(256, np.bool_)
_IS_STRUCTURE[[*b"[]{},"]] = True
_IS_COUNTED = _IS_STRUCTURE.copy()
_IS_COUNTED[_COLON] = True
_SPACE: Final = b" \t\r\n"
_TEXT: Final = re.compile(rb"[^ \t\r\n]")

JsonText = bytes | bytearray | memoryview


class StructureScanner:
    """A scanner of JSON text that arrives in blocks. It finds the brackets and commas outside of strings."""

    def __init__(self, found: NDArray[np.bool_] = _IS_STRUCTURE) -> None:
        """`found`: whether to find each of the 256 bytes."""
        self._found = found
        self._in_string = False
        self._escapes_next = False

    def scan(self, block: JsonText) -> NDArray[np.intp]:
        """Return the positions in `block` of the bytes to find outside of strings, in ascending order."""
        text = np.frombuffer(block, np.uint8)
        if not text.size:
            return np.empty(0, np.intp)
        quotes = text == _QUOTE
        backslashes = np.flatnonzero(text == _BACKSLASH)
        if backslashes.size or self._escapes_next:
            quotes[self._escaped(backslashes, text.size)] = False
        in_string = (np.cumsum(quotes) + self._in_string) & 1
        self._in_string = bool(in_string[-1])
        return np.flatnonzero(self._found[text] & (in_string == 0))

    def _escaped(self, backslashes: NDArray[np.intp], size: int) -> NDArray[np.intp]:
        """Return the positions that follow an odd run of backslashes, and remember whether the next block begins so."""
        starts_escaped = self._escapes_next
        self._escapes_next = False
        escaped = np.empty(0, np.intp)
        if backslashes.size:
            breaks = np.flatnonzero(np.diff(backslashes) != 1)
            firsts = backslashes[np.concatenate(([0], breaks + 1))]
            lasts = backslashes[np.concatenate((breaks, [backslashes.size - 1]))]
            lengths = lasts - firsts + 1
            if starts_escaped and firsts[0] == 0:
                lengths[0] -= 1  # The first backslash is itself escaped.
                starts_escaped = False
            escaped = lasts[lengths % 2 == 1] + 1
            if escaped.size and escaped[-1] == size:
                self._escapes_next, escaped = True, escaped[:-1]
        return np.concatenate(([0], escaped)) if starts_escaped else escaped


class ArraySplitter:
    """A splitter of the text of a JSON array into the texts of its items."""

    def __init__(self, body: JsonText) -> None:
        self._body = memoryview(body)

    def blocks(self) -> Iterator[list[tuple[int, bytes]]]:
        """Yield the items that end in each block, as (number from 1, text without the space around it).

        The text of an item may still be no JSON: it is empty between two commas. Raises InvalidInput (`invalid_json`,
        `not_an_array`).
        """
        start = self._begin()
        number, depth, scanner = 0, 0, StructureScanner()
        for offset in range(start, len(self._body), BLOCK_BYTES):
            block = self._body[offset : offset + BLOCK_BYTES]
            positions = scanner.scan(block)
            found = np.frombuffer(block, np.uint8)[positions]
            depths = depth + np.cumsum(_DEPTH_CHANGE[found])
            # Commas between items, and the bracket that ends the array.
            ends = np.flatnonzero(((found == _COMMA) & (depths == 1)) | (depths <= 0))
            items: list[tuple[int, bytes]] = []
            for end, last in zip((positions[ends] + offset).tolist(), (depths[ends] <= 0).tolist(), strict=True):
                item = bytes(self._body[start + 1 : end]).strip(_SPACE)
                start = end
                if last:
                    self._finish(end)
                if item or number or not last:
                    number += 1
                    items.append((number, item))
                if last:
                    yield items
                    return
            yield items
            if positions.size:
                depth = int(depths[-1])
        raise InvalidInput("invalid_json", "The body is not JSON in UTF-8: it ends within the array.")

    def _begin(self) -> int:
        """Return the place of the bracket that opens the array."""
        first = _TEXT.search(self._body)
        if first is not None and first[0] == b"[":
            return first.start()
        raise InvalidInput("not_an_array", "The body must be a JSON array of documents.")

    def _finish(self, end: int) -> None:
        """Check that the array ends at `end` and nothing follows."""
        if self._body[end] != _CLOSING:
            raise InvalidInput("invalid_json", f"The body is not JSON in UTF-8: unexpected bracket at byte {end:,}.")
        if bytes(self._body[end + 1 :]).strip(_SPACE):
            raise InvalidInput("invalid_json", f"The body is not JSON in UTF-8: text after byte {end:,}.")


@dataclass(frozen=True, slots=True)
class ValueCounts:
    """The objects, arrays, commas and members of objects of JSON text."""

    objects: int
    arrays: int
    commas: int
    members: int

    @property
    def memory(self) -> int:
        """Return an upper bound of the bytes that the text takes as values beside its own bytes."""
        further = max(0, self.members - _OBJECT_MEMBERS * self.objects)
        values = _OBJECT_BYTES * self.objects + _ARRAY_BYTES * self.arrays + _VALUE_BYTES * self.commas
        return values + _MEMBER_BYTES * further

    def exceed(self, size: int) -> bool:
        """Tell whether a document of `size` bytes must not have so many."""
        too_many = self.objects > _MAX_OBJECTS or self.members > _MAX_MEMBERS
        return too_many or self.memory > _MAX_TIMES * size + _FREE_BYTES


def count_values(text: bytes | bytearray) -> ValueCounts:
    """Return the objects, arrays, commas and members outside of strings."""
    scanner, counts = StructureScanner(_IS_COUNTED), np.zeros(256, np.int64)
    for offset in range(0, len(text), BLOCK_BYTES):
        block = text[offset : offset + BLOCK_BYTES]
        counts += np.bincount(np.frombuffer(block, np.uint8)[scanner.scan(block)], minlength=256)
    return ValueCounts(int(counts[ord("{")]), int(counts[ord("[")]), int(counts[_COMMA]), int(counts[_COLON]))


def check_values(text: bytes | bytearray) -> None:
    """Check that a document's JSON has not too many objects or members, nor too many small values for its size.

    Raises InvalidInput (`too_many_values`).
    """
    # Counting without regard to strings takes a tenth of the time and is never too low.
    if not ValueCounts(text.count(b"{"), text.count(b"["), text.count(b","), text.count(b":")).exceed(len(text)):
        return
    counts = count_values(text)
    if not counts.exceed(len(text)):
        return
    if counts.objects > _MAX_OBJECTS:
        detail = f"it has {counts.objects:,} objects, and a document may have {_MAX_OBJECTS:,}"
    elif counts.members > _MAX_MEMBERS:
        detail = f"its objects have {counts.members:,} members, and those of a document may have {_MAX_MEMBERS:,}"
    else:
        limit = _MAX_TIMES * len(text) + _FREE_BYTES
        detail = f"they would take {counts.memory:,} bytes of memory, and a document of {len(text):,} bytes may take "
        detail += f"{limit:,}"
    raise InvalidInput("too_many_values", f"The document has too many small values: {detail}.")
