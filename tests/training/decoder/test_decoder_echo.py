"""Echo input: what a decoder reads and which positions are pooled."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.decoder.echo import Echo, echo_batch
from models.decoder.head import largest_logits

rows_of_pieces = st.lists(st.lists(st.integers(5, 99), max_size=9), min_size=1, max_size=6)
echoes = st.builds(
    Echo, st.lists(st.integers(0, 4), max_size=2).map(tuple), st.lists(st.integers(0, 4), max_size=3).map(tuple)
)


@settings(max_examples=100, deadline=None)
@given(rows_of_pieces, echoes)
def test_the_pooling_mask_picks_exactly_the_second_copy(rows: list[list[int]], echo: Echo) -> None:
    batch = echo_batch(rows, echo)
    for row, ids, seen, pooled in zip(
        rows, batch.input_ids, batch.attention_mask, batch.pooling_mask, strict=True
    ):  # fmt: skip
        assert ids[pooled == 1].tolist() == row
        assert ids[seen == 1].tolist() == [*echo.before, *row, *echo.between, *row]
        # the first copy is as long and is not pooled, and the second ends where the padding begins
        first = len(echo.before)
        assert not pooled[: first + len(row) + len(echo.between)].any()
        assert seen.sum() == echo.positions(len(row)) == (seen * np.arange(1, seen.size + 1)).max(initial=0)


def test_room_is_the_longest_window_that_fits() -> None:
    echo = Echo((1,), (2, 3))
    for positions in range(8, 40):
        assert echo.positions(echo.room(positions)) <= positions < echo.positions(echo.room(positions) + 1)


@pytest.mark.parametrize("at_once", [1, 50, 10**6])
def test_the_head_in_slices_equals_the_whole_product_and_its_gradient(at_once: int) -> None:
    torch.manual_seed(5)
    rows = [[5, 6, 7], [8], [], [9, 10, 11, 12, 13]]
    batch = echo_batch(rows, Echo((1,), (2,)))
    mask = torch.from_numpy(batch.pooling_mask)
    hidden, weight = torch.randn(4, mask.shape[1], 8), torch.randn(37, 8)
    mine, wanted = [tensor.clone().requires_grad_() for tensor in (hidden, weight)], [hidden, weight]
    wanted = [tensor.clone().requires_grad_() for tensor in wanted]
    whole = (wanted[0] @ wanted[1].T).masked_fill(mask[:, :, None] == 0, -torch.inf).amax(dim=1)
    found = largest_logits(mine[0], mask, mine[1], at_once=at_once)
    torch.testing.assert_close(found, whole)
    assert torch.isneginf(found[2]).all()
    for output in (found, whole):
        torch.log1p(torch.relu(output)).square().sum().backward()
    for one, other in zip(mine, wanted, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
