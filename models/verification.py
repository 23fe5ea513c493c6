"""Verification of a model directory: would a worker serve it?

`verify_directory` checks the files, the query table, the ONNX graph or the decoder's configuration, and encodes a text.
The graph check uses ONNX Runtime alone, the decoder check no PyTorch. Model libraries are imported inside the checks,
so that a missing one is an error of the directory's check and not of this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.decoder.tokenisation import EchoFormat
from models.projection.moments import PassageMoments
from models.registry import DECODER_ARCHITECTURE, load_encoder
from services.encoders.checks import (
    QueryTableStatistics,
    check_model_files,
    check_query_table,
    find_refused_files,
    measure_query_table,
)
from services.encoders.dense_query_table import DenseQueryTable
from services.encoders.manifest import MANIFEST_FILE, Manifest, has_manifest, read_manifest
from services.encoders.query_table import QueryTable
from services.errors import ConfigurationError, SparsewellError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_INPUTS = {"input_ids": "tensor(int32)", "attention_mask": "tensor(int32)"}
_OUTPUTS = {"ids": "tensor(int32)", "weights": "tensor(float)"}
# A projected encoder also gives dense vectors.
_DENSE_OUTPUT = {"dense": "tensor(float)"}
# Words of the query table in the text that is encoded as a test.
_SMOKE_WORDS = 40


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """The outcome of a verification. `problems` is empty for a complete encoder.

    `own_words` of the `words` words of a test text have a weight in its vector; a trained encoder weighs nearly all of
    them. The figure is reported and is never a problem.
    """

    problems: list[SparsewellError] = field(default_factory=list)
    table: QueryTableStatistics | None = None
    own_words: int = 0
    words: int = 0


def verify_directory(directory: Path) -> VerificationResult:
    """Run all checks; checks that depend on a failed one are skipped.

    Raises ConfigurationError (`missing_extra`) when a package that loads the model is not installed.
    """
    if not has_manifest(directory):
        # The directory may be of any kind, so nothing else in it is a problem.
        return VerificationResult(
            [
                ConfigurationError(
                    "bad_manifest",
                    f"{directory} has no {MANIFEST_FILE}: it is not a model directory. `sparsewell encoders export` "
                    "makes one.",
                )
            ]
        )
    problems: list[SparsewellError] = list(find_refused_files(directory))
    try:
        manifest = read_manifest(directory)
    except ConfigurationError as error:
        return VerificationResult([*problems, error])
    problems += check_model_files(directory, manifest)
    if problems:
        # A changed file is never opened.
        return VerificationResult(problems)
    try:
        table = QueryTable.load(directory)
        DenseQueryTable.load(directory, manifest)
        if manifest.moments is not None:
            PassageMoments.load(directory, manifest)
        statistics = measure_query_table(table)
        problems += check_query_table(directory, statistics)
        if "model.onnx" in manifest.files:
            problems += find_graph_problems(directory, manifest)
        if manifest.architecture == DECODER_ARCHITECTURE:
            problems += find_decoder_problems(directory, manifest)
        if problems:
            return VerificationResult(problems, statistics)
        own_words, words = _try_encoding(directory, table, statistics.words)
    except SparsewellError as error:
        return VerificationResult([*problems, error])
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "missing_extra", f"Loading {directory} needs the package {error.name}: pip install -e '.[worker]'."
        ) from None
    return VerificationResult([], statistics, own_words, words)


def find_graph_problems(directory: Path, manifest: Manifest) -> Iterator[ConfigurationError]:
    """Find differences between a graph and its manifest, `bad_model`.

    The check covers names and types of inputs and outputs, top_k, vocabulary and longest input.
    """
    import onnxruntime

    from models.onnx_encoder import MODEL_FILE, make_session_options

    path = directory / MODEL_FILE
    try:
        session = onnxruntime.InferenceSession(str(path), make_session_options(1), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base but Exception
        yield _bad_graph(path, f"it cannot be loaded by ONNX Runtime ({str(error).splitlines()[0]})")
        return
    outputs = _OUTPUTS | ({} if manifest.dense is None else _DENSE_OUTPUT)
    for kind, expected, actual in (
        ("inputs", _INPUTS, {tensor.name: tensor.type for tensor in session.get_inputs()}),
        ("outputs", outputs, {tensor.name: tensor.type for tensor in session.get_outputs()}),
    ):
        if actual != expected:
            yield _bad_graph(path, f"its {kind} are {_join_names(actual)}, and a worker needs {_join_names(expected)}")
            return
    widths = {tensor.name: tensor.shape[-1] for tensor in session.get_outputs()}
    if manifest.dense is not None and widths.pop("dense") != manifest.dense.width:
        yield _bad_graph(path, f"its dense vectors do not have the manifest's {manifest.dense.width} numbers")
    if set(widths.values()) != {manifest.top_k}:
        yield _bad_graph(path, f"it gives {widths['weights']} weights a window, and the manifest says {manifest.top_k}")
    # The shapes do not show vocabulary and longest input: the graph must accept the last id and refuse the next one.
    if not _can_run(session, manifest.vocabulary - 1, 1) or _can_run(session, manifest.vocabulary, 1):
        yield _bad_graph(path, f"its vocabulary does not have the manifest's {manifest.vocabulary:,} pieces")
    if not _can_run(session, 0, manifest.max_pieces):
        yield _bad_graph(path, f"it refuses an input of {manifest.max_pieces} pieces, the manifest's maximum")


def _can_run(session: InferenceSession, piece: int, length: int) -> bool:
    import onnxruntime

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


def _bad_graph(path: Path, defect: str) -> ConfigurationError:
    return ConfigurationError("bad_model", f"{path}: {defect}; export the encoder again.")


def find_decoder_problems(directory: Path, manifest: Manifest) -> Iterator[ConfigurationError]:
    """Find differences between a decoder and its manifest, `bad_model`: vocabulary and longest input.

    The longest input is checked in the configuration, because a decoder also runs on positions beyond its training.
    """
    try:
        config = json.loads((directory / "config.json").read_bytes())
        side = json.loads((directory / "document_side.json").read_bytes())
        vocabulary, positions = int(config["vocab_size"]), int(config["max_position_embeddings"])
        positions = min(positions, int(config.get("sliding_window") or positions))
        room = EchoFormat(tuple(side["before"]), tuple(side["between"])).room(positions)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield _bad_decoder(directory, f"config.json or document_side.json does not describe a decoder ({error!r})")
        return
    if vocabulary != manifest.vocabulary:
        yield _bad_decoder(
            directory, f"its vocabulary has {vocabulary:,} pieces, and the manifest says {manifest.vocabulary:,}"
        )
    if manifest.max_pieces - 2 > room:
        yield _bad_decoder(
            directory, f"it takes windows of {room} pieces, and the manifest says {manifest.max_pieces - 2}"
        )


def _bad_decoder(directory: Path, defect: str) -> ConfigurationError:
    return ConfigurationError("bad_model", f"{directory}: {defect}; write it again with `sparsewell train mistral`.")


def _try_encoding(directory: Path, table: QueryTable, table_words: Sequence[str]) -> tuple[int, int]:
    """Encode a text of words of the query table. Returns the number of words with a weight, and of all words.

    Raises SparsewellError when the encoder cannot be loaded, gives NaN or infinity, or an empty vector.
    """
    step = len(table_words) // _SMOKE_WORDS + 1
    words = table_words[::step]
    encoder = load_encoder(str(directory), threads=1)
    vectors = encoder.encode(encoder.windows(" ".join(words)))
    weighed = {piece for vector in vectors for piece in vector.ids.tolist()}
    if not weighed:
        raise ConfigurationError(
            "bad_model",
            f"{directory}: the model gave an empty vector for a text of {len(words)} words. It is untrained or "
            "damaged; export it again from its checkpoint.",
        )
    return sum(1 for word in words if weighed & set(table.ids(word))), len(words)
