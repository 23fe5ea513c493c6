"""Groups windows of similar length, so that little of what the encoder computes is padding."""

from collections.abc import Sequence


def length_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions of `lengths` in batches, longest first, each of at most `budget` padded pieces (rows x longest).

    A single length above the budget makes a batch of its own. Every position appears once; equal lengths keep their
    order, so the batches depend on nothing but the arguments. Longest first lets the runtime's memory pool take its
    final size at once.
    """
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    batches: list[list[int]] = []
    rows = 0
    for position in order:
        if rows == 0:
            rows = max(1, budget // max(1, lengths[position]))
            batches.append([])
        batches[-1].append(position)
        rows -= 1
    return batches
