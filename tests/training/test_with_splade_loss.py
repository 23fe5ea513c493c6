"""Encoders in sentence-transformers' losses: head, query table and gradient caching together."""

from pathlib import Path

import pytest
import torch
from sentence_transformers.sparse_encoder.losses import (
    CachedSpladeLoss,
    SparseMultipleNegativesRankingLoss,
    SpladeLoss,
)
from torch import Tensor

from models.training.architecture import InferenceFreeEncoder, build_encoder
from models.training.losses import make_regulariser
from models.training.recipe import EncoderRecipe
from tests.training.tiny_start import make_start

QUERIES = ["the cat", "dog house", "a b c", "x"]
PASSAGES = ["cats of the house " * 3, "dogs", "c b a x y z", "a house."]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_start(tmp_path_factory.mktemp("start") / "tiny")


def gradients(start: Path, *, cached: bool = False, **recipe: object) -> tuple[float, dict[str, Tensor]]:
    chosen = EncoderRecipe.model_validate({"passage_pieces": 16, **recipe})
    # Without dropout, so that two passes give the same numbers.
    encoder = build_encoder(start, chosen, device="cpu")
    encoder.train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    idf = None if encoder.idf is None else torch.from_numpy(encoder.idf)
    regulariser = make_regulariser(chosen.regulariser, idf=idf, threshold=chosen.l0_threshold)
    base = SparseMultipleNegativesRankingLoss(encoder)
    kind, more = (CachedSpladeLoss, {"mini_batch_size": 2}) if cached else (SpladeLoss, {})
    loss = kind(encoder, base, document_regularizer_weight=0.01, document_regularizer=regulariser, **more)
    parts = loss(features(encoder), None)
    total = sum(parts.values())
    total.backward()
    return total.item(), {name: one.grad for name, one in encoder.named_parameters() if one.grad is not None}


def features(encoder: InferenceFreeEncoder) -> list[dict[str, object]]:
    return [
        {**encoder.preprocess(QUERIES, task="query"), "task": "query"},
        {**encoder.preprocess(PASSAGES, task="document"), "task": "document"},
    ]


@pytest.mark.parametrize("regulariser", ["idf_flops", "flops", "l1", "none"])
def test_both_heads_give_the_same_training(start: Path, regulariser: str) -> None:
    wanted = gradients(start, head="plain", regulariser=regulariser)
    found = gradients(start, head="chunked", regulariser=regulariser)
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    assert found[1].keys() == wanted[1].keys()
    for name, one in found[1].items():
        torch.testing.assert_close(one, wanted[1][name], atol=1e-4, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}")
    assert found[1]["0.sub_modules.query.0.weight"].abs().sum() > 0


def test_gradient_caching_changes_nothing(start: Path) -> None:
    wanted, found = gradients(start), gradients(start, cached=True)
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    for name, one in found[1].items():
        torch.testing.assert_close(one, wanted[1][name], atol=1e-4, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}")


def test_binary_documents_train_only_the_table(start: Path) -> None:
    _, found = gradients(start, document_weighting="binary", expansion=False, regulariser="none")
    assert list(found) == ["0.sub_modules.query.0.weight"]
