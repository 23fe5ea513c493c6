"""Batches of the ONNX encoder (each row once, within the budget, little padding) and its providers."""

import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.onnx_encoder import batch_by_length, choose_providers
from services.encoders.manifest import WEIGHTS_ROOT, read_manifest

lengths_lists = st.lists(st.integers(0, 512), max_size=200)


@given(lengths_lists, st.integers(1, 4096))
def test_batches_have_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = batch_by_length(lengths, budget)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[position] for position in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget


@given(lengths_lists, st.integers(1, 4096))
def test_batches_have_descending_lengths(lengths: list[int], budget: int) -> None:
    batches = batch_by_length(lengths, budget)
    assert [lengths[p] for batch in batches for p in batch] == sorted(lengths, reverse=True)


def test_equal_lengths_keep_their_order() -> None:
    assert batch_by_length([3, 5, 3, 5], 10) == [[1, 3], [0, 2]]


def test_sorting_saves_padding() -> None:
    lengths = [8, 512] * 64
    padded = sum(len(b) * max(lengths[p] for p in b) for b in batch_by_length(lengths, 1024))
    assert padded <= 1.05 * sum(lengths)


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("precision", "available", "wanted"),
    [
        ("int8", [CUDA, CPU], [CPU]),
        ("fp16", [CUDA, CPU], [CUDA, CPU]),
        ("fp32", [CUDA, CPU], [CUDA, CPU]),
        ("fp16", [CPU], [CPU]),
        (None, [CUDA, CPU], [CPU]),
    ],
)
def test_half_precision_uses_a_gpu_and_int8_the_cpu(
    monkeypatch: pytest.MonkeyPatch, precision: str | None, available: list[str], wanted: list[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    shipped = read_manifest(WEIGHTS_ROOT / "projected-minilm-l6")
    assert choose_providers(shipped.model_copy(update={"precision": precision})) == wanted
