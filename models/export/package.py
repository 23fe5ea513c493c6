"""Files of a model directory: place, tokeniser, query table, manifest and reference frequencies.

The manifest is written last. The reference frequencies (`services.encoders.piece_frequencies`) count passages like
those that the encoder was trained on. They change no vector, so the fingerprint leaves them out.

`python -m models.export.package CHECKPOINT OUT_DIR` writes the directory of the stand-in encoder, which has no model.
The command takes tokenizer.json and idf.json (piece to inverse document frequency) from the checkpoint's directory.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from models.encoder import Encoder
from models.export.checkpoint import Transformer
from models.training.pairs import read_pairs
from services.encoders.manifest import (
    MANIFEST_FILE,
    MAX_VOCABULARY,
    NAME_PATTERN,
    compute_fingerprint,
    describe_file,
    has_manifest,
    read_manifest,
)
from services.encoders.piece_frequencies import PieceCounter, PieceFrequencies
from services.encoders.query_table import REFERENCE_FILE, QueryTable, read_query_weights
from services.encoders.vectors import merge_max
from services.errors import ConfigurationError, InvalidInput
from services.query.expansion import prune_query

MIN_PASSAGES = 1000
# The median of 50 texts is within a tenth of that of 600.
MIN_SCALE_PASSAGES = 50
# A query of a dozen words is a sentence. Longer queries are cut at the most pieces that a search takes.
_FIRST_WORDS, _MAX_PIECES = 12, 512
_SEED = 17
SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def require_output_place(out: Path, *, replace: bool) -> None:
    """Check before the work whether `out` may hold its result. The directory's name becomes the encoder's.

    Raises ConfigurationError: `bad_name`, `encoder_exists` unless `replace`, `not_empty` for a directory without an
    encoder.
    """
    place = out.resolve()
    name = place.name
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigurationError(
            "bad_name",
            f"{name!r} cannot be an encoder's name: at most 64 lower-case letters, digits, dots, dashes, underscores.",
        )
    if place == Path.cwd():
        raise ConfigurationError("not_empty", f"{out} is the current directory: choose another one.")
    if has_manifest(out) and not replace:
        raise ConfigurationError(
            "encoder_exists",
            f"{out} already holds an encoder: choose another directory, or remove this one (an export: --replace).",
        )
    if out.exists() and not has_manifest(out) and (out.is_file() or any(out.iterdir())):
        raise ConfigurationError("not_empty", f"{out} exists and holds no encoder: choose another directory.")


def write_manifest(directory: Path, description: dict[str, Any], names: Collection[str]) -> str:
    """Write manifest.json for the files `names` of a directory; return the fingerprint.

    Raises ConfigurationError when the description lacks a required member.
    """
    files = {name: describe_file(directory / name) for name in sorted(names)}
    content = {
        "format": "sparsewell-encoder/1",
        **{key: value for key, value in description.items() if key not in ("format", "files", "fingerprint")},
        "files": {name: file.model_dump() for name, file in files.items()},
        "fingerprint": compute_fingerprint(files),
    }
    (directory / MANIFEST_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return read_manifest(directory).fingerprint


def read_vocabulary(tokenizer: Path) -> dict[str, int]:
    """Read piece to id from a WordPiece tokenizer.json.

    Raises ConfigurationError: `bad_tokenizer`, `checkpoint_unsupported` for another kind of tokeniser.
    """
    try:
        model = json.loads(tokenizer.read_bytes())["model"]
        if model["type"] == "WordPiece":
            return {str(piece): int(index) for piece, index in model["vocab"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError("bad_tokenizer", f"{tokenizer} is not a usable tokenizer.json: {error!r}") from None
    raise ConfigurationError("checkpoint_unsupported", f"{tokenizer}: the exporter reads only WordPiece tokenisers.")


def excluded_piece_ids(vocabulary: dict[str, int]) -> set[int]:
    """Return the ids that no document may weigh: special pieces and BERT's placeholders `[unusedN]`, which no text
    contains.
    """
    return {index for piece, index in vocabulary.items() if piece in SPECIAL_PIECES or piece.startswith("[unused")}


def require_one_vocabulary(directory: Path, transformer: Transformer, vocabulary: Mapping[str, int]) -> None:
    """Check that tokeniser and model belong together, and that stored vectors can hold the vocabulary's ids.

    Raises ConfigurationError (`vocabulary_too_large`, `bad_tokenizer`).
    """
    if transformer.vocabulary > MAX_VOCABULARY:
        raise ConfigurationError(
            "vocabulary_too_large",
            f"{directory} has a vocabulary of {transformer.vocabulary:,} pieces, and vectors have at most "
            f"{MAX_VOCABULARY:,}.",
        )
    if (last := max(vocabulary.values(), default=0)) >= transformer.vocabulary:
        raise ConfigurationError(
            "bad_tokenizer",
            f"{directory / 'tokenizer.json'} has piece ids up to {last:,}, and the model has a vocabulary of "
            f"{transformer.vocabulary:,}: the tokeniser belongs to another model.",
        )


def require_window(pieces: int, overlap: int, room: int) -> None:
    """Check that a model that takes `room` pieces can have these windows. Raises ConfigurationError (`bad_window`)."""
    if not 16 <= pieces <= room or not 0 <= overlap <= pieces // 2:
        raise ConfigurationError(
            "bad_window",
            f"Windows of {pieces} pieces with an overlap of {overlap} are not possible: the model takes 16 to {room} "
            "pieces, and neighbours share at most half.",
        )


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy a tokenizer.json; switch truncation and padding off. Without them, the copy has the same bytes."""
    content = json.loads(source.read_bytes())
    if content.get("truncation") is None and content.get("padding") is None:
        target.write_bytes(source.read_bytes())
        return
    content["truncation"] = content["padding"] = None
    target.write_text(json.dumps(content, ensure_ascii=False))


def copy_query_weights(source: Path, target: Path, vocabulary: dict[str, int], excluded: Collection[int]) -> int:
    """Copy a query table by id, one piece a line, without the excluded pieces; return how many were left out.

    Raises ConfigurationError (`bad_query_table`) for invalid weights, and for pieces that the vocabulary lacks.
    """
    table = read_query_weights(source)
    unknown = [piece for piece in table if piece not in vocabulary]
    if unknown:
        raise ConfigurationError(
            "bad_query_table",
            f"{source} weighs {len(unknown):,} pieces that the tokeniser does not have, for example {unknown[0]!r}: it "
            "belongs to another model.",
        )
    kept = {piece: weight for piece, weight in table.items() if vocabulary[piece] not in excluded}
    write_query_weights(target, kept, vocabulary)
    return len(table) - len(kept)


def write_query_weights(target: Path, weights: Mapping[str, float], vocabulary: Mapping[str, int]) -> None:
    """Write a query table by id, one piece a line."""
    ordered = sorted(weights, key=vocabulary.__getitem__)
    lines = ",\n".join(f"{json.dumps(piece, ensure_ascii=False)}: {weights[piece]!r}" for piece in ordered)
    target.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def sample_passages(files: Sequence[Path], most: int) -> Iterator[tuple[str, str]]:
    """Yield at most `most` passages as (name of the file, passage). Each file gives the same number, drawn at random.

    A file with fewer passages gives all of its own. Raises the errors of `read_pairs`.
    """
    share = most // max(1, len(files))
    for file in files:
        passages = list({pair.passage: None for pair in read_pairs(file)})
        random.Random(_SEED).shuffle(passages)  # noqa: S311 (not a secret)
        yield from ((file.name, passage) for passage in islice(passages, share))


def count_reference(
    piece_ids: Callable[[str], Sequence[int]], passages: Iterable[tuple[str, str]]
) -> tuple[PieceFrequencies, dict[str, int]]:
    """Count the pieces of passages (file, text); also return the number of passages by file.

    `piece_ids` returns the pieces of a text. Raises InvalidInput (`too_few_passages`).
    """
    counter, by_file = PieceCounter(), dict[str, int]()
    for name, passage in passages:
        counter.add(piece_ids(passage))
        by_file[name] = by_file.get(name, 0) + 1
    if counter.documents < MIN_PASSAGES:
        raise InvalidInput(
            "too_few_passages",
            f"The files have {counter.documents:,} passages; a reference needs at least {MIN_PASSAGES:,}.",
        )
    return counter.frequencies(), by_file


def write_reference(directory: Path, frequencies: PieceFrequencies, by_file: Mapping[str, int]) -> None:
    """Write the frequencies into a model directory, and name them in its manifest. The fingerprint stays.

    Raises ConfigurationError (`bad_manifest`).
    """
    read_manifest(directory)
    path = directory / REFERENCE_FILE
    path.write_bytes(orjson.dumps(frequencies.pack()) + b"\n")
    manifest = json.loads((directory / MANIFEST_FILE).read_bytes())
    manifest["reference"] = describe_file(path).model_dump()
    manifest["reference_passages"] = dict(by_file)
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (directory / MANIFEST_FILE).write_text(text, encoding="utf-8")
    QueryTable.load(directory)


def measure_full_match(
    encoder: Encoder, table: QueryTable, passages: Iterable[tuple[str, str]], prune: float
) -> tuple[float, dict[str, int]]:
    """Return the encoder's `full_match`, and the number of passages by file.

    It is the median score of a passage (file, text) for its own first words, divided by the weight of that query.
    `prune` as in a search. Raises InvalidInput (`too_few_passages`).
    """
    matches, by_file = list[float](), dict[str, int]()
    for name, passage in passages:
        query = prune_query(table.encode(" ".join(passage.split()[:_FIRST_WORDS]), _MAX_PIECES), prune)
        if weight := sum(query.weights):
            vector = merge_max(encoder.encode(encoder.windows(passage)))
            weights = dict(zip(vector.ids.tolist(), vector.weights.tolist(), strict=True))
            matches.append(sum(w * weights.get(piece, 0.0) for piece, w in query.by_id().items()) / weight)
            by_file[name] = by_file.get(name, 0) + 1
    if len(matches) < MIN_SCALE_PASSAGES:
        raise InvalidInput(
            "too_few_passages",
            f"The files have {len(matches):,} passages; a scale needs at least {MIN_SCALE_PASSAGES:,}.",
        )
    return round(median(matches), 3), by_file


def write_full_match(directory: Path, full_match: float, by_file: Mapping[str, int]) -> None:
    """Write the scale of `min_score` into a manifest; the fingerprint stays.

    Raises ConfigurationError (`bad_manifest`).
    """
    read_manifest(directory)
    path = directory / MANIFEST_FILE
    members = json.loads(path.read_bytes()) | {"full_match": full_match, "full_match_passages": dict(by_file)}
    path.write_text(json.dumps(members, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    read_manifest(directory)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.export.package", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    source, out = arguments.checkpoint, arguments.out
    out.mkdir(parents=True, exist_ok=True)
    vocabulary = read_vocabulary(source / "tokenizer.json")
    copy_tokenizer(source / "tokenizer.json", out / "tokenizer.json")
    copy_query_weights(source / "idf.json", out / "query_weights.json", vocabulary, excluded_piece_ids(vocabulary))
    description = {
        "name": out.resolve().name,
        "architecture": "standin",
        "vocabulary": len(vocabulary),
        "max_pieces": 512,
        "window": {"pieces": 382, "overlap": 48},
        "top_k": 256,
        "activation": "log1p_count",
        "pooling": "count",
        "licence": "Apache-2.0",
        "training": {"query table": "plain IDF of the first shipped encoder's training passages"},
    }
    write_manifest(out, description, ("tokenizer.json", "query_weights.json"))


if __name__ == "__main__":
    main()
