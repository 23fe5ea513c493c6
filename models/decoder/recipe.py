"""How a decoder is trained, as a value."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class DecoderRecipe(BaseModel):
    """The settings of `train_decoder`.

    The document side:
    - `lowercase`: text in lower case on both sides (docs/decisions/0120). `passage_pieces`: a passage's length in
      training, one copy; what is longer is cut off.
    - `rank`, `alpha`, `dropout`: of the adapters (arXiv 2408.11119: 16, 8, 0.1).
    - `calibration_texts`, `active_at_start`: the bias is set so that so many texts weigh so many pieces on average.

    The objective, InfoNCE over the batch's passages with `score_scale`, plus `regulariser_weight` times a regulariser
    that grows with the square of the step over the first `regulariser_ramp` of the steps:
    - `regulariser`: see `models.training.regularisers`; `l0_threshold`: only documents with more weights count.
    - `query_weighting`: `idf` is a fixed table over the passages, `learned` starts from it.

    The optimisation, AdamW with a linear warm-up and decay:
    - `steps`: 0 calibrates and writes the model directory, untrained.
    - `batch` pairs a step; `mini_batch` of them are computed at once (None: all). Less memory, the same gradients, a
      third more time. It is halved by itself where the memory ends.
    - `precision`: of the frozen weights and the activations; adapters are float32 always. `auto` is bfloat16 where the
      hardware multiplies it.
    - `checkpoint_layers`: activations are computed again in the backward pass instead of being kept.

    The product: `top_k` heaviest pieces, `window` and `overlap` in pieces of one copy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lowercase: bool = True
    passage_pieces: int = Field(default=192, ge=8, le=8192)
    rank: int = Field(default=16, ge=1, le=1024)
    alpha: int = Field(default=8, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    calibration_texts: int = Field(default=256, ge=1, le=4096)
    active_at_start: int = Field(default=4096, ge=1)

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
    def _fits(self) -> Self:
        if self.overlap * 2 > self.window:
            raise ValueError("overlap may be at most half of window")
        if self.mini_batch is not None and self.mini_batch > self.batch:
            raise ValueError("mini_batch may be at most batch")
        return self
