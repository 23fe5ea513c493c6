"""What a device multiplies fast, and how torch says that its memory is used up."""

from __future__ import annotations

import ctypes
import gc

import torch

# The allocator for processors on Linux and elsewhere, the C++ library, oneDNN (a training under `ulimit -v` ended so),
# and CUDA where it is not torch's own pool that has no more (a context, the workspace of a product).
_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "could not create a primitive",
    "could not create a memory object",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def out_of_memory(error: BaseException) -> bool:
    """For its pool on a GPU torch has a class, everything else is a bare RuntimeError; NumPy has Python's own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in _NO_MEMORY)


def free_memory() -> None:
    """Gives back what a step that failed still holds: tensors in cycles of frames and errors, and what pools keep.

    The C library keeps freed tensors for its next small ones: a training under `ulimit -v` had 4 GB there and ended for
    want of a few kilobytes of code.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def cpu_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware, otherwise float32.

    SmolLM2-135M, one core of an EPYC with AVX512-BF16, windows of 128 pieces: 4.5 documents a second of processor time
    for 1.3 in float32.
    """
    found = torch.cpu.get_capabilities()
    return torch.bfloat16 if found.get("avx512_bf16") or found.get("amx_bf16") else torch.float32
