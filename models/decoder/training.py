"""Mistral-SPLADE (arXiv 2408.11119) from a decoder and pairs to a model directory, with a table on the query side."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from models.decoder.calibration import Calibration, calibrate
from models.decoder.checkpoint import load_checkpoint
from models.decoder.lora import add_adapters
from models.decoder.module import EchoSplade
from models.decoder.objective import Objective
from models.decoder.package import require_room, write_model_directory
from models.decoder.recipe import DecoderRecipe
from models.decoder.sparse_encoder import assemble
from models.decoder.table import passage_weights
from models.decoder.trainable import last_checkpoint, load_trainable
from models.decoder.trainer import make_trainer
from models.export.placing import require_place
from models.training.device import cpu_dtype
from models.training.idf import Weights
from models.training.mixing import PairFile, read_mixture
from models.training.pairs import PairSet
from models.training.run_directory import RUN, claim
from services.errors import InvalidInput

log = logging.getLogger("models.decoder")


@dataclass(frozen=True, slots=True)
class Trained:
    """What `train_decoder` made. `history` are the logged lines: step, loss, ranking, regulariser, active, seconds."""

    directory: Path
    fingerprint: str
    pairs: int
    adapter_parameters: int
    calibration: Calibration
    history: list[dict[str, float]]
    seconds: float


def train_decoder(
    recipe: DecoderRecipe,
    start: str,
    pairs: Sequence[Path],
    out: Path,
    *,
    licence: str = "unstated",
    adapters: Path | None = None,
) -> Trained:
    """Trains adapters on a decoder's document side and writes a model directory with them merged.

    `start` is what `load_checkpoint` takes, `pairs` are files of {"query", "passage"} lines, `adapters` a checkpoint
    whose trained parameters are taken over. Checkpoints go to a directory beside `out` (its name and `.training`): the
    same call after a kill goes on from the last one. Raises InvalidInput (`no_pairs`, `too_few_pairs`),
    ConfigurationError: those of `load_checkpoint`, of `DecoderTrainer`, `bad_window`, those of `require_place` (an
    encoder at `out` that this training did not write stays), and `other_training` when the directory holds the
    checkpoints of another recipe, start or pairs. What would make the last step fail is found out before the first.
    """
    began = time.monotonic()
    work = out.with_name(f"{out.name}.training")
    require_place(out, replace=(work / RUN).is_file())
    data = read_mixture([PairFile(path) for path in pairs], recipe.seed).pairs
    _require_enough(data, recipe)
    torch.manual_seed(recipe.seed)
    checkpoint = load_checkpoint(start, dtype=training_dtype(recipe))
    document = EchoSplade.from_checkpoint(checkpoint, lowercase=recipe.lowercase, longest=recipe.passage_pieces)
    require_room(document, checkpoint.positions, recipe.window)
    # (only now: a directory that was claimed takes no other recipe)
    claim(work, {"recipe": recipe.model_dump(), "start": start, "pairs": data.fingerprint}, "recipe, start or pairs")
    excluded = document.excluded_ids()
    idf = passage_weights(document.tokenizer, data.passages, document.get_embedding_dimension(), excluded)
    if torch.cuda.is_available():
        document.to("cuda")
    sample = np.random.default_rng(recipe.seed).permutation(len(data.passages))[: recipe.calibration_texts]
    calibration = calibrate(document, [data.passages[row] for row in sample], active=recipe.active_at_start)
    log.info("pieces a text: %.0f before calibration, %.0f after", calibration.before, calibration.after)
    parameters = add_adapters(document.decoder, rank=recipe.rank, alpha=recipe.alpha, dropout=recipe.dropout)
    if document.output is not None:
        document.output.requires_grad_(False)
    if recipe.checkpoint_layers:
        document.decoder.activation_checkpointing_enable({"use_reentrant": False})
    model = assemble(document, torch.from_numpy(idf), learn=recipe.query_weighting == "learned")
    if adapters is not None:
        load_trainable(model, adapters)
    objective = Objective(model, recipe, torch.from_numpy(idf))
    history: list[dict[str, float]] = []
    trainer = make_trainer(model, objective, _dataset(data), recipe, work, lambda line: _heard(history, line))
    resumed = last_checkpoint(work)
    if resumed is not None:
        log.info("going on from %s", resumed)
    if recipe.steps:
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    record = {
        "method": "Mistral-SPLADE (arXiv 2408.11119) with a table for queries",
        "start": Path(start).name,
        "pairs": len(data),
        "adapter_parameters": parameters,
        "calibration": asdict(calibration),
        "recipe": recipe.model_dump(),
        "last": history[-1] if history else {},
    }
    fingerprint = write_model_directory(
        document,
        query_weights(model),
        out,
        positions=checkpoint.positions,
        top_k=recipe.top_k,
        window=(recipe.window, recipe.overlap),
        dtype=torch.float32 if recipe.precision == "float32" else torch.bfloat16,
        extra={"licence": licence, "training": record},
    )
    return Trained(out, fingerprint, len(data), parameters, calibration, history, time.monotonic() - began)


def training_dtype(recipe: DecoderRecipe) -> torch.dtype:
    """The type of the frozen weights."""
    if recipe.precision == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else cpu_dtype()
    return torch.float32 if recipe.precision == "float32" else torch.bfloat16


def query_weights(model: Any) -> Weights:
    """The table of an encoder that `assemble` made, float32 [vocabulary]."""
    table = model[0].sub_modules["query"][0]
    table.project()
    weights: Weights = table.weight.detach().float().cpu().numpy()
    return weights


def _dataset(data: PairSet) -> Dataset:
    return Dataset.from_dict(
        {
            "query": [data.queries[row] for row in data.query_rows],
            "passage": [data.passages[row] for row in data.passage_rows],
        }
    )


def _require_enough(data: PairSet, recipe: DecoderRecipe) -> None:
    distinct = min(len(set(data.query_rows.tolist())), len(set(data.passage_rows.tolist())))
    if distinct < 2 * recipe.batch:
        raise InvalidInput(
            "too_few_pairs",
            f"There are {len(data):,} pairs of {distinct:,} distinct texts, and a batch has {recipe.batch}: a batch "
            "holds each text once, so give at least twice as many, or a smaller batch.",
        )


def _heard(history: list[dict[str, float]], line: dict[str, float]) -> None:
    history.append(line)
    log.info(
        "step %(step)d: loss %(loss).4f (ranking %(ranking).4f), %(active).0f pieces a text, %(seconds_a_step).2f s",
        line,
    )
