"""How pieces of a vocabulary are shown: with WordPiece's marks, whatever marks the tokeniser itself uses.

A piece that begins a word is shown as it is read, one that goes on within a word with `##` before it. Byte-level BPE
and SentencePiece mark the opposite, the beginning of a word ("Ġword", "▁word"); one convention in every answer means
that people, the search page and scripts read explanations of all encoders alike.
"""

import re
from collections.abc import Callable

from tokenizers import Tokenizer

_BYTE_SPACE, _META_SPACE = "Ġ", "▁"
# SentencePiece's piece for a byte of a character that it does not have.
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level BPE writes for bytes (GPT-2): printable Latin-1 is itself, the others follow."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


def _as_is(piece: str) -> str:
    return piece


def _byte_text(piece: str) -> str:
    """The text of a byte-level piece; bytes that are no whole characters are shown as `<e2 80>`."""
    if not all(character in _ALPHABET for character in piece):
        return piece  # (an added piece, written as plain text)
    data = bytes(_ALPHABET[character] for character in piece)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return f"<{data.hex(' ')}>"


def _meta_text(piece: str) -> str:
    byte = _BYTE.fullmatch(piece)
    if byte:
        value = int(byte[1], 16)
        return chr(value) if value < 0x80 else f"<{value:02x}>"
    return piece.replace(_META_SPACE, " ")


def piece_text(tokenizer: Tokenizer) -> Callable[[str], str]:
    """What gives the text that a piece stands for, a leading space included. WordPiece pieces stay as they are."""
    if type(tokenizer.model).__name__ == "WordPiece":
        return _as_is
    vocabulary = tokenizer.get_vocab()
    if _BYTE_SPACE in vocabulary:
        return _byte_text
    return _meta_text if _META_SPACE in vocabulary else _as_is


def piece_display(tokenizer: Tokenizer) -> Callable[[str], str]:
    """What turns a piece of the vocabulary into what people are shown."""
    text_of = piece_text(tokenizer)
    if text_of is _as_is:
        return _as_is

    def shown(piece: str) -> str:
        text = text_of(piece)
        word = text.removeprefix(" ")
        if word[:1].isalnum():
            return word if word != text else f"##{text}"
        return text.replace(" ", _META_SPACE).replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")

    return shown
