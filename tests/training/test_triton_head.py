"""The head's Triton kernel: run in the interpreter, compiled for GPUs, and run on a GPU if available."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.training import triton_head
from models.training.max_head import max_head, max_head_packed

ROOT = Path(__file__).resolve().parents[2]
needs_triton = pytest.mark.skipif(not triton_head.TRITON_AVAILABLE, reason="no Triton for this platform")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

# Lengths 0, 1 and above 511; neither the width nor the vocabulary is a multiple of the tile.
INTERPRETED = """
import json, sys, torch
from models.training import triton_head
from models.training.max_head import largest_logits

torch.manual_seed(0)
found = []
sizes = [([5, 0, 70, 600, 1, *[3] * 20], 40, 211), ([64, 128], 64, 128), ([0], 8, 5), ([], 8, 5)]
for dtype in (torch.float32, torch.float16):
    for lengths, width, vocabulary in sizes:
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        states = torch.randn(int(offsets[-1]), width).to(dtype)
        weight = torch.randn(vocabulary, width)
        best, place = triton_head.largest_logits(states, weight, offsets)
        wanted, token = largest_logits(states.float(), weight.to(dtype).float(), offsets, places=True)
        filled = wanted.isfinite()
        found.append({
            "shape": list(best.shape) == [len(lengths), vocabulary],
            "difference": (best - wanted)[filled].abs().max().item() if filled.any() else 0.0,
            "empty": bool((best[~filled] == float("-inf")).all()),
            "places": bool((place == token)[filled].all()),
        })
states = torch.randn(8, 24)
states[2, 3], states[7, 0] = float("nan"), float("inf")
best, _ = triton_head.largest_logits(states, torch.randn(20, 24), torch.tensor([0, 4, 6, 8]))
found.append({"nan": best.isnan().any(dim=1).tolist()})
json.dump(found, sys.stdout)
"""


@needs_triton
def test_the_interpreter_computes_the_plain_values() -> None:
    """Only the GPU test covers bfloat16, because Triton 3.9's interpreter multiplies its bits as integers."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *cases, broken = json.loads(done.stdout)
    assert len(cases) == 8
    for one in cases:
        assert one["shape"] and one["empty"] and one["places"] and one["difference"] < 1e-4, one
    # NaN in the states must reach the loss.
    assert broken["nan"] == [True, False, True]


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kind", ["bf16", "fp16", "fp32"])
def test_the_kernel_compiles_for_gpus(capability: int, kind: str) -> None:
    """The machine code fits into a small GPU's shared memory and spills no register. The test needs no GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[kind]
    constants = {
        "width": 384,
        "precision": "tf32",
        "tile_positions": triton_head.POSITIONS,
        "tile_pieces": triton_head.PIECES,
        "tile_channels": triton_head.tile_channels(dtype),
        "group": triton_head.DOCUMENTS,
    }
    signature = {
        "states": f"*{kind}", "weight": f"*{kind}", "offsets": "*i32", "best_out": "*fp32", "place_out": "*i32",
        "documents": "i32", "pieces": "i32", **dict.fromkeys(constants, "constexpr"),
    }  # fmt: skip
    aligned = {(argument,): [["tt.divisibility", 16]] for argument in (0, 1, 3, 4)}
    compiled = triton.compile(
        ASTSource(fn=triton_head.largest_kernel, signature=signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": triton_head.WARPS, "num_stages": triton_head.STAGES, "enable_fp_fusion": True},
    )
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= 64 * 1024
    assert "st.local" not in compiled.asm["ptx"]


@needs_triton
def test_the_log_says_once_why_the_kernel_cannot_be_built(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a machine with a GPU and no C compiler, the head uses the implementation for all devices."""

    def unbuilt(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable\nand more")

    monkeypatch.setattr(triton_head, "largest_logits", unbuilt)
    triton_head.is_supported.cache_clear()
    for _ in range(2):
        assert not triton_head.is_supported(torch.device("cpu"))
    triton_head.is_supported.cache_clear()
    (said,) = caplog.messages
    assert "Failed to find C compiler" in said and "in blocks" in said and "\n" not in said


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [384, 768, 100])
def test_values_and_gradients_on_a_gpu_equal_those_of_the_cpu(dtype: torch.dtype, width: int) -> None:
    torch.manual_seed(0)
    lengths = [192, 600, 0, 1, 64, 65]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    given = [torch.randn(int(offsets[-1]), width), torch.randn(1000, width) / width**0.5, torch.randn(1000) - 1]
    found = []
    for device, kind in (("cpu", torch.float32), ("cuda", dtype)):
        states, weight, bias = (one.to(device).requires_grad_() for one in given)
        out = max_head_packed(states.to(kind), offsets.to(device), weight, bias)
        out.square().sum().backward()
        found.append([out.detach().cpu(), *(one.grad.cpu() for one in (states, weight, bias))])
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found[1][0], found[0][0], atol=tolerance, rtol=tolerance)
    for one, other in zip(found[1][1:], found[0][1:], strict=True):
        assert torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.99


@needs_gpu
def test_the_logits_are_never_in_memory_on_a_gpu() -> None:
    torch.cuda.reset_peak_memory_stats()
    states = torch.randn(128, 192, 384, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(30522, 384, device="cuda", requires_grad=True)
    max_head(states, torch.ones(128, 192, device="cuda"), weight).sum().backward()
    # All logits in float32 would have 3 GB.
    assert torch.cuda.max_memory_allocated() < 128 * 192 * 30522 * 4 / 3
