"""Recipes: settings of training runs, and of the encoders that they train.

`read_recipe` reads a TOML file and checks it before a run loads anything. `begin_run` keeps the recipe beside the run,
and the manifest of the encoder repeats it. `models.training.ablation` derives recipes that lack one part each.

`EncoderRecipe` follows the unified framework of arXiv 2303.13416: a learned sparse method is a choice of {query
weighting, document weighting, expansion, regulariser}, so an ablation is a list of recipes. Some components exist for
ablations only, because an encoder with them cannot be served (`EncoderRecipe.is_servable`).
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.errors import ConfigurationError

Activation = Literal["log1p_relu", "log1p_log1p_relu"]
# Lies beside the weights of a checkpoint: export and later training need the same recipe.
RECIPE_FILE = "recipe.json"


class EncoderRecipe(BaseModel):
    """Composition of an encoder.

    - `query_weighting`: `none` (each distinct piece weighs 1), `idf` (a fixed table) or `learned` (a trained table,
      which begins with the start's query_weights.json or with IDF). For ablations only: `mlm` (the document model
      weighs and expands queries) and `mlp` (it weighs the query's own pieces).
    - `document_weighting`: `binary` (each piece of the text weighs 1; this side trains nothing), `learned` (the largest
      logit of the masked-language head over positions: MLM in the paper), `cls_mlm` (the logits of [CLS] alone) or
      `mlp` (one weight for each token of the text, from its state).
    - `expansion`: whether a document may weigh pieces that are not in its text.
    - `expand_by`: a sparse encoder whose heaviest words that a text lacks (at most `expand_words`) are written before
      the text. With `mlp` this is expMLP in the paper, which takes the words of docT5query or TILDE.
    - `regulariser`: the penalty that keeps documents sparse, see `models.training.losses`. `top_k` has no penalty: the
      `top_k` heaviest weights of a document stay.
    - `activation`: of the largest logit; `log1p_log1p_relu` is log(1 + log(1 + relu)) of arXiv 2504.14839.
    - `l0_threshold`: the regulariser counts only documents with more weights than this.
    - `passage_pieces`: the longest passage in training, special pieces included; longer ones are truncated.
    - `head`: `chunked` never materialises documents x length x vocabulary; `plain` is the form of
      sentence-transformers, for comparison. Both give the same vectors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    query_weighting: Literal["none", "idf", "learned", "mlp", "mlm"] = "learned"
    document_weighting: Literal["binary", "learned", "cls_mlm", "mlp"] = "learned"
    expansion: bool = True
    expand_by: str = ""
    expand_words: int = Field(default=24, ge=1, le=256)
    regulariser: Literal["none", "flops", "idf_flops", "l1", "top_k"] = "idf_flops"
    top_k: int | None = Field(default=None, ge=1, le=65536)
    activation: Activation = "log1p_relu"
    l0_threshold: int | None = Field(default=None, ge=1, le=65536)
    passage_pieces: int = Field(default=192, ge=8, le=8192)
    head: Literal["plain", "chunked"] = "chunked"

    @model_validator(mode="after")
    def _validate_combination(self) -> Self:
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
        if self.document_weighting == "mlp" and self.expansion:
            raise ValueError("mlp weighs the pieces of a text alone: say expansion = false (and expand_by, if wanted)")
        if self.expand_by and self.expansion:
            raise ValueError("expand_by expands texts before they are encoded: say expansion = false")
        if self.uses_model_for_queries and self.document_weighting == "binary":
            raise ValueError("binary document weights have no model that could weigh queries")
        if self.head == "plain" and (self.document_weighting in ("cls_mlm", "mlp") or self.query_weighting == "mlp"):
            raise ValueError("cls_mlm and mlp exist with the head `chunked` only")
        if self.l0_threshold is not None and self.regulariser not in ("flops", "idf_flops"):
            raise ValueError(f"l0_threshold belongs to flops and idf_flops, not to {self.regulariser}")
        if (self.regulariser == "top_k") != (self.top_k is not None):
            raise ValueError("regulariser = top_k needs top_k, the number of weights, and no other regulariser has it")
        return self

    @property
    def uses_model_for_queries(self) -> bool:
        """Return whether queries need the model."""
        return self.query_weighting in ("mlp", "mlm")

    @property
    def is_servable(self) -> bool:
        """Return whether the encoder can be exported: a model for documents, a table for queries, nothing beside."""
        return (
            self.document_weighting == "learned"
            and self.regulariser != "top_k"
            and not self.expand_by
            and not self.uses_model_for_queries
        )

    @property
    def has_idf_twice(self) -> bool:
        """Return whether IDF is in the query weights and in the regulariser as well.

        Query weight 1 with FLOPS(w / idf) and query weight idf with FLOPS(w) are one method, by the change of variables
        w' = w / idf. With both, a piece of IDF 0.4 costs 160,000 times a piece of IDF 8 at equal contribution to the
        score; with one of them, 400 times.
        """
        return self.query_weighting in ("idf", "learned") and self.regulariser == "idf_flops"

    @property
    def needs_idf(self) -> bool:
        """Return whether the query weights or the regulariser need an IDF table."""
        return self.query_weighting == "idf" or self.regulariser == "idf_flops"

    def write(self, directory: Path) -> None:
        """Write recipe.json to a checkpoint's directory."""
        (directory / RECIPE_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Read the recipe.json of a checkpoint; None without the file. Raises ConfigurationError (`bad_recipe`)."""
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
    """File of pairs: {"query", "passage"} a line.

    A run uses at most `cap` of its pairs, and draws each `weight` times an epoch; with 0.25, each of four epochs has
    another quarter of them.
    """

    path: Path
    weight: float = Field(1.0, gt=0, le=100)
    cap: int | None = Field(None, ge=1)


class TeacherChoice(_RecipePart):
    """Teacher and its weight in the ensemble (arXiv 2411.04403, section 4.2: min-max scaled, weighted, summed).

    `name` depends on `kind`:

    - `dense`: a teacher that `sparsewell train teachers` fetches, or a directory with model.onnx and tokenizer.json;
    - `sparse`: a sparsewell encoder by name or path;
    - `siamese`: a dense or sparse model of sentence-transformers, by name or directory, that encodes queries too;
    - `cross-encoder`: a model of sentence-transformers that reads query and passage together. It scores a pair's
      passage and its hard negatives only;
    - `scores`: a file of {"query", "docs", "scores"} a line, see `models.training.scored_candidates`;
    - `bm25`: no name.
    """

    kind: Literal["dense", "sparse", "bm25", "siamese", "cross-encoder", "scores"]
    name: str = ""
    weight: float = Field(1.0, gt=0)

    @property
    def scores_any_passage(self) -> bool:
        """Return whether the teacher scores every passage, and not only chosen candidates of a query."""
        return self.kind not in ("cross-encoder", "scores")

    @model_validator(mode="after")
    def _require_name(self) -> Self:
        if self.kind != "bm25" and not self.name:
            raise ValueError(f"a {self.kind} teacher needs a name")
        return self


class NegativesRecipe(_RecipePart):
    """Hard negatives of a pair: `count` from the ranks `skip` to `depth` of each source's list.

    A candidate is rejected when the first teacher that scores any passage gives it more than `ceiling` times the score
    of the pair's own passage.
    """

    sources: tuple[Literal["bm25", "dense", "sparse", "siamese", "scores", "index"], ...] = ()
    count: int = Field(3, ge=0, le=63)
    skip: int = Field(1, ge=0)
    depth: int = Field(50, ge=1, le=1000)
    ceiling: float = Field(0.95, gt=0, le=1)
    index: str = ""

    @model_validator(mode="after")
    def _validate_ranks(self) -> Self:
        if self.depth <= self.skip:
            raise ValueError("depth must be greater than skip")
        if "index" in self.sources and not self.index:
            raise ValueError("the source `index` needs the name of one: negatives.index")
        return self


class ConsistencyRecipe(_RecipePart):
    """Consistency filter: keep pairs whose passage the teachers rank among the first `within` of `sample` passages.

    Teachers that score only chosen candidates do not count.
    """

    within: int = Field(3, ge=1)
    sample: int = Field(20_000, ge=10)


class TrainingRecipe(_RecipePart):
    """Settings of a run. A step is an optimiser step; `batch` counts the queries of a step on a device, without
    negatives.
    """

    start: str
    encoder: EncoderRecipe = EncoderRecipe()
    train_documents: bool = Field(
        True,
        description="false: the document model stays as the start has it, and only the query table is trained. With "
        "the start as siamese teacher, a symmetric encoder (splade-v3) gets a table and needs no model for queries",
    )
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
    regulariser_weight: float = Field(
        0.02, ge=0, description="lambda, in the unit of arXiv 2411.04403: FLOPS of each column of passages, added"
    )
    query_regulariser_weight: float = Field(
        0.0,
        ge=0,
        description="of FLOPS of queries; for query_weighting mlm and mlp, whose queries have no fixed pieces",
    )
    target_weights: float | None = Field(
        None,
        gt=0,
        le=65536,
        description="weights of a training passage that lambda is adjusted to after the ramp, so that runs compare at "
        "equal density. None: lambda stays regulariser_weight",
    )
    ramp: float = Field(0.33, gt=0, le=1, description="share of the steps until the regulariser's weight is reached")
    distillation_scale: float = Field(
        30.0, ge=0, description="of the teachers' targets; 0: teachers only filter pairs and choose negatives"
    )
    contrastive_weight: float = Field(0.3, ge=0, description="of cross entropy beside distillation; alone it is 1")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gradient_norm: float = Field(1.0, gt=0)
    evaluate_every: int = Field(200, ge=1)
    max_weights: float | None = Field(
        None, gt=0, description="mean weights a document of the best checkpoint. None: any, once the ramp has ended"
    )
    held_out: float = Field(0.02, ge=0, lt=0.5, description="share of the passages that are kept for evaluation")
    collections: tuple[Path, ...] = Field((), description="judged collections (BEIR layout) that choose the best")
    reported: tuple[Path, ...] = Field((), description="judged collections that are shown and choose nothing")
    evaluate_documents: int = Field(2000, ge=10, description="documents of a collection that an evaluation encodes")
    seed: int = 0
    licence: str = Field("unstated", min_length=1, description="of the encoder that is made, for its manifest")

    @model_validator(mode="after")
    def _validate_parts(self) -> Self:
        names = [directory.name for directory in (*self.collections, *self.reported)]
        if len(set(names)) < len(names):
            raise ValueError("two collections have one name, and the curve could not tell them apart")
        if not self.distils and self.contrastive_weight == 0:
            raise ValueError("without teachers and without contrastive_weight there is nothing to learn from")
        if self.consistency is not None and not any(teacher.scores_any_passage for teacher in self.teachers):
            raise ValueError("consistency needs at least one teacher that is no cross-encoder and no file of scores")
        if not self.mines and not all(teacher.scores_any_passage for teacher in self.teachers):
            raise ValueError(
                "a cross-encoder or a file of scores scores only the candidates of a query: set negatives.sources, so "
                "that a pair has some"
            )
        if self.target_weights is not None and self.encoder.regulariser in ("none", "top_k"):
            raise ValueError(
                f"target_weights adjusts the regulariser's weight, and regulariser is {self.encoder.regulariser}"
            )
        if not self.train_documents and self.encoder.query_weighting != "learned":
            raise ValueError("train_documents = false trains the query table alone: say query_weighting = learned")
        if not self.train_documents and self.target_weights is not None:
            raise ValueError("target_weights changes the documents, and train_documents is false")
        if self.query_regulariser_weight and not self.encoder.uses_model_for_queries:
            raise ValueError("query_regulariser_weight belongs to query_weighting mlm and mlp")
        if self.target_weights is not None and self.regulariser_weight == 0:
            raise ValueError("target_weights multiplies regulariser_weight, which is 0")
        for source in self.negatives.sources:
            if source not in ("bm25", "index") and not any(teacher.kind == source for teacher in self.teachers):
                raise ValueError(f"negatives.sources names {source}, but there is no {source} teacher")
        return self

    @property
    def distils(self) -> bool:
        """Return whether the run learns from the teachers' scores."""
        return bool(self.teachers) and self.distillation_scale > 0

    @property
    def mines(self) -> bool:
        """Return whether pairs have hard negatives."""
        return bool(self.negatives.sources) and self.negatives.count > 0

    def changed(self, **members: Any) -> TrainingRecipe:
        """Return a copy with some members replaced, checked again. Raises ConfigurationError (`bad_recipe`)."""
        return parse_recipe(self.model_dump() | members, "the recipe")


def parse_recipe(content: dict[str, Any], where: str) -> TrainingRecipe:
    """Check a recipe. Raises ConfigurationError (`bad_recipe`) that names each wrong member."""
    try:
        return TrainingRecipe.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'recipe'}: {fault['msg']}" for fault in error.errors()
        )
        raise ConfigurationError("bad_recipe", f"{where} cannot be used: {faults}.") from None


def read_recipe(path: Path) -> TrainingRecipe:
    """Read a recipe from a TOML file; its paths are relative to the file. Raises ConfigurationError (`bad_recipe`)."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError("bad_recipe", f"{path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError("bad_recipe", f"{path} is not a TOML file: {error}.") from None
    recipe = parse_recipe(content, str(path))
    base = path.resolve().parent
    return recipe.model_copy(
        update={
            "start": _resolve_name(base, recipe.start),
            "teachers": tuple(
                teacher.model_copy(update={"name": _resolve_teacher(base, teacher)}) for teacher in recipe.teachers
            ),
            "pairs": tuple(pair.model_copy(update={"path": base / pair.path}) for pair in recipe.pairs),
            "collections": tuple(base / directory for directory in recipe.collections),
            "reported": tuple(base / directory for directory in recipe.reported),
        }
    )


def _resolve_name(base: Path, name: str) -> str:
    """Return the path of a start or teacher beside the recipe, or the name of a hub or shipped encoder unchanged."""
    return str(base / name) if name and (base / name).is_dir() else name


def _resolve_teacher(base: Path, teacher: TeacherChoice) -> str:
    return str(base / teacher.name) if teacher.kind == "scores" else _resolve_name(base, teacher.name)
