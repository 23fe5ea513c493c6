"""What is timed: one batch of piece ids through a model, by ONNX Runtime or by sentence-transformers' own modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from services.manifest import has_manifest

Runner = Callable[[np.ndarray], None]


def runner(directory: Path, threads: int, *, spinning: bool) -> Runner:
    """A function that encodes int32 [documents, pieces], no padding in it, and drops the result.

    A model directory runs as a worker runs it. A checkpoint runs through sentence-transformers' Transformer and
    SpladePooling in float32, which is what SparseEncoder computes for documents, without its tokenising.
    """
    return _onnx(directory, threads, spinning=spinning) if has_manifest(directory) else _plain(directory, threads)


def _onnx(directory: Path, threads: int, *, spinning: bool) -> Runner:
    import onnxruntime

    from models.onnx_encoder import MODEL, session_options

    options = session_options(threads, spinning=spinning)
    session = onnxruntime.InferenceSession(str(directory / MODEL), options, providers=["CPUExecutionProvider"])

    def run(batch: np.ndarray) -> None:
        session.run(["ids", "weights"], {"input_ids": batch, "attention_mask": np.ones_like(batch)})

    return run


def _plain(directory: Path, threads: int) -> Runner:
    import torch
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    torch.set_num_threads(threads)
    document = Transformer(str(directory), transformer_task="fill-mask").float().eval()
    pooling = SpladePooling("max").eval()

    def run(batch: np.ndarray) -> None:
        with torch.inference_mode():
            ids = torch.from_numpy(batch.astype(np.int64))
            pooling(document({"input_ids": ids, "attention_mask": torch.ones_like(ids)}))

    return run
