"""What a training run is: read from a TOML file, checked before anything is loaded, kept with the encoder it made."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.training.recipe_encoder import EncoderRecipe
from services.errors import ConfigurationError


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PairSource(_Part):
    """A file of pairs, {"query", "passage"} a line: at most `cap` of them, each drawn `weight` times an epoch (with
    0.25, another quarter of them in each of four)."""

    path: Path
    weight: float = Field(1.0, gt=0, le=100)
    cap: int | None = Field(None, ge=1)


class TeacherChoice(_Part):
    """A teacher and its weight among the others (arXiv 2411.04403, section 4.2: each min-max scaled, weighted, summed).

    `name` is a dense teacher that can be fetched (`sparsewell train teachers`), a directory with model.onnx and
    tokenizer.json, or for `sparse` an encoder of ours by name or path. BM25 needs none.
    """

    kind: Literal["dense", "sparse", "bm25"]
    name: str = ""
    weight: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.kind != "bm25" and not self.name:
            raise ValueError(f"a {self.kind} teacher needs a name")
        return self


class Negatives(_Part):
    """Hard negatives of a pair: `count` drawn from the ranks `skip` to `depth` of each source's list.

    A candidate that the first teacher scores above `ceiling` times the pair's own passage is no negative.
    """

    sources: tuple[Literal["bm25", "dense", "sparse", "index"], ...] = ()
    count: int = Field(3, ge=0, le=63)
    skip: int = Field(1, ge=0)
    depth: int = Field(50, ge=1, le=1000)
    ceiling: float = Field(0.95, gt=0, le=1)
    index: str = ""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.depth <= self.skip:
            raise ValueError("depth must be greater than skip")
        if "index" in self.sources and not self.index:
            raise ValueError("the source `index` needs the name of one: negatives.index")
        return self


class Consistency(_Part):
    """Keeps a pair when the teachers find its passage among the first `within` of `sample` passages."""

    within: int = Field(3, ge=1)
    sample: int = Field(20_000, ge=10)


class TrainingRecipe(_Part):
    """One run. Steps are optimiser steps; `batch` counts queries a step and device, before hard negatives."""

    start: str
    encoder: EncoderRecipe = EncoderRecipe()
    pairs: tuple[PairSource, ...] = Field(min_length=1)
    teachers: tuple[TeacherChoice, ...] = ()
    negatives: Negatives = Negatives()
    consistency: Consistency | None = None
    steps: int = Field(1000, ge=1)
    batch: int = Field(32, ge=2)
    mini_batch: int | None = Field(None, ge=1, description="texts held at once (gradient caching); none: the batch")
    learning_rate: float = Field(2e-5, gt=0, lt=1)
    table_learning_rate: float = Field(1e-3, gt=0, lt=1)
    weight_decay: float = Field(0.01, ge=0, lt=1)
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps")
    regulariser_weight: float = Field(0.02, ge=0)
    ramp: float = Field(0.33, gt=0, le=1, description="share of the steps until the regulariser's weight is reached")
    distillation_scale: float = Field(30.0, gt=0)
    contrastive_weight: float = Field(0.3, ge=0, description="of cross entropy beside distillation; alone it is 1")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gradient_norm: float = Field(1.0, gt=0)
    evaluate_every: int = Field(200, ge=1)
    held_out: float = Field(0.02, ge=0, lt=0.5, description="share of the passages that are kept for evaluation")
    collections: tuple[Path, ...] = Field((), description="judged collections (BEIR layout) that choose the best")
    reported: tuple[Path, ...] = Field((), description="judged collections that are shown and choose nothing")
    evaluate_documents: int = Field(2000, ge=10, description="documents of a collection that an evaluation encodes")
    seed: int = 0
    licence: str = Field("unstated", min_length=1, description="of the encoder that is made, for its manifest")

    @model_validator(mode="after")
    def _learnable(self) -> Self:
        names = [directory.name for directory in (*self.collections, *self.reported)]
        if len(set(names)) < len(names):
            raise ValueError("two collections have one name, and the curve could not tell them apart")
        if self.teachers == () and self.contrastive_weight == 0:
            raise ValueError("without teachers and without contrastive_weight there is nothing to learn from")
        if self.consistency is not None and not self.teachers:
            raise ValueError("consistency needs at least one teacher")
        for source in self.negatives.sources:
            if source in ("dense", "sparse") and not any(teacher.kind == source for teacher in self.teachers):
                raise ValueError(f"negatives.sources names {source}, but there is no {source} teacher")
        return self

    def changed(self, **members: Any) -> TrainingRecipe:
        """The same with some members replaced, checked again. Raises ConfigurationError (`bad_recipe`)."""
        return parse(self.model_dump() | members, "the recipe")


def parse(content: dict[str, Any], where: str) -> TrainingRecipe:
    """Checks a recipe. Raises ConfigurationError (`bad_recipe`) that names each member at fault."""
    try:
        return TrainingRecipe.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'recipe'}: {fault['msg']}" for fault in error.errors()
        )
        raise ConfigurationError("bad_recipe", f"{where} cannot be used: {faults}.") from None


def read_recipe(path: Path) -> TrainingRecipe:
    """Reads a TOML file; paths in it are relative to the file. Raises ConfigurationError (`bad_recipe`)."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError("bad_recipe", f"{path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError("bad_recipe", f"{path} is no TOML file: {error}.") from None
    recipe = parse(content, str(path))
    base = path.resolve().parent
    return recipe.model_copy(
        update={
            "start": _resolved(base, recipe.start),
            "teachers": tuple(one.model_copy(update={"name": _resolved(base, one.name)}) for one in recipe.teachers),
            "pairs": tuple(pair.model_copy(update={"path": base / pair.path}) for pair in recipe.pairs),
            "collections": tuple(base / directory for directory in recipe.collections),
            "reported": tuple(base / directory for directory in recipe.reported),
        }
    )


def _resolved(base: Path, name: str) -> str:
    """A start or teacher that lies beside the recipe, or the name of a hub or a shipped encoder as it stands."""
    return str(base / name) if name and (base / name).is_dir() else name
