"""What a device multiplies fast, and how torch says that its memory is used up."""

from __future__ import annotations

import torch


def out_of_memory(error: RuntimeError) -> bool:
    """On a GPU torch has a class for it, on a processor its allocator raises a bare RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def cpu_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware, otherwise float32.

    SmolLM2-135M, one core of an EPYC with AVX512-BF16, windows of 128 pieces: 4.5 documents a second of processor time
    for 1.3 in float32.
    """
    found = torch.cpu.get_capabilities()
    return torch.bfloat16 if found.get("avx512_bf16") or found.get("amx_bf16") else torch.float32
