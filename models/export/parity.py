"""Parity of an export: PyTorch float32 against the graph in float32, float16, int8 and int7.

`measure_parity` compares weights, supports and NDCG@10 on judged collections, with windows and with the first window
only. The manifest keeps the NDCG@10 figures (docs/decisions/0104). `TorchReference` is the same encoder in
PyTorch, from transformers' model class.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence, Set
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from transformers import AutoModelForMaskedLM

from models.encoder import PieceTokeniser
from models.export.checkpoint import Checkpoint
from models.export.collection import Collection, mean_ndcg
from models.export.onnx_graph import RowEncoder, RowVectors, build_graph, encode_rows, make_graph_encoder
from models.export.throughput import cpu_name
from models.export.transformer_graph import Precision
from models.onnx_encoder import pad_rows
from models.training.recipe import Activation, EncoderRecipe
from services.encoders.manifest import Manifest
from services.encoders.query_table import QueryTable
from services.encoders.vectors import SparseVector, merge_max

# On a CPU, float16 shows the cost of rounded weights, not of half-precision sums: the runtime casts to float32.
PRECISIONS: dict[str, Precision] = {
    "onnx-float32": "fp32",
    "onnx-float16": "fp16",
    "onnx-int8": "int8",
    "onnx-int7": "int7",
}
RECORDED_PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "tokenizers", "numpy", "safetensors")


def measure_parity(
    source: Path,
    out: Path,
    checkpoint: Checkpoint,
    manifest: Manifest,
    excluded: set[int],
    collections: Sequence[Collection],
) -> dict[str, Any]:
    """Return the report: for each collection and way of cutting, each form of the encoder against PyTorch float32."""
    pieces, table = PieceTokeniser.load(out / "tokenizer.json"), QueryTable.load(out)
    recipe = EncoderRecipe.read(source) or EncoderRecipe()
    options: GraphOptions = {
        "top_k": manifest.top_k,
        "excluded": excluded,
        "activation": recipe.activation,
        "expansion": recipe.expansion,
    }
    encoders: dict[str, RowEncoder] = {
        "torch-float32": TorchReference(source, **options).encode,
        **{
            label: make_graph_encoder(build_graph(checkpoint, precision=precision, **options))
            for label, precision in PRECISIONS.items()
        },
    }
    report: dict[str, Any] = {
        "encoder": manifest.name,
        "fingerprint": manifest.fingerprint,
        "machine": {"cpu": cpu_name(), "system": platform.platform(terse=True), "python": platform.python_version()},
        "versions": {package: version(package) for package in RECORDED_PACKAGES},
        "collections": {},
    }
    for collection in collections:
        window = manifest.window
        room = manifest.max_pieces - 2
        cuts = {
            f"windows of {window.pieces} pieces, overlap {window.overlap}": cut_documents(
                collection, pieces, window.pieces, window.overlap, first_only=False
            ),
            f"first {room} pieces": cut_documents(collection, pieces, room, 0, first_only=True),
        }
        figures: dict[str, Any] = {}
        for label, windows in cuts.items():
            reference: RowVectors | None = None
            figures[label] = {"rows": len(windows.rows)}
            for name, encoder in encoders.items():
                vectors = encode_rows(encoder, windows.rows)
                reference = reference or vectors
                documents = merge_window_vectors(len(collection.documents), windows, vectors)
                figures[label][name] = {
                    "ndcg_at_10": round(mean_ndcg(collection, documents, table), 4),
                    **weight_differences(reference, vectors, manifest.vocabulary),
                }
        report["collections"][collection.name] = figures
    return report


class TorchReference:
    """Reference encoder in PyTorch: activation of the largest logit over positions, top k; float32 on the CPU.

    The activation is log(1 + relu) or log(1 + log(1 + relu)). Excluded pieces weigh zero. Without `expansion`, pieces
    that are not in the text weigh zero too.
    """

    def __init__(
        self,
        directory: Path,
        *,
        top_k: int,
        excluded: Set[int],
        activation: Activation = "log1p_relu",
        expansion: bool = True,
    ) -> None:
        self._model = AutoModelForMaskedLM.from_pretrained(
            str(directory), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).eval()
        self._top_k = top_k
        self._excluded = sorted(excluded)
        self._activation = activation
        self._expansion = expansion

    def encode(self, rows: Sequence[Sequence[int]]) -> RowVectors:
        """Encode rows of piece ids with their special pieces: ids int32 and weights float32, [rows, k], descending."""
        input_ids, mask = pad_rows(rows)
        with torch.inference_mode():
            real = torch.from_numpy(mask)
            ids = torch.from_numpy(input_ids)
            logits = self._model(input_ids=ids, attention_mask=real).logits
            largest = logits.masked_fill(real[:, :, None] == 0, float("-inf")).amax(1)
            weights = torch.log1p(torch.relu(largest))
            if self._activation == "log1p_log1p_relu":
                weights = torch.log1p(weights)
            weights[:, self._excluded] = 0.0
            if not self._expansion:
                weights *= torch.zeros_like(weights).scatter_reduce_(1, ids.long(), real.float(), "amax")
            values, best = weights.topk(self._top_k, dim=1)
        return best.numpy().astype(np.int32), values.numpy()


class GraphOptions(TypedDict):
    """Options that the graph and the reference share."""

    top_k: int
    excluded: set[int]
    activation: Activation
    expansion: bool


@dataclass(frozen=True)
class WindowRows:
    """Documents cut into windows: `rows` of piece ids, and `owners`, the document of each."""

    rows: list[tuple[int, ...]]
    owners: list[int]


def cut_documents(
    collection: Collection, pieces: PieceTokeniser, size: int, overlap: int, *, first_only: bool
) -> WindowRows:
    """Return the windows of every document with [CLS] and [SEP]; only the first of each with `first_only`."""
    opening, closing = pieces.id_of("[CLS]"), pieces.id_of("[SEP]")
    rows: list[tuple[int, ...]] = []
    owners: list[int] = []
    for owner, text in enumerate(collection.documents):
        windows = pieces.windows(text, size, overlap)
        for window in windows[:1] if first_only else windows:
            rows.append((opening, *window.piece_ids, closing))
            owners.append(owner)
    return WindowRows(rows, owners)


def merge_window_vectors(documents: int, windows: WindowRows, vectors: RowVectors) -> list[SparseVector]:
    """Return a vector for each document, as the indexer makes it: Lucene's precision, maximum over windows."""
    parts: list[list[SparseVector]] = [[] for _ in range(documents)]
    for owner, ids, weights in zip(windows.owners, *vectors, strict=True):
        parts[owner].append(SparseVector.of(ids, weights))
    return [merge_max(vectors_of_document) for vectors_of_document in parts]


def weight_differences(reference: RowVectors, other: RowVectors, vocabulary: int) -> dict[str, float]:
    """Return the differences between the weights of `other` and `reference`, over the pieces that either weighs.

    `support_overlap` is the mean share of pieces that both weigh among those that either weighs (Jaccard).
    """
    largest, absolute, count = 0.0, 0.0, 0
    overlaps: list[float] = []
    sizes: list[int] = []
    for ids_a, weights_a, ids_b, weights_b in zip(*reference, *other, strict=True):
        a, b = np.zeros(vocabulary, np.float32), np.zeros(vocabulary, np.float32)
        a[ids_a], b[ids_b] = weights_a, weights_b
        either = (a > 0) | (b > 0)
        gap = np.abs(a - b)[either]
        largest = max(largest, float(gap.max(initial=0.0)))
        absolute += float(gap.sum())
        count += int(either.sum())
        overlaps.append(float(((a > 0) & (b > 0)).sum() / max(1, either.sum())))
        sizes.append(int((b > 0).sum()))
    return {
        "max_abs": round(largest, 6),
        "mean_abs": round(absolute / max(1, count), 6),
        "support_overlap": round(float(np.mean(overlaps)), 4),
        "weights_a_window": round(float(np.mean(sizes)), 1),
    }
