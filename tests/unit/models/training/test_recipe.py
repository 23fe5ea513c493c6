"""Valid and invalid recipes of encoders."""

from itertools import product
from pathlib import Path

import pytest
from pydantic import ValidationError

from models.training.recipe import RECIPE_FILE, EncoderRecipe
from services.errors import ConfigurationError


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"document_weighting": "binary", "regulariser": "none"}, "no gradient"),
        ({"document_weighting": "binary", "expansion": False}, "cannot be regularised"),
        (
            {
                "document_weighting": "binary",
                "expansion": False,
                "regulariser": "none",
                "activation": "log1p_log1p_relu",
            },
            "no activation",
        ),
        ({"regulariser": "l1", "l0_threshold": 100}, "l0_threshold belongs"),
        ({"regulariser": "none", "l0_threshold": 100}, "l0_threshold belongs"),
        ({"l0_threshold": 0}, "greater than or equal"),
        ({"passage_pieces": 2}, "greater than or equal"),
        ({"query_expansion": True}, "Extra inputs"),
        ({"regulariser": "l2"}, "Input should be"),
    ],
)
def test_invalid_recipes_are_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        EncoderRecipe.model_validate(given)


def test_valid_combinations_are_accepted() -> None:
    made = 0
    for query, expansion, regulariser in product(
        ("none", "idf", "learned"), (True, False), ("none", "flops", "idf_flops", "l1")
    ):
        recipe = EncoderRecipe(query_weighting=query, expansion=expansion, regulariser=regulariser)
        made += 1
        assert recipe.needs_idf == (query == "idf" or regulariser == "idf_flops")
    assert made == 24


def test_recipes_survive_writing_and_reading(tmp_path: Path) -> None:
    recipe = EncoderRecipe(query_weighting="idf", regulariser="flops", l0_threshold=200, activation="log1p_log1p_relu")
    assert EncoderRecipe.read(tmp_path) is None
    recipe.write(tmp_path)
    assert EncoderRecipe.read(tmp_path) == recipe


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"head": "other"}', b"\xff"])
def test_a_broken_recipe_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RECIPE_FILE).write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        EncoderRecipe.read(tmp_path)
    assert caught.value.code == "bad_recipe"
