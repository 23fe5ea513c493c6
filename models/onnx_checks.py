"""Whether a model.onnx is the graph that its manifest describes, told by the runtime alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from models.onnx_encoder import MODEL, session_options
from services.errors import ConfigurationError
from services.manifest import Manifest

_INPUTS = {"input_ids": "tensor(int32)", "attention_mask": "tensor(int32)"}
_OUTPUTS = {"ids": "tensor(int32)", "weights": "tensor(float)"}


def graph_problems(directory: Path, manifest: Manifest) -> Iterator[ConfigurationError]:
    """Errors (`bad_model`): names and types of inputs and outputs, top_k, vocabulary and longest input."""
    path = directory / MODEL
    try:
        session = onnxruntime.InferenceSession(str(path), session_options(1), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base but Exception
        yield _bad(path, f"it cannot be loaded by ONNX Runtime ({str(error).splitlines()[0]})")
        return
    for kind, wanted, found in (
        ("inputs", _INPUTS, {one.name: one.type for one in session.get_inputs()}),
        ("outputs", _OUTPUTS, {one.name: one.type for one in session.get_outputs()}),
    ):
        if found != wanted:
            yield _bad(path, f"its {kind} are {_listed(found)}, and a worker needs {_listed(wanted)}")
            return
    widths = {one.name: one.shape[-1] for one in session.get_outputs()}
    if set(widths.values()) != {manifest.top_k}:
        yield _bad(path, f"it gives {widths['weights']} weights a window, and the manifest says {manifest.top_k}")
    # Shapes do not name the vocabulary and the longest input: the graph has to take the last and refuse the next.
    if not _runs(session, manifest.vocabulary - 1, 1) or _runs(session, manifest.vocabulary, 1):
        yield _bad(path, f"its vocabulary is not the manifest's of {manifest.vocabulary:,} pieces")
    if not _runs(session, 0, manifest.max_pieces):
        yield _bad(path, f"it takes no input of {manifest.max_pieces} pieces, the longest by the manifest")


def _runs(session: onnxruntime.InferenceSession, piece: int, length: int) -> bool:
    row = np.full((1, length), piece, dtype=np.int32)
    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4
    try:
        session.run(["weights"], {"input_ids": row, "attention_mask": np.ones_like(row)}, quiet)
    except Exception:  # onnxruntime's errors share no base but Exception
        return False
    return True


def _listed(names: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in sorted(names.items())) or "none"


def _bad(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError("bad_model", f"{path}: {what}; export the encoder again.")
