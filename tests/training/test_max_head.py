"""Vocabulary head without the documents x length x vocabulary tensor, compared with the plain computation."""

import pytest
import torch
from torch import Tensor

from models.training import max_head as module
from models.training.max_head import max_head, max_head_packed

ACTIVATIONS = ["log1p_relu", "log1p_log1p_relu"]


def plain(states: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """Compute the head as sentence-transformers does: activate the whole tensor, then take the maximum."""
    logits = states @ weight.T
    if bias is not None:
        logits = logits + bias
    weights = torch.log1p(torch.relu(logits))
    if activation == "log1p_log1p_relu":
        weights = torch.log1p(weights)
    return (weights * mask[:, :, None]).amax(dim=1)


def case(lengths: list[int], width: int = 24, vocabulary: int = 211, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths, default=0)
    states = torch.randn(len(lengths), longest, width, generator=generator)
    mask = torch.arange(longest)[None] < torch.tensor(lengths, dtype=torch.long)[:, None]
    weight = torch.randn(vocabulary, width, generator=generator) / width**0.5
    bias = torch.randn(vocabulary, generator=generator) - 1.0
    return states, mask, weight, bias


def both(
    given: tuple[Tensor, ...], activation: str, dtype: torch.dtype = torch.float32
) -> tuple[tuple[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]]:
    """Return values and gradients (states, weight, bias): the plain computation in float32, then ours."""
    states, mask, weight, bias = given
    flow = torch.randn(len(states), len(weight), generator=torch.Generator().manual_seed(9))
    found = []
    for function, kind in ((plain, torch.float32), (max_head, dtype)):
        leaves = [states.clone().to(kind), weight.clone(), bias.clone()]
        for leaf in leaves:
            leaf.requires_grad_()
        if function is plain:
            out = plain(leaves[0], mask, leaves[1], leaves[2], activation)
        else:
            out = max_head(leaves[0], mask, leaves[1], leaves[2], activation=activation)
        (out * flow).sum().backward()
        found.append((out.detach(), [leaf.grad for leaf in leaves]))
    return found[0], found[1]


@pytest.fixture(params=[(2048, 1024), (7, 10), (64, 64)], ids=lambda sizes: f"{sizes[0]}x{sizes[1]}")
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set block sizes: one block, sizes that do not divide the tensor, and a medium size."""
    monkeypatch.setattr(module, "BLOCK_POSITIONS", request.param[0])
    monkeypatch.setattr(module, "BLOCK_PIECES", request.param[1])


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "lengths",
    [[5], [1, 1, 1], [3, 17, 1, 8, 8], [0, 4, 0], [600, 3, 515]],
    ids=lambda lengths: "-".join(map(str, lengths)),
)
def test_values_and_gradients_equal_the_plain_computation(lengths: list[int], activation: str) -> None:
    wanted, found = both(case(lengths), activation)
    torch.testing.assert_close(found[0], wanted[0], atol=1e-5, rtol=1e-5)
    for one, other in zip(found[1], wanted[1], strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    assert (found[0] > 0).float().mean() > 0.02


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bfloat16_is_close(activation: str) -> None:
    wanted, found = both(case([40, 3, 25], width=64), activation, torch.bfloat16)
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(found[0], wanted[0], atol=0.03, rtol=0.05)
    # The maximum may be at another position if two are close, so compare gradients as a whole.
    for one, other in zip(found[1], wanted[1], strict=True):
        assert torch.nn.functional.cosine_similarity(one.float().flatten(), other.flatten(), dim=0) > 0.99


def test_logits_are_not_rounded_to_bfloat16_before_the_bias() -> None:
    states, mask, weight, _ = case([40, 3, 25], width=64)
    states, weight = (5 * states).bfloat16(), weight.bfloat16()
    bias = torch.full((len(weight),), -12.0)
    wanted = plain(states.float(), mask, weight.float(), bias, "log1p_relu")
    torch.testing.assert_close(max_head(states, mask, weight, bias), wanted, atol=1e-4, rtol=1e-4)
    assert float(wanted.max()) > 1


def test_autocast_computes_in_its_own_type_and_returns_float32() -> None:
    states, mask, weight, bias = case([12, 7], width=64)
    states.requires_grad_()
    weight.requires_grad_()
    exact = max_head(states, mask, weight, bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = max_head(states, mask, weight, bias)
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, atol=0.03, rtol=0.05)
    found.sum().backward()
    assert states.grad.dtype == weight.grad.dtype == torch.float32


def test_no_documents_and_no_tokens() -> None:
    _, _, weight, bias = case([1])
    weight.requires_grad_()
    assert max_head(torch.empty(0, 4, 24), torch.empty(0, 4), weight, bias).shape == (0, 211)
    found = max_head(torch.empty(3, 0, 24), torch.empty(3, 0), weight, bias + 5)
    assert found.shape == (3, 211) and (found == 0).all()
    found.sum().backward()
    assert (weight.grad == 0).all()


def test_a_row_of_padding_has_no_weights() -> None:
    states, mask, weight, bias = case([4, 3])
    mask[1] = False
    found = max_head(states, mask, weight, bias + 10.0)
    assert (found[1] == 0).all() and (found[0] > 0).any()


def test_any_positions_may_count() -> None:
    """The mask may have left padding and holes, as for the second copy of an echoed text."""
    states, mask, weight, bias = case([9, 9])
    mask[0, :4] = False
    mask[1, [0, 2, 8]] = False
    torch.testing.assert_close(max_head(states, mask, weight, bias), plain(states, mask, weight, bias, "log1p_relu"))


def test_ties_give_their_gradient_to_one_position() -> None:
    states, mask, weight, bias = case([6])
    states[0, 4] = states[0, 1]
    states[0, 5] = states[0, 1]
    wanted, found = both((states, mask, weight, bias), "log1p_relu")
    torch.testing.assert_close(found[0], wanted[0])
    together = [1, 4, 5]
    torch.testing.assert_close(found[1][0][0, together].sum(0), wanted[1][0][0, together].sum(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1][1], wanted[1][1], atol=1e-5, rtol=1e-4)


def test_without_bias() -> None:
    states, mask, weight, _ = case([6, 2])
    torch.testing.assert_close(max_head(states, mask, weight), plain(states, mask, weight, None, "log1p_relu"))


def test_packed_equals_padded_and_a_document_does_not_depend_on_its_batch() -> None:
    states, mask, weight, bias = case([5, 0, 31, 2])
    padded = max_head(states, mask, weight, bias)
    packed = max_head_packed(states[mask], torch.tensor([0, 5, 5, 36, 38]), weight, bias)
    torch.testing.assert_close(packed, padded)
    alone = max_head(states[2:3], mask[2:3], weight, bias)
    torch.testing.assert_close(alone[0], padded[2], atol=1e-6, rtol=1e-6)


def test_gradients_are_the_same_every_time() -> None:
    given = case([30, 12, 44, 7])
    one, other = (both(given, "log1p_relu")[1][1] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_positions_are_kept_only_for_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    states, mask, weight, bias = case([6, 2])
    weight.requires_grad_()
    recorded = []
    monkeypatch.setattr(module, "largest_logits", lambda *g, places: recorded.append(places) or plain_largest(*g))
    max_head(states, mask, weight, bias)
    with torch.no_grad():
        max_head(states, mask, weight, bias)
    with torch.inference_mode():
        max_head(states, mask, weight, bias)
    assert recorded == [True, False, False]


def plain_largest(states: Tensor, weight: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros(len(offsets) - 1, len(weight)), torch.zeros(len(offsets) - 1, len(weight), dtype=torch.int32)


def test_nan_stays_nan() -> None:
    states, mask, weight, bias = case([5, 5])
    states[0, 2, 0] = float("nan")
    found = max_head(states, mask, weight, bias)
    assert found[0].isnan().any() and found[1].isfinite().all()


def test_all_logits_are_never_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole tensor (16 documents x 64 positions x 4,000 pieces) has 16 MB; a block has 64 KB."""
    monkeypatch.setattr(module, "BLOCK_POSITIONS", 128)
    monkeypatch.setattr(module, "BLOCK_PIECES", 128)
    given = case([64] * 16, vocabulary=4000)
    largest = {}
    for name, function in (("ours", max_head), ("plain", lambda *g, activation: plain(*g, activation))):
        leaves = [one.clone().requires_grad_(one.is_floating_point()) for one in given]
        with torch.profiler.profile(profile_memory=True) as profile:
            function(*leaves, activation="log1p_relu").sum().backward()
        largest[name] = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest["plain"] >= 16 * 64 * 4000 * 4
    # The result has 16 x 4,000 values.
    assert largest["ours"] < largest["plain"] / 10
