"""Texts in other encodings are called by their names."""

import bz2
import codecs
import gzip
import lzma

import pytest

from services.text_encoding import (
    detect_compression,
    detect_wide_encoding,
    explain_bytes,
    replace_surrogates,
    strip_byte_order_mark,
)

JSON = '{"id": "a", "text": "Café – 5 €"}'


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (JSON.encode("utf-16"), "UTF-16"), (JSON.encode("utf-16-le"), "UTF-16"), (JSON.encode("utf-16-be"), "UTF-16"),
        (JSON.encode("utf-32"), "UTF-32"), (JSON.encode("utf-32-le"), "UTF-32"), (JSON.encode("utf-32-be"), "UTF-32"),
        (JSON.replace("–", "-").replace("€", "E").encode("latin-1"), "Latin-1"),
        (b'{"price": "5 \x80"}', "probably Windows-1252"), (gzip.compress(JSON.encode(), mtime=0), "gzip"),
        (bz2.compress(JSON.encode()), "bzip2"), (lzma.compress(JSON.encode()), "xz"), (b"PK\x03\x04\x14\x00", "zip"),
    ],
)  # fmt: skip
def test_the_encoding_is_named(raw: bytes, expected: str) -> None:
    assert expected in str(explain_bytes(raw))


@pytest.mark.parametrize("raw", [JSON.encode(), b"", b"a", b"\0", codecs.BOM_UTF8 + b"{}", "𝄞".encode()[:2]])
def test_utf_8_needs_no_explanation(raw: bytes) -> None:
    assert explain_bytes(raw) is None
    assert detect_compression(raw) is detect_wide_encoding(raw) is None


def test_the_mark_of_utf_8_is_removed_once() -> None:
    assert strip_byte_order_mark(codecs.BOM_UTF8 * 2 + b"{}") == codecs.BOM_UTF8 + b"{}"
    assert strip_byte_order_mark(b"{}") == b"{}"


@pytest.mark.parametrize(("text", "expected"), [("a", "a"), ("é 𝄞", "é 𝄞"), ("a\ud834b\udd1e", "a?b?")])
def test_a_half_of_a_surrogate_pair_becomes_one_character(text: str, expected: str) -> None:
    assert replace_surrogates(text) == expected
