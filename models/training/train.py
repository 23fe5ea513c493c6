"""Training run: from prepared pairs to the best checkpoint, on sentence-transformers' trainer.

`train_encoder` trains and evaluates; a stopped run resumes from its last complete checkpoint.

The optimiser is AdamW with the parameter groups of `trainer.parameter_groups`, a linear warm-up and decay, and a
quadratic ramp of the regulariser's weight (as in SPLADE, arXiv 2109.10086). `auto` precision picks bfloat16 where the
hardware has it: a core with AVX-512 BF16 computed 298 GFLOPS, 77 in float32.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder import SparseEncoderTrainingArguments
from sentence_transformers.sparse_encoder.callbacks import SpladeRegularizerWeightSchedulerCallback
from sentence_transformers.sparse_encoder.data_collator import SparseEncoderDataCollator
from transformers import PrinterCallback, get_linear_schedule_with_warmup

from models.idf import BATCH_PASSAGES, PieceWeights
from models.judged_queries import JudgedQueries
from models.training.architecture import InferenceFreeEncoder, build_encoder, save_checkpoint
from models.training.batches import PositiveLinks, column_sides, mask_false_negatives
from models.training.evaluation import BEST, CurveEvaluator, read_best_evaluation, read_curve
from models.training.losses import FlopsRegulariser, RankingLoss, make_regulariser
from models.training.modules import QueryTableEmbedding
from models.training.pairs import PairSet, Rows
from models.training.recipe import TrainingRecipe
from models.training.run_directory import (
    CHECKPOINTS,
    RUN_FILE,
    begin_run,
    drop_unfinished,
    is_main_process,
    last_checkpoint,
)
from models.training.teachers import TeacherEnsemble
from models.training.trainer import (
    ChunkedSpladeLoss,
    DensityControl,
    GuardedTrainer,
    TrainingCallback,
    cpu_dtype,
    is_out_of_memory,
    parameter_groups,
)
from services.errors import ConfigurationError

log = logging.getLogger("models.training")
# With fewer pairs, batches repeat the same pairs and the encoder learns noise.
MIN_PAIRS = 16
ProgressReport = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class TrainingMaterial:
    """Input of a run.

    `order` says how often and when each link is seen (`PairMixture.cycle`); `negatives` are int32 [links, count]; `idf`
    is float32 [vocabulary]. `judged` collections choose the best checkpoint, `reported` ones are only shown.
    """

    pairs: PairSet
    order: Rows
    negatives: Rows | None
    teachers: TeacherEnsemble | None
    idf: PieceWeights
    judged: Sequence[JudgedQueries]
    reported: Sequence[JudgedQueries] = ()


@dataclass
class PairCollator(SparseEncoderDataCollator):
    """Collator of tokenised columns and `label`, see `models.training.losses.RankingLoss`.

    Passages are ordered column by column, as the loss reads them. Without teachers the run is contrastive only.
    """

    pairs: PairSet = field(default_factory=lambda: PairSet.of([]))
    teachers: TeacherEnsemble | None = None
    _positives: PositiveLinks = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._positives = PositiveLinks(self.pairs)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        rows = np.asarray([feature["rows"] for feature in features], dtype=np.int32)
        names = column_sides(rows.shape[1] - 2)
        texts = [self.pairs.queries, *[self.pairs.passages] * (rows.shape[1] - 1)]
        batch: dict[str, Any] = super().__call__(
            [
                # a pair with too few hard negatives has row -1 in place of the missing ones
                {name: texts[column][row[column]] if row[column] >= 0 else "" for column, name in enumerate(names)}
                for row in rows.tolist()
            ]
        )
        query_rows, passage_rows = rows[:, 0].copy(), rows[:, 1:].T.reshape(-1).copy()
        masked = mask_false_negatives(self._positives, query_rows, passage_rows)
        targets = (
            np.zeros(masked.shape) if self.teachers is None else self.teachers.targets(query_rows, passage_rows, masked)
        )
        scored = ~masked & np.isfinite(targets)
        labels = np.stack([np.where(scored, targets, 0.0), ~masked, scored], axis=1)
        batch["label"] = torch.from_numpy(labels.astype(np.float32))
        return batch


def build_link_dataset(pairs: PairSet, negatives: Rows | None, order: Rows) -> Dataset:
    """Build a dataset with a row for each entry of `order`, which may repeat links.

    `rows` holds the rows of the query, its passage and its hard negatives; `negatives` is int32 [links, count].
    """
    rows = np.stack([pairs.query_rows, pairs.passage_rows], axis=1)
    if negatives is not None:
        rows = np.concatenate([rows, negatives], axis=1)
    return Dataset.from_dict({"rows": rows[order].astype(np.int32)})


def train_encoder(
    recipe: TrainingRecipe,
    material: TrainingMaterial,
    out: Path,
    *,
    copy_to: Path | None = None,
    report: ProgressReport = lambda step, steps, logs: None,
    evaluated: Callable[[dict[str, Any]], None] = lambda entry: None,
    trained: Callable[[InferenceFreeEncoder], None] = lambda model: None,
) -> Path:
    """Train, and return the directory of the best checkpoint.

    The checkpoint has config.json, model.safetensors, tokenizer.json and query_weights.json. A stopped run resumes from
    its last complete checkpoint in `out`. `trained` is called with the encoder of the last step.

    Raises ConfigurationError: `too_few_pairs`, `bad_copy`, `training_diverged`, `out_of_memory`, `recipe_changed`.
    """
    _require_pairs(recipe, material)
    begin_run(recipe, out)
    if copy_to is not None and copy_to.resolve() == out.resolve():
        raise ConfigurationError("bad_copy", f"{out} is the run's directory: copy to another disk.")
    if copy_to is not None and is_main_process():
        copy_to.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(out / RUN_FILE, copy_to / RUN_FILE)
    if any(entry["step"] >= recipe.steps for entry in read_curve(out)) and read_best_evaluation(out):
        return out / BEST
    model = build_encoder(recipe.start, recipe.encoder, material.idf)
    if not recipe.train_documents:
        freeze_documents(model)
    keep_scale_of_table(model, material.pairs.queries)
    negatives = 0 if material.negatives is None else int(material.negatives.shape[1])
    loss = ChunkedSpladeLoss(
        model,
        RankingLoss(recipe.contrastive_weight, distils=material.teachers is not None),
        mini_batch=recipe.mini_batch,
        document_regularizer_weight=recipe.regulariser_weight,
        query_regularizer_weight=recipe.query_regulariser_weight or None,
        query_regularizer=FlopsRegulariser(),
        document_regularizer=make_regulariser(
            recipe.encoder.regulariser,
            idf=torch.from_numpy(material.idf),
            threshold=recipe.encoder.l0_threshold,
            columns=1 + negatives,
        ),
    )
    if recipe.encoder.has_idf_twice and is_main_process():
        log.warning(
            "IDF is in the query weights and in the regulariser (idf_flops). The published encoders have it once: take "
            'regulariser = "flops", or query_weighting = "none" (docs/training.md).'
        )
    groups = parameter_groups(model, recipe.learning_rate, recipe.table_learning_rate, recipe.weight_decay)
    evaluator = CurveEvaluator(
        material.judged,
        out,
        save_checkpoint,
        reported=material.reported,
        copy_to=copy_to,
        report=evaluated,
        ramp_end=math.ceil(recipe.ramp * recipe.steps) if groups and recipe.train_documents else 0,
        max_weights=recipe.max_weights,
    )
    if not groups:  # the baseline of an ablation: neither side has trainable parameters
        if is_main_process():
            evaluator(model, None, 0, recipe.steps)
            trained(model)
        return out / BEST
    ramp = make_ramp(loss, recipe)
    arguments = training_arguments(recipe, out, negatives)
    optimiser = torch.optim.AdamW(groups)
    schedule = get_linear_schedule_with_warmup(optimiser, round(recipe.warmup * recipe.steps), recipe.steps)
    trainer = GuardedTrainer(
        model=model,
        args=arguments,
        train_dataset=build_link_dataset(material.pairs, material.negatives, material.order),
        loss=loss,
        evaluator=evaluator,
        data_collator=PairCollator(
            preprocess_fn=model.preprocess,
            router_mapping=column_sides(negatives),
            pairs=material.pairs,
            teachers=material.teachers,
        ),
        callbacks=[ramp, TrainingCallback(report, copy_to)],
        optimizers=(optimiser, schedule),
    )
    trainer.remove_callback(PrinterCallback)  # `report` shows the same figures
    if is_main_process():
        drop_unfinished(out / CHECKPOINTS)
    try:
        _run_steps(trainer, ramp, evaluator, recipe.steps, out)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # steps and evaluations have already reduced their batches to one text
        raise ConfigurationError(
            "out_of_memory",
            "Memory does not hold the optimiser's state and one text: take a smaller start or lower "
            f"encoder.passage_pieces. The files in {out} stay.",
        ) from None
    if is_main_process():
        trained(model.eval())
    return out / BEST


def _run_steps(
    trainer: GuardedTrainer,
    ramp: SpladeRegularizerWeightSchedulerCallback,
    evaluator: CurveEvaluator,
    steps: int,
    out: Path,
) -> None:
    """Train from the start or from the last complete checkpoint, and evaluate the first and the last step."""
    checkpoint = last_checkpoint(out / CHECKPOINTS)
    if checkpoint is None:
        _evaluate_once(trainer, evaluator, 0, out)
    else:
        log.info("resuming from %s", checkpoint)
        if isinstance(ramp, DensityControl):
            ramp.resume(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    _evaluate_once(trainer, evaluator, steps, out)


def make_ramp(loss: ChunkedSpladeLoss, recipe: TrainingRecipe) -> SpladeRegularizerWeightSchedulerCallback:
    """Return the schedule of lambda: a quadratic ramp to the recipe's weight, or from there to a density."""
    if recipe.target_weights is None:
        return SpladeRegularizerWeightSchedulerCallback(loss, "quadratic", recipe.ramp)
    return DensityControl(loss, recipe.ramp, recipe.target_weights)


def freeze_documents(model: InferenceFreeEncoder) -> None:
    """Leave the document side as it is: no gradient, no dropout."""
    documents = model[0].sub_modules["document"]
    documents.requires_grad_(False)
    for module in documents.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def keep_scale_of_table(model: SparseEncoder, queries: Sequence[str]) -> None:
    """Let a learned query table keep its mean over the pieces of these queries. Fixed tables stay as they are."""
    for table in (module for module in model.modules() if isinstance(module, QueryTableEmbedding)):
        if not table.weight.requires_grad:
            continue
        counts = torch.zeros(len(table.weight))
        for at in range(0, len(queries), BATCH_PASSAGES):
            ids = model.preprocess(list(queries[at : at + BATCH_PASSAGES]), task="query")["input_ids"]
            counts += torch.bincount(ids.flatten().cpu(), minlength=len(counts))
        table.keep_mean_of(counts)


def _require_pairs(recipe: TrainingRecipe, material: TrainingMaterial) -> None:
    """Require a whole batch for each device; with fewer pairs the trainer would end without a step."""
    available = min(len(material.pairs), len(material.order))
    required = max(MIN_PAIRS, recipe.batch * int(os.environ.get("WORLD_SIZE", "1")))
    if available < required:
        raise ConfigurationError(
            "too_few_pairs",
            f"There are {available} pairs to train on after caps, weights, held_out and consistency; a batch of "
            f"{recipe.batch} on each device needs at least {required}. Give more pairs, or a smaller batch.",
        )


def _evaluate_once(trainer: GuardedTrainer, evaluator: CurveEvaluator, step: int, out: Path) -> None:
    """Evaluate a step that the curve lacks. The trainer evaluates only at multiples of its interval, so the first and
    the last step need this.
    """
    if trainer.is_world_process_zero() and all(entry["step"] != step for entry in read_curve(out)):
        evaluator(trainer.model.eval(), None, 0, step)


def training_arguments(recipe: TrainingRecipe, out: Path, negatives: int) -> SparseEncoderTrainingArguments:
    """Return the trainer's arguments for a recipe with `negatives` hard negatives a pair. Raises ConfigurationError."""
    precision = choose_precision(recipe)
    arguments = SparseEncoderTrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch,
        learning_rate=recipe.learning_rate,
        max_grad_norm=recipe.gradient_norm,
        use_cpu=not torch.cuda.is_available(),
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        eval_strategy="steps",
        eval_steps=recipe.evaluate_every,
        save_strategy="steps",
        save_steps=recipe.evaluate_every,
        save_total_limit=2,
        logging_steps=min(20, recipe.evaluate_every),
        logging_nan_inf_filter=False,
        router_mapping=column_sides(negatives),
        remove_unused_columns=False,
        dataloader_drop_last=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
        seed=recipe.seed,
        data_seed=recipe.seed,
    )
    # accelerate starts a process for each GPU. Without it transformers would wrap the model in DataParallel, which
    # multiplies the batch and cannot split packed documents.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def choose_precision(recipe: TrainingRecipe) -> str:
    """Return the precision of the recipe; for `auto`, the fastest of this machine.

    Raises ConfigurationError (`bad_recipe`) for a precision that the device does not have.
    """
    gpu = torch.cuda.is_available()
    has_bfloat16 = gpu and torch.cuda.is_bf16_supported()
    if recipe.precision == "float16" and not gpu:
        raise ConfigurationError(
            "bad_recipe",
            "precision float16 needs a GPU, and PyTorch finds none here: choose bfloat16, float32 or auto.",
        )
    if recipe.precision == "bfloat16" and gpu and not has_bfloat16:
        raise ConfigurationError("bad_recipe", "This GPU has no bfloat16: choose precision float16, float32 or auto.")
    if recipe.precision != "auto":
        return recipe.precision
    if gpu:
        return "bfloat16" if has_bfloat16 else "float16"
    return "bfloat16" if cpu_dtype() is torch.bfloat16 else "float32"
