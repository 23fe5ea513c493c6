"""CUDA kernel of the vocabulary head: product and maximum over positions in one, without logits in memory.

A program handles a block of pieces and some documents. For each document it goes through the positions in tiles and
keeps the largest logit of each piece with its token. Both are written once: 8 bytes a document and piece, where the
plain computation writes and reads 4 bytes x length. The token is an int32 beside the exact float32 value, so packing
limits neither the length of a document nor the number of tokens (docs/decisions/0102).

The kernel supports any width, and float32, bfloat16 and float16. It runs on CUDA. With TRITON_INTERPRET=1 it runs
anywhere, slowly.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # Triton has no wheel for this platform; models.training.max_head then computes in blocks
    triton = None

log = logging.getLogger("models.training")
TRITON_AVAILABLE = triton is not None
# Tile of the product, and documents of a program, of a prototype that was measured on one H100 (16 ms for 209,000
# tokens, 384 wide, 30,522 pieces). The time of this kernel is not measured.
POSITIONS, PIECES, DOCUMENTS = 64, 128, 16
WARPS, STAGES = 4, 2


@cache
def is_supported(device: torch.device) -> bool:
    """Tell whether the kernel runs on a device; log the reason once when it does not.

    Triton compiles a kernel's launcher with the machine's C compiler. Images with torch often have none.
    """
    if not TRITON_AVAILABLE:
        return False
    try:
        probe = torch.zeros(1, 16, device=device)
        largest_logits(probe, probe, torch.tensor([0, 1], device=device))[0].cpu()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # errors of Triton, its compiler and the C compiler have no common base class
        reason = (str(error).strip() or type(error).__name__).split("\n", maxsplit=1)[0]
        log.warning("no kernel for the vocabulary head on %s (%s): PyTorch computes it in blocks", device, reason)
        return False
    return True


def tile_channels(dtype: torch.dtype) -> int:
    """Return the channels of a tile. Two stages of both tiles take 48 KB of shared memory, which all GPUs since Turing
    have.
    """
    return 32 if dtype == torch.float32 else 64


if TRITON_AVAILABLE:

    @triton.jit
    def largest_kernel(  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917 (Triton takes no annotations)
        states,
        weight,
        offsets,
        best_out,
        place_out,
        documents,
        pieces,
        width: tl.constexpr,
        precision: tl.constexpr,
        tile_positions: tl.constexpr,
        tile_pieces: tl.constexpr,
        tile_channels: tl.constexpr,
        group: tl.constexpr,
    ):
        piece = tl.program_id(0) * tile_pieces + tl.arange(0, tile_pieces)
        real_piece = piece < pieces
        channel = tl.arange(0, tile_channels)
        # int64: documents x pieces passes 2^31 at 70,000 documents
        first = tl.program_id(1).to(tl.int64) * group
        for step in range(group):
            document = first + step
            if document < documents:
                start = tl.load(offsets + document)
                end = tl.load(offsets + document + 1)
                best = tl.full([tile_pieces], float("-inf"), tl.float32)
                place = tl.zeros([tile_pieces], tl.int32)
                for tile in range(start, end, tile_positions):
                    token = tile + tl.arange(0, tile_positions)
                    real_token = token < end
                    logits = tl.zeros([tile_positions, tile_pieces], tl.float32)
                    for done in range(0, width, tile_channels):
                        real_channel = done + channel < width
                        left = tl.load(
                            states + token[:, None].to(tl.int64) * width + (done + channel)[None, :],
                            mask=real_token[:, None] & real_channel[None, :],
                            other=0.0,
                        )
                        right = tl.load(
                            weight + piece[None, :].to(tl.int64) * width + (done + channel)[:, None],
                            mask=real_piece[None, :] & real_channel[:, None],
                            other=0.0,
                        )
                        logits = tl.dot(left, right, logits, input_precision=precision)
                    logits = tl.where(real_token[:, None], logits, float("-inf"))
                    top, row = tl.max(logits, axis=0, return_indices=True)
                    place = tl.where(top > best, (tile + row).to(tl.int32), place)
                    best = tl.maximum(best, top)
                at = document * pieces + piece
                tl.store(best_out + at, best, mask=real_piece)
                tl.store(place_out + at, place, mask=real_piece)


def largest_logits(states: Tensor, weight: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each document and piece the largest logit, float32, and its token, int32.

    Both are [documents, vocabulary]. `states` [tokens, width], `weight` [vocabulary, width] (cast to the type of
    `states`), `offsets` integers [documents + 1]. A document without tokens has -inf and token 0; a document with NaN
    or infinity in its states has NaN.
    """
    documents, pieces, width = len(offsets) - 1, weight.shape[0], weight.shape[1]
    best = torch.empty((documents, pieces), dtype=torch.float32, device=states.device)
    place = torch.empty((documents, pieces), dtype=torch.int32, device=states.device)
    if documents == 0:
        return best, place
    exact = states.dtype == torch.float32 and not torch.backends.cuda.matmul.allow_tf32
    grid = (triton.cdiv(pieces, PIECES), triton.cdiv(documents, DOCUMENTS))
    largest_kernel[grid](
        states.contiguous(),
        weight.detach().to(states.dtype).contiguous(),
        offsets.to(torch.int32),
        best,
        place,
        documents,
        pieces,
        width=width,
        precision="ieee" if exact else "tf32",
        tile_positions=POSITIONS,
        tile_pieces=PIECES,
        tile_channels=tile_channels(states.dtype),
        group=DOCUMENTS,
        num_warps=WARPS,
        num_stages=STAGES,
        # explicit, because Triton 3.10 changes the default; it affects one addition, the product is always fused
        enable_fp_fusion=True,
    )
    # Comparisons drop NaN, and training would continue on a finite loss over broken states. NaN times zero is NaN.
    owners = torch.repeat_interleave(offsets.diff(), output_size=states.shape[0])
    poison = torch.zeros(documents, dtype=torch.float32, device=states.device)
    poison.index_add_(0, owners, states.detach().float().sum(dim=1) * 0.0)
    best += poison[:, None]
    return best, place
