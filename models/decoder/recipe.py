"""Recipe of Mistral-SPLADE: the settings of `train_decoder` and of the model directory that it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class DecoderRecipe(BaseModel):
    """Settings of `train_decoder`.

    Document side:
    - `lowercase`: lowercase text on both sides (docs/decisions/0120). `passage_pieces`: pieces of one copy of a passage
      at which training truncates it.
    - `rank`, `alpha`, `dropout`: of the adapters (arXiv 2408.11119: 16, 8, 0.1).
    - `calibration_texts`, `active_at_start`: texts of the calibration, and their mean number of pieces after it.

    Data:
    - `negatives`: hard negatives of each pair, drawn from ranks 2 to `negatives_depth` of BM25 over the passages; 0:
      the negatives are those of the batch alone.

    Objective: InfoNCE over the batch's passages with `score_scale`, plus `regulariser_weight` times a regulariser that
    grows with the square of the step over the first `regulariser_ramp` of the steps:
    - `regulariser`: see `models.training.losses`. `l0_threshold`: only documents with more weights count.
      Lambda has the unit of `train sparse`: the columns of passages, own ones and each negative, are added.
    - `query_weighting`: `idf` is a fixed table over the passages, `learned` starts from it.

    Optimisation: AdamW with a linear warm-up and decay:
    - `steps`: 0 calibrates and writes an untrained model directory.
    - `batch`: pairs a step. `mini_batch`: pairs computed at once (None: all); it needs less memory and a third more
      time for the same gradients, and is halved when memory runs out.
    - `precision`: of frozen weights and activations; adapters are always float32. `auto`: bfloat16 if the hardware
      multiplies it.
    - `checkpoint_layers`: compute activations again in the backward pass instead of keeping them.

    Model directory: `top_k` heaviest pieces, `window` and `overlap` in pieces of one copy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lowercase: bool = True
    passage_pieces: int = Field(default=192, ge=8, le=8192)
    rank: int = Field(default=16, ge=1, le=1024)
    alpha: int = Field(default=8, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    calibration_texts: int = Field(default=256, ge=1, le=4096)
    active_at_start: int = Field(default=4096, ge=1)

    negatives: int = Field(default=0, ge=0, le=63)
    negatives_depth: int = Field(default=50, ge=2, le=1000)

    score_scale: float = Field(default=1.0, gt=0)
    regulariser: Literal["none", "flops", "idf_flops", "l1"] = "flops"
    regulariser_weight: float = Field(default=1e-3, ge=0)
    regulariser_ramp: float = Field(default=1 / 3, gt=0, le=1)
    l0_threshold: int | None = Field(default=None, ge=1, le=65536)
    query_weighting: Literal["idf", "learned"] = "idf"

    steps: int = Field(default=1000, ge=0)
    batch: int = Field(default=32, ge=2)
    mini_batch: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    bias_learning_rate: float = Field(default=1e-2, ge=0)
    table_learning_rate: float = Field(default=1e-3, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_layers: bool = False
    seed: int = 11
    save_every: int = Field(default=100, ge=1)
    log_every: int = Field(default=10, ge=1)

    top_k: int = Field(default=256, ge=1)
    window: int = Field(default=190, ge=16)
    overlap: int = Field(default=24, ge=0)

    @model_validator(mode="after")
    def _validate_sizes(self) -> Self:
        if self.overlap * 2 > self.window:
            raise ValueError("overlap may be at most half of window")
        if self.mini_batch is not None and self.mini_batch > self.batch:
            raise ValueError("mini_batch may be at most batch")
        return self


def read_decoder_recipe(path: Path | None, options: dict[str, str]) -> DecoderRecipe:
    """Read a recipe from a file and options; options win. Raises ValidationError."""
    from_file = DecoderRecipe.model_validate_json(path.read_bytes()).model_dump() if path else {}
    return DecoderRecipe.model_validate({**from_file, **options}, strict=False)
