"""How a generator of chapters is trained, as a value."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ChapterRecipe(BaseModel):
    """The settings of `train_chapters`; what is not named in a recipe file has the default of a processor.

    What is read:
    - `part_pieces`: what the model reads and writes at once, `answer_pieces` what of it is left for the answer,
      `ahead` the share of a part that the next one reads again.
    - `titles_share`: of the examples, those of one chapter whose beginning is known and whose title alone is to be
      written; they have up to `title_pieces`, a fraction of a part's work, and each teaches a title.
    - `none_share`: parts without a chapter, as a share of the parts at most.

    What is changed: adapters of `rank` and `alpha` on every linear layer, with `dropout`; rank 0 trains all weights.

    The optimisation, AdamW with a linear warm-up and decay: `steps` of `batch` examples, `mini_batch` of them at once.
    `precision` is that of frozen weights; what is trained is float32. `auto` is bfloat16 where the hardware has it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    part_pieces: int = Field(default=1024, ge=128, le=131_072)
    answer_pieces: int = Field(default=96, ge=16, le=4096)
    ahead: float = Field(default=0.125, ge=0, le=0.5)
    title_pieces: int = Field(default=448, ge=64)
    titles_share: float = Field(default=0.6, ge=0, le=1)
    none_share: float = Field(default=0.35, ge=0, le=1)

    rank: int = Field(default=16, ge=0, le=1024)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    steps: int = Field(default=160, ge=1)
    batch: int = Field(default=8, ge=1)
    mini_batch: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_norm: float = Field(default=1.0, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_layers: bool = False
    seed: int = 11
    save_every: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.batch % self.mini_batch:
            raise ValueError("batch must be a multiple of mini_batch")
        if self.answer_pieces * 2 > self.part_pieces:
            raise ValueError("answer_pieces may be at most half of part_pieces")
        if self.title_pieces > self.part_pieces:
            raise ValueError("title_pieces may be at most part_pieces")
        return self
