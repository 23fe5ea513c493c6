"""What an encoder is made of, as a value: {query weighting, document weighting, expansion, regulariser}.

The unified framework of arXiv 2303.13416: every learned sparse method is a choice of these, so an ablation is a list of
recipes. Query expansion is not among them: it costs a model at query time, and there it cancels out against document
expansion.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.errors import ConfigurationError

Activation = Literal["log1p_relu", "log1p_log1p_relu"]
# Beside the weights of a checkpoint, so that it is exported and continued as it was trained.
RECIPE = "recipe.json"


class EncoderRecipe(BaseModel):
    """How an encoder is put together.

    - `query_weighting`: `none` (each distinct piece weighs 1), `idf` (a fixed table) or `learned` (a table that is
      trained, started from the start's query_weights.json or from IDF).
    - `document_weighting`: `binary` (each piece of the text weighs 1, nothing is trained on this side) or `learned`.
    - `expansion`: whether a document may weigh pieces that are not in its text.
    - `regulariser`: what keeps documents sparse, see `models.training.regularisers`.
    - `activation`: of the largest logit; `log1p_log1p_relu` is log(1 + log(1 + relu)) of arXiv 2504.14839.
    - `l0_threshold`: the regulariser counts only documents with more weights than this.
    - `passage_pieces`: longest passage in training, special pieces included; the rest is cut off.
    - `head`: `chunked` never materialises documents x length x vocabulary; `plain` is the form of
      sentence-transformers, to compare with. Both give the same vectors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    query_weighting: Literal["none", "idf", "learned"] = "learned"
    document_weighting: Literal["binary", "learned"] = "learned"
    expansion: bool = True
    regulariser: Literal["none", "flops", "idf_flops", "l1"] = "idf_flops"
    activation: Activation = "log1p_relu"
    l0_threshold: int | None = Field(default=None, ge=1, le=65536)
    passage_pieces: int = Field(default=192, ge=8, le=8192)
    head: Literal["plain", "chunked"] = "chunked"

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.document_weighting == "binary":
            if self.expansion:
                raise ValueError(
                    "binary document weights give no gradient that could learn which pieces to add: "
                    "say expansion = false, or document_weighting = learned"
                )
            if self.regulariser != "none":
                raise ValueError("binary document weights cannot be regularised: say regulariser = none")
            if self.activation != "log1p_relu":
                raise ValueError("binary document weights have no activation: leave it out")
        if self.l0_threshold is not None and self.regulariser not in ("flops", "idf_flops"):
            raise ValueError(f"l0_threshold belongs to flops and idf_flops, not to {self.regulariser}")
        return self

    @property
    def needs_idf(self) -> bool:
        """Whether an IDF table is needed: for the match, for the regulariser."""
        return self.query_weighting == "idf" or self.regulariser == "idf_flops"

    def write(self, directory: Path) -> None:
        """Writes recipe.json."""
        (directory / RECIPE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """The recipe.json of a checkpoint, None where there is none. Raises ConfigurationError (`bad_recipe`)."""
        path = directory / RECIPE
        if not path.is_file():
            return None
        try:
            return cls.model_validate(json.loads(path.read_bytes()))
        except (OSError, ValueError, ValidationError) as error:
            raise ConfigurationError("bad_recipe", f"{path} cannot be used: {error}") from None
