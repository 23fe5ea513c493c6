"""Makes a decoder's tokeniser fit for matching: a word gets the same pieces in a query and anywhere in a document.

A decoder's tokeniser spells one word in many ways: "Cat", "cat", " cat" and "(cat" give different pieces, and a query
without a model cannot know that they mean the same. So text is put into one form before it is cut, on both sides, by
the tokeniser's own normaliser: see docs/decisions/0120 for each step and what it is worth.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers

from services.errors import ConfigurationError
from services.manifest import LARGEST_VOCABULARY
from services.pieces import piece_text

# Before a word that follows a sign or an underscore: "(cat", "os.path", "read_file". Not after an apostrophe ("don't")
# and not within numbers ("3.14").
_WORD_AFTER_SIGN = r"(?<=[^\s\w'’]|_)(?=[^\W\d_])"


def matching_tokenizer(tokenizer: Tokenizer, *, lowercase: bool = True) -> Tokenizer:
    """A copy with the normaliser for matching, that adds no special pieces, never truncates and never pads.

    Raises ConfigurationError (`vocabulary_too_large`) above 65,536 pieces.
    """
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    if size > LARGEST_VOCABULARY:
        raise too_large(size)
    steps: list[normalizers.Normalizer] = [normalizers.NFC()]
    if lowercase:
        steps.append(normalizers.Lowercase())
    steps += [
        normalizers.Replace(Regex(_WORD_AFTER_SIGN), " "),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(left=True, right=True),
    ]
    if not _begins_words(tokenizer):
        steps.append(normalizers.Prepend(" "))
    if tokenizer.normalizer is not None:
        steps.append(tokenizer.normalizer)
    content = json.loads(tokenizer.to_str())
    content["post_processor"] = content["truncation"] = content["padding"] = None
    copy = Tokenizer.from_str(json.dumps(content))
    copy.normalizer = normalizers.Sequence(steps)
    return copy


def too_large(size: int) -> ConfigurationError:
    """The error (`vocabulary_too_large`) of a model of so many pieces."""
    return ConfigurationError(
        "vocabulary_too_large",
        f"The vocabulary has {size:,} pieces and vectors keep ids in two bytes, so {LARGEST_VOCABULARY:,} at most: "
        "choose a model with a smaller vocabulary (Mistral-7B-v0.1 has 32,000, SmolLM2 49,152).",
    )


def _begins_words(tokenizer: Tokenizer) -> bool:
    """Whether the first word of a text gets the piece that it has in the middle of one (SentencePiece does that)."""
    return piece_text(tokenizer)(tokenizer.encode("a", add_special_tokens=False).tokens[0]).startswith(" ")


def unsearched_ids(tokenizer: Tokenizer) -> set[int]:
    """Ids that no query can ask for, so that no document needs to weigh them.

    They are special pieces, blank ones, and pieces with capitals where the tokeniser lowercases.
    """
    text_of = piece_text(tokenizer)
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    lowercases = tokenizer.normalizer is not None and "a" in tokenizer.normalizer.normalize_str("A")
    found = set()
    for piece, index in tokenizer.get_vocab(with_added_tokens=True).items():
        spelled = text_of(piece).strip()
        if piece in special or not spelled or (lowercases and spelled != spelled.lower()):
            found.add(index)
    return found


def read_tokenizer(directory: Path) -> Tokenizer:
    """tokenizer.json of a directory, as it is. Raises ConfigurationError (`bad_tokenizer`)."""
    path = directory / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ConfigurationError("bad_tokenizer", f"{path} is no usable tokenizer.json: {error}") from None
