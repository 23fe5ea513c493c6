"""What a training run is: read from a TOML file, checked before anything is loaded, kept with the encoder it made.

What an encoder is made of, as a value: {query weighting, document weighting, expansion, regulariser}.

The unified framework of arXiv 2303.13416: every learned sparse method is a choice of these, so an ablation is a list of
recipes. Query expansion is not among them: it costs a model at query time, and there it cancels out against document
expansion.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.errors import ConfigurationError

Activation = Literal["log1p_relu", "log1p_log1p_relu"]
# Beside the weights of a checkpoint, so that it is exported and continued as it was trained.
RECIPE_FILE = "recipe.json"


class EncoderRecipe(BaseModel):
    """How an encoder is put together.

    - `query_weighting`: `none` (each distinct piece weighs 1), `idf` (a fixed table) or `learned` (a table that is
      trained, started from the start's query_weights.json or from IDF).
    - `document_weighting`: `binary` (each piece of the text weighs 1, nothing is trained on this side) or `learned`.
    - `expansion`: whether a document may weigh pieces that are not in its text.
    - `regulariser`: what keeps documents sparse, see `models.training.losses`.
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
        (directory / RECIPE_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """The recipe.json of a checkpoint, None where there is none. Raises ConfigurationError (`bad_recipe`)."""
        path = directory / RECIPE_FILE
        if not path.is_file():
            return None
        try:
            return cls.model_validate(json.loads(path.read_bytes()))
        except (OSError, ValueError, ValidationError) as error:
            raise ConfigurationError("bad_recipe", f"{path} cannot be used: {error}") from None


class _RecipePart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PairSource(_RecipePart):
    """A file of pairs, {"query", "passage"} a line: at most `cap` of them, each drawn `weight` times an epoch (with
    0.25, another quarter of them in each of four)."""

    path: Path
    weight: float = Field(1.0, gt=0, le=100)
    cap: int | None = Field(None, ge=1)


class TeacherChoice(_RecipePart):
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


class NegativesRecipe(_RecipePart):
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


class ConsistencyRecipe(_RecipePart):
    """Keeps a pair when the teachers find its passage among the first `within` of `sample` passages."""

    within: int = Field(3, ge=1)
    sample: int = Field(20_000, ge=10)


class TrainingRecipe(_RecipePart):
    """One run. Steps are optimiser steps; `batch` counts queries a step and device, before hard negatives."""

    start: str
    encoder: EncoderRecipe = EncoderRecipe()
    pairs: tuple[PairSource, ...] = Field(min_length=1)
    teachers: tuple[TeacherChoice, ...] = ()
    negatives: NegativesRecipe = NegativesRecipe()
    consistency: ConsistencyRecipe | None = None
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
        return parse_recipe(self.model_dump() | members, "the recipe")


def parse_recipe(content: dict[str, Any], where: str) -> TrainingRecipe:
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
    recipe = parse_recipe(content, str(path))
    base = path.resolve().parent
    return recipe.model_copy(
        update={
            "start": _resolve_name(base, recipe.start),
            "teachers": tuple(
                one.model_copy(update={"name": _resolve_name(base, one.name)}) for one in recipe.teachers
            ),
            "pairs": tuple(pair.model_copy(update={"path": base / pair.path}) for pair in recipe.pairs),
            "collections": tuple(base / directory for directory in recipe.collections),
            "reported": tuple(base / directory for directory in recipe.reported),
        }
    )


def _resolve_name(base: Path, name: str) -> str:
    """A start or teacher that lies beside the recipe, or the name of a hub or a shipped encoder as it stands."""
    return str(base / name) if name and (base / name).is_dir() else name
