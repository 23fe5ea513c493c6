"""The vocabulary product and its maximum over positions as one kernel: the logits never leave the chip.

A program takes one block of pieces and some documents. For each document it goes through the positions in tiles, keeps
the largest logit of each piece and the token that has it, and writes both once: 8 bytes a document and piece, where the
plain computation writes and reads 4 bytes x length. The token is kept as an int32 beside the value, so neither the
length of a document nor the number of tokens is limited by how it is packed, and the value is exact.

Works for any width and for float32, bfloat16 and float16; runs on CUDA, and with TRITON_INTERPRET=1 anywhere, slowly.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # no wheel of it for this platform; models.training.max_head computes in blocks then
    triton = None

log = logging.getLogger("models.training")
TRITON_AVAILABLE = triton is not None
# Tile of the product and documents of one program: as in the prototype that was measured on one H100 (16 ms for 209,000
# tokens, 384 wide, 30,522 pieces). This kernel's own time: not measured.
POSITIONS, PIECES, DOCUMENTS = 64, 128, 16
WARPS, STAGES = 4, 2


@cache
def is_supported(device: torch.device) -> bool:
    """Whether the kernel runs on a device; where it does not, the log says why, once.

    Triton builds what starts a kernel with the machine's C compiler. Images that hold torch often have none.
    """
    if not TRITON_AVAILABLE:
        return False
    try:
        one = torch.zeros(1, 16, device=device)
        largest_logits(one, one, torch.tensor([0, 1], device=device))[0].cpu()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Triton's errors, its compiler's and the C compiler's have no common base
        first = (str(error).strip() or type(error).__name__).split("\n", maxsplit=1)[0]
        log.warning("no kernel for the vocabulary head on %s (%s): PyTorch computes it in blocks", device, first)
        return False
    return True


def tile_channels(dtype: torch.dtype) -> int:
    """Channels of a tile: both tiles in two stages take 48 KB of shared memory, which every GPU since Turing has."""
    return 32 if dtype == torch.float32 else 64


if TRITON_AVAILABLE:

    @triton.jit
    def largest_kernel(  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917 (a kernel's; it takes no annotations)
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
    """For each document and piece the largest logit, float32, and the token that has it, int32.

    Both are [documents, vocabulary]. `states` [tokens, width], `weight` [vocabulary, width] (computed in the type of
    `states`), `offsets` integers [documents + 1]. A document without tokens has -inf and the token 0; one with NaN or
    infinity in its states has NaN.
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
        # said, because Triton 3.10 changes the default: the product is fused anyway, what is left is one addition
        enable_fp_fusion=True,
    )
    # A comparison loses NaN, and a loss that looks finite over broken states would train on. Zero times NaN is NaN.
    owners = torch.repeat_interleave(offsets.diff(), output_size=states.shape[0])
    poison = torch.zeros(documents, dtype=torch.float32, device=states.device)
    poison.index_add_(0, owners, states.detach().float().sum(dim=1) * 0.0)
    best += poison[:, None]
    return best, place
