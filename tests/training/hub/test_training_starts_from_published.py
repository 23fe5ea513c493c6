"""Training from published encoders starts with the vectors of sentence-transformers, except special pieces."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.training.architecture import build_encoder
from models.training.recipe import EncoderRecipe
from tests.training.hub.published import PIECES, SPECIAL, as_published, as_published_first, as_saved, original

TEXTS = ["the weather in new york", "Cats? dogs. A house", "x", "it is rainy now " * 3]
ORDINARY = torch.tensor([piece not in SPECIAL for piece in PIECES])


@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("layout", [as_saved, as_published])
def test_training_starts_from_a_router_layout(tmp_path: Path, layout: Callable[..., Path], activation: str) -> None:
    source = layout(tmp_path / "source", "distilbert", activation)
    ours = {"relu": "log1p_relu", "log1p_relu": "log1p_log1p_relu"}[activation]
    recipe = EncoderRecipe.model_validate({"activation": ours, "passage_pieces": 40, "regulariser": "flops"})
    encoder, theirs = build_encoder(source, recipe, device="cpu"), original(source)
    for task in ("query", "document"):
        wanted, found = (one.encode(TEXTS, task=task, convert_to_sparse_tensor=False) for one in (theirs, encoder))
        torch.testing.assert_close(found[:, ORDINARY], wanted[:, ORDINARY], atol=1e-5, rtol=1e-5)
        assert (found[:, ~ORDINARY] == 0).all() and (found > 0).any(dim=1).all()
    assert (encoder.idf is not None) == (layout is as_published)


def test_the_plain_layout_starts_its_table_from_idf(tmp_path: Path) -> None:
    source = as_published_first(tmp_path / "source", "bert")
    encoder = build_encoder(source, EncoderRecipe(passage_pieces=40), device="cpu")
    found = encoder.encode_query(["the cat"], convert_to_sparse_tensor=False)[0]
    assert {PIECES[i]: pytest.approx(0.3 + i / 10) for i in found.nonzero()[:, 0].tolist()} == {
        "the": found[PIECES.index("the")].item(),
        "cat": found[PIECES.index("cat")].item(),
    }
