"""The encoding of a text: byte order marks, halves of surrogate pairs, and names for bytes that are not UTF-8.

All texts are UTF-8. A parser that meets another encoding reports a character at some place, which does not say that the
file was saved as UTF-16 or compressed. `explain_bytes` finds such a reason for an error message.
"""

import codecs
from typing import Final

# The first bytes of compressed data, with the name of its format.
_COMPRESSED: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"PK\x03\x04", "zip"),
)
_UTF8_MARK: Final = codecs.BOM_UTF8
# UTF-32 little-endian begins with the mark of UTF-16.
_WIDE_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_SAMPLE_BYTES: Final = 512
# Bytes of C1 control characters in Latin-1. In Windows-1252 they are quotation marks, dashes and the euro sign.
_WINDOWS_BYTES: Final = range(0x80, 0xA0)


def strip_byte_order_mark(text: bytes) -> bytes:
    """Return a UTF-8 text without its byte order mark, which editors and spreadsheets of Windows write."""
    return text.removeprefix(_UTF8_MARK)


def detect_compression(begin: bytes) -> str | None:
    """Return the name of the compressed format that bytes begin with, else None."""
    return next((name for magic, name in _COMPRESSED if begin.startswith(magic)), None)


def detect_wide_encoding(begin: bytes) -> str | None:
    """Return UTF-16 or UTF-32 if bytes begin with its mark or have its pattern of zero bytes, else None."""
    marked = next((name for mark, name in _WIDE_MARKS if begin.startswith(mark)), None)
    if marked is not None:
        return marked
    sample = begin[:_SAMPLE_BYTES]
    if len(sample) < 4 or b"\0" not in sample:
        return None
    if sample[:3] == b"\0\0\0" or sample[1:4] == b"\0\0\0":
        return "UTF-32"
    # In UTF-16 nearly every second byte of a European text, and of JSON, is zero.
    return "UTF-16" if max(sample[::2].count(0), sample[1::2].count(0)) > len(sample) // 4 else None


def replace_surrogates(text: str) -> str:
    """Replace each half of a surrogate pair by a question mark. UTF-8 and tokenisers have no such halves.

    Each half is one character, so offsets stay valid.
    """
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def explain_bytes(text: bytes) -> str | None:
    """Return a sentence on the encoding of bytes that are not UTF-8; None if they are UTF-8."""
    if (compression := detect_compression(text)) is not None:
        return f"The bytes are {compression}-compressed data: send them uncompressed."
    if (wide := detect_wide_encoding(text)) is not None:
        return f"The text is {wide}: send it as UTF-8."
    try:
        # The incremental decoder accepts a character that is cut at the end.
        codecs.getincrementaldecoder("utf-8")().decode(text)
    except UnicodeDecodeError as error:
        wrong = text[error.start]
        name = guess_encoding(wrong)
        return f"Byte {error.start + 1:,} (0x{wrong:02x}) is not UTF-8; the text is probably {name}. Send it as UTF-8."
    return None


def guess_encoding(wrong: int) -> str:
    """Return the name of the encoding with one byte for each character that a text with this byte probably has."""
    return "Windows-1252" if wrong in _WINDOWS_BYTES else "Latin-1 (ISO 8859-1) or Windows-1252"
