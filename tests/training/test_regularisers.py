"""Regularisers of document vectors, compared with their formulas."""

from collections.abc import Callable

import pytest
import torch

from models.training.losses import (
    IDF_FLOOR,
    FlopsRegulariser,
    IdfFlopsRegulariser,
    L1Regulariser,
    NoRegulariser,
    Regulariser,
    make_regulariser,
)
from services.errors import ConfigurationError

WEIGHTS = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0], [1.0, 4.0, 2.0]])
IDF = torch.tensor([0.5, 4.0, 1.0])
EVERY = [
    FlopsRegulariser(),
    FlopsRegulariser(1),
    IdfFlopsRegulariser(IDF),
    IdfFlopsRegulariser(IDF, 1),
    L1Regulariser(),
    NoRegulariser(),
]


def test_flops_is_the_squared_mean_summed() -> None:
    assert FlopsRegulariser().compute_loss_from_embeddings(WEIGHTS).item() == pytest.approx(
        (5 / 3) ** 2 + (4 / 3) ** 2 + (4 / 3) ** 2
    )


def test_idf_flops_divides_by_the_idf_before_squaring() -> None:
    found = IdfFlopsRegulariser(IDF).compute_loss_from_embeddings(WEIGHTS).item()
    assert found == pytest.approx((5 / 3 / 0.5) ** 2 + (4 / 3 / 4) ** 2 + (4 / 3) ** 2)


@pytest.mark.parametrize("make", [lambda n: FlopsRegulariser(columns=n), lambda n: IdfFlopsRegulariser(IDF, columns=n)])
def test_columns_of_passages_are_added_as_in_the_authors_code(make: Callable[[int], Regulariser]) -> None:
    """Their lambda belongs to the sum over columns. One mean over four equal columns is a fourth of it."""
    columns = 4
    whole = make(columns).compute_loss_from_embeddings(WEIGHTS.repeat(columns, 1)).item()
    alone = make(1).compute_loss_from_embeddings(WEIGHTS).item()
    assert whole == pytest.approx(columns * alone)
    assert make(1).compute_loss_from_embeddings(WEIGHTS.repeat(columns, 1)).item() == pytest.approx(alone)
    own, negatives = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 3.0, 0.0]])
    assert FlopsRegulariser(columns=2).compute_loss_from_embeddings(torch.cat([own, negatives])).item() == 4.0 + 9.0


def test_the_mask_leaves_out_documents_with_few_weights() -> None:
    """The second document has one weight. With a threshold of 1 it does not count and gets no gradient."""
    weights = WEIGHTS.clone().requires_grad_()
    found = IdfFlopsRegulariser(IDF, threshold=1).compute_loss_from_embeddings(weights)
    assert found.item() == pytest.approx((2 / 3 / 0.5) ** 2 + (4 / 3 / 4) ** 2 + (4 / 3) ** 2)
    found.backward()
    assert (weights.grad[1] == 0).all() and (weights.grad[0] > 0).all()


def test_l1_is_the_mean_sum_of_weights() -> None:
    assert L1Regulariser().compute_loss_from_embeddings(WEIGHTS).item() == pytest.approx(13 / 3)


@pytest.mark.parametrize("regulariser", EVERY, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("layout", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_coo])
def test_sparse_layouts_give_the_same_penalty_and_gradients(regulariser: torch.nn.Module, layout: object) -> None:
    dense = WEIGHTS.clone().requires_grad_()
    sparse = WEIGHTS.clone().requires_grad_()
    one = regulariser.compute_loss_from_embeddings(dense)
    other = regulariser.compute_loss_from_embeddings(layout(sparse))  # type: ignore[operator]
    assert one.item() == other.item()
    one.backward()
    other.backward()
    stored = WEIGHTS != 0
    torch.testing.assert_close(dense.grad[stored], sparse.grad[stored])


@pytest.mark.parametrize("regulariser", EVERY, ids=lambda one: type(one).__name__)
def test_a_penalty_of_nan_is_nan(regulariser: torch.nn.Module) -> None:
    weights = WEIGHTS.clone()
    weights[1, 1] = float("nan")
    assert torch.isnan(regulariser.compute_loss_from_embeddings(weights))


@pytest.mark.parametrize("regulariser", EVERY, ids=lambda one: type(one).__name__)
def test_no_documents_have_no_penalty(regulariser: torch.nn.Module) -> None:
    assert regulariser.compute_loss_from_embeddings(torch.empty(0, 3)).item() == 0.0


def test_an_idf_of_zero_is_raised_to_the_floor() -> None:
    found = IdfFlopsRegulariser(torch.zeros(3)).compute_loss_from_embeddings(WEIGHTS)
    assert found.item() == pytest.approx(
        FlopsRegulariser().compute_loss_from_embeddings(WEIGHTS).item() / IDF_FLOOR**2, rel=1e-5
    )


def test_the_table_is_neither_trained_nor_saved() -> None:
    regulariser = IdfFlopsRegulariser(IDF.clone().requires_grad_())
    assert not list(regulariser.parameters()) and not regulariser.state_dict()


def test_a_table_of_another_tokeniser_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="another tokeniser") as caught:
        IdfFlopsRegulariser(torch.ones(4)).compute_loss_from_embeddings(WEIGHTS)
    assert caught.value.code == "bad_idf"
    with pytest.raises(ConfigurationError):
        IdfFlopsRegulariser(torch.tensor([1.0, float("nan")]))


def test_regularisers_are_made_by_name() -> None:
    assert isinstance(make_regulariser("none"), NoRegulariser)
    assert isinstance(make_regulariser("l1"), L1Regulariser)
    flops = make_regulariser("flops", threshold=3)
    assert isinstance(flops, FlopsRegulariser) and flops.threshold == 3
    assert isinstance(make_regulariser("idf_flops", idf=IDF), IdfFlopsRegulariser)
    with pytest.raises(ConfigurationError, match="needs an IDF table"):
        make_regulariser("idf_flops")
    with pytest.raises(ConfigurationError, match="no regulariser"):
        make_regulariser("l2")
