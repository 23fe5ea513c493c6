"""Whether a model directory is whole and would serve: its files, its query table, its graph, and one encoding.

Whether the directory of a decoder is the one that its manifest describes, told without PyTorch.

Whether a model.onnx is the graph that its manifest describes, told by the runtime alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime

from models.decoder.model import EchoFormat
from models.onnx_encoder import MODEL_FILE, make_session_options
from models.registry import DECODER_ARCHITECTURE, load_encoder
from services.encoders.checks import (
    QueryTableStatistics,
    check_model_files,
    check_query_table,
    find_refused_files,
    measure_query_table,
)
from services.encoders.manifest import MANIFEST_FILE, Manifest, has_manifest, read_manifest
from services.encoders.query_table import QueryTable
from services.errors import ConfigurationError, SparsewellError


def find_decoder_problems(directory: Path, manifest: Manifest) -> Iterator[ConfigurationError]:
    """Errors (`bad_model`): vocabulary, and the longest input.

    A decoder computes something for positions that it was never trained for, so no run would show them.
    """
    try:
        config = json.loads((directory / "config.json").read_bytes())
        side = json.loads((directory / "document_side.json").read_bytes())
        vocabulary, positions = int(config["vocab_size"]), int(config["max_position_embeddings"])
        positions = min(positions, int(config.get("sliding_window") or positions))
        room = EchoFormat(tuple(side["before"]), tuple(side["between"])).room(positions)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield _bad_decoder(directory, f"config.json and document_side.json are not a decoder's ({error!r})")
        return
    if vocabulary != manifest.vocabulary:
        yield _bad_decoder(
            directory, f"its vocabulary of {vocabulary:,} is not the manifest's of {manifest.vocabulary:,} pieces"
        )
    if manifest.max_pieces - 2 > room:
        yield _bad_decoder(
            directory, f"it has room for windows of {room} pieces, and the manifest promises {manifest.max_pieces - 2}"
        )


def _bad_decoder(directory: Path, what: str) -> ConfigurationError:
    return ConfigurationError("bad_model", f"{directory}: {what}; write it again with `sparsewell train mistral`.")


_INPUTS = {"input_ids": "tensor(int32)", "attention_mask": "tensor(int32)"}
_OUTPUTS = {"ids": "tensor(int32)", "weights": "tensor(float)"}


def find_graph_problems(directory: Path, manifest: Manifest) -> Iterator[ConfigurationError]:
    """Errors (`bad_model`): names and types of inputs and outputs, top_k, vocabulary and longest input."""
    path = directory / MODEL_FILE
    try:
        session = onnxruntime.InferenceSession(str(path), make_session_options(1), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base but Exception
        yield _bad_graph(path, f"it cannot be loaded by ONNX Runtime ({str(error).splitlines()[0]})")
        return
    for kind, wanted, found in (
        ("inputs", _INPUTS, {one.name: one.type for one in session.get_inputs()}),
        ("outputs", _OUTPUTS, {one.name: one.type for one in session.get_outputs()}),
    ):
        if found != wanted:
            yield _bad_graph(path, f"its {kind} are {_join_names(found)}, and a worker needs {_join_names(wanted)}")
            return
    widths = {one.name: one.shape[-1] for one in session.get_outputs()}
    if set(widths.values()) != {manifest.top_k}:
        yield _bad_graph(path, f"it gives {widths['weights']} weights a window, and the manifest says {manifest.top_k}")
    # Shapes do not name the vocabulary and the longest input: the graph has to take the last and refuse the next.
    if not _can_run(session, manifest.vocabulary - 1, 1) or _can_run(session, manifest.vocabulary, 1):
        yield _bad_graph(path, f"its vocabulary is not the manifest's of {manifest.vocabulary:,} pieces")
    if not _can_run(session, 0, manifest.max_pieces):
        yield _bad_graph(path, f"it takes no input of {manifest.max_pieces} pieces, the longest by the manifest")


def _can_run(session: onnxruntime.InferenceSession, piece: int, length: int) -> bool:
    row = np.full((1, length), piece, dtype=np.int32)
    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4
    try:
        session.run(["weights"], {"input_ids": row, "attention_mask": np.ones_like(row)}, quiet)
    except Exception:  # onnxruntime's errors share no base but Exception
        return False
    return True


def _join_names(names: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in sorted(names.items())) or "none"


def _bad_graph(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError("bad_model", f"{path}: {what}; export the encoder again.")


# Words of the table in the text that is encoded to see whether the model gives anything.
_SMOKE_WORDS = 40


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """What was found: `problems` is empty for an encoder that is whole.

    `own_words` is how many of `words` words of a text the model weighed in its vector: a trained encoder weighs nearly
    all of them. It is told, not judged.
    """

    problems: list[SparsewellError] = field(default_factory=list)
    table: QueryTableStatistics | None = None
    own_words: int = 0
    words: int = 0


def verify_directory(directory: Path) -> VerificationResult:
    """Every check that the state of the directory allows; a later one is left out where its ground is missing.

    Raises ConfigurationError (`missing_extra`) where the packages that load a model are not installed.
    """
    if not has_manifest(directory):
        # Any folder may be named: what else is in it is not ours to judge.
        return VerificationResult(
            [
                ConfigurationError(
                    "bad_manifest",
                    f"{directory} has no {MANIFEST_FILE}: it is no model directory; `sparsewell encoders export` makes one.",
                )
            ]
        )
    problems: list[SparsewellError] = list(find_refused_files(directory))
    try:
        manifest = read_manifest(directory)
    except ConfigurationError as error:
        return VerificationResult([*problems, error])
    found = list(check_model_files(directory, manifest))
    if problems or found:
        # Nothing is opened of a directory in which a file was changed.
        return VerificationResult([*problems, *found])
    try:
        table = QueryTable.load(directory)
        facts = measure_query_table(table)
        problems += check_query_table(directory, facts)
        if "model.onnx" in manifest.files:
            problems += find_graph_problems(directory, manifest)
        if manifest.architecture == DECODER_ARCHITECTURE:
            problems += find_decoder_problems(directory, manifest)
        if problems:
            return VerificationResult(problems, facts)
        own, words = _try_encoding(directory, table, facts)
    except SparsewellError as error:
        return VerificationResult([*problems, error])
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "missing_extra", f"Loading {directory} needs the package {error.name}: pip install -e '.[worker]'."
        ) from None
    return VerificationResult([], facts, own, words)


def _try_encoding(directory: Path, table: QueryTable, facts: QueryTableStatistics) -> tuple[int, int]:
    """Encodes a text of the table's own words; how many of them the vector weighs, and how many there are.

    Raises SparsewellError where the encoder cannot be loaded, gives NaN or infinity, or gives nothing at all.
    """
    step = len(facts.words) // _SMOKE_WORDS + 1
    words = facts.words[::step]
    encoder = load_encoder(str(directory), threads=1)
    vectors = encoder.encode(encoder.windows(" ".join(words)))
    weighed = {piece for vector in vectors for piece in vector.ids.tolist()}
    if not weighed:
        raise ConfigurationError(
            "bad_model",
            f"{directory}: the model gave no weight to any piece of a text of {len(words)} words: it is untrained or "
            "damaged; export it again from its checkpoint.",
        )
    return sum(1 for word in words if weighed & set(table.ids(word))), len(words)
