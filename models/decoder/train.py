"""`sparsewell train mistral START PAIRS... --out DIR`: train Mistral-SPLADE with a query table.

START is a directory with config.json, model.safetensors and tokenizer.json (`python -m models.decoder.checkpoint
smollm2` makes one), or a hub name such as mistralai/Mistral-7B-v0.1. PAIRS are files of {"query": ..., "passage": ...}
lines. After an interruption the same command continues from the last checkpoint.

Training (arXiv 2408.11119) has three steps: `calibrate_bias` sets the zero of the logits, adapters and bias are
trained, `write_model_directory` merges them. Calibration needs a few hundred texts: softmax ignores a shift of all
logits, so the level of a pretrained decoder means nothing. SmolLM2's logits are 18 on average, and every text would
weigh all 49,152 pieces alike; at -18 every gradient would be zero (dying ReLU, arXiv 2504.10816). See
docs/decisions/0122 and 0124.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from pydantic import ValidationError

from models.decoder.checkpoint import load_checkpoint
from models.decoder.model import DECODER_FILES, Calibration, EchoSplade, add_adapters, assemble_encoder, calibrate_bias
from models.decoder.recipe import DecoderRecipe, read_decoder_recipe
from models.decoder.tokenisation import passage_idf_weights
from models.decoder.trainer import SpladeObjective, last_checkpoint, load_trainable, make_decoder_trainer
from models.export.package import require_output_place, write_manifest
from models.idf import PieceWeights, write_weights
from models.registry import DECODER_ARCHITECTURE
from models.training.batches import MixtureFile, column_sides, read_mixture
from models.training.mining import MiningRule, VectorCandidates, load_candidate_lists, mine_negatives
from models.training.pairs import PairSet, Rows
from models.training.run_directory import RUN_FILE, claim_run_directory
from models.training.teacher_vectors import load_teacher_vectors
from models.training.teachers import Bm25Teacher, WordTokeniser
from models.training.trainer import cpu_dtype
from services.directories import replace_directory
from services.encoders.query_table import QUERY_WEIGHTS_FILE
from services.errors import ConfigurationError, InvalidInput, SparsewellError

log = logging.getLogger("models.decoder")


@dataclass(frozen=True, slots=True)
class TrainedDecoder:
    """The outcome of a training. `history`: logged lines with step, loss, ranking, regulariser, active, seconds."""

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
) -> TrainedDecoder:
    """Train adapters on a decoder's document side and write a model directory with merged adapters.

    `start`: as for `load_checkpoint`. `pairs`: files of {"query", "passage"} lines. `adapters`: a checkpoint whose
    trained parameters are the initial ones. Checkpoints go to `out`.training; after an interruption the same call
    continues from the last one. All conditions of the last step are checked before the first.

    Raises InvalidInput (`no_pairs`, `too_few_pairs`) and ConfigurationError: `bad_window`, `other_training`
    (checkpoints of another recipe, start or pairs), those of `load_checkpoint`, `DecoderTrainer` and
    `require_output_place` (an encoder at `out` that this training did not write is never replaced).
    """
    began = time.monotonic()
    work = out.with_name(f"{out.name}.training")
    require_output_place(out, replace=(work / RUN_FILE).is_file())
    data = read_mixture([MixtureFile(path) for path in pairs], recipe.seed).pairs
    _require_enough_pairs(data, recipe)
    torch.manual_seed(recipe.seed)
    checkpoint = load_checkpoint(start, dtype=training_dtype(recipe))
    document = EchoSplade.from_checkpoint(checkpoint, lowercase=recipe.lowercase, longest=recipe.passage_pieces)
    require_window_positions(document, checkpoint.positions, recipe.window)
    # After all checks, because a claimed directory accepts no other recipe.
    claim_run_directory(
        work, {"recipe": recipe.model_dump(), "start": start, "pairs": data.fingerprint}, "recipe, start or pairs"
    )
    negatives = _mine_negatives(data, recipe, work)
    excluded = document.excluded_ids()
    idf = passage_idf_weights(document.tokenizer, data.passages, document.get_embedding_dimension(), excluded)
    if torch.cuda.is_available():
        document.to("cuda")
    sample = np.random.default_rng(recipe.seed).permutation(len(data.passages))[: recipe.calibration_texts]
    calibration = calibrate_bias(document, [data.passages[row] for row in sample], active=recipe.active_at_start)
    log.info("pieces a text: %.0f before calibration, %.0f after", calibration.before, calibration.after)
    parameters = add_adapters(document.decoder, rank=recipe.rank, alpha=recipe.alpha, dropout=recipe.dropout)
    if document.output is not None:
        document.output.requires_grad_(False)
    if recipe.checkpoint_layers:
        document.decoder.activation_checkpointing_enable({"use_reentrant": False})
    model = assemble_encoder(document, torch.from_numpy(idf), learn=recipe.query_weighting == "learned")
    if adapters is not None:
        load_trainable(model, adapters)
    objective = SpladeObjective(model, recipe, torch.from_numpy(idf))
    history: list[dict[str, float]] = []
    trainer = make_decoder_trainer(
        model, objective, _build_dataset(data, negatives), recipe, work, lambda line: _record_log_line(history, line)
    )
    resumed = last_checkpoint(work)
    if resumed is not None:
        log.info("continuing from %s", resumed)
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
        extract_query_weights(model),
        out,
        positions=checkpoint.positions,
        top_k=recipe.top_k,
        window=(recipe.window, recipe.overlap),
        dtype=torch.float32 if recipe.precision == "float32" else torch.bfloat16,
        extra={"licence": licence, "training": record},
    )
    return TrainedDecoder(out, fingerprint, len(data), parameters, calibration, history, time.monotonic() - began)


def training_dtype(recipe: DecoderRecipe) -> torch.dtype:
    """Return the type of the frozen weights."""
    if recipe.precision == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else cpu_dtype()
    return torch.float32 if recipe.precision == "float32" else torch.bfloat16


def _require_enough_pairs(data: PairSet, recipe: DecoderRecipe) -> None:
    distinct = min(len(set(data.query_rows.tolist())), len(set(data.passage_rows.tolist())))
    if distinct < 2 * recipe.batch:
        raise InvalidInput(
            "too_few_pairs",
            f"There are {len(data):,} pairs of {distinct:,} distinct texts, and a batch of {recipe.batch} pairs holds "
            "each text once. Give at least twice as many texts as pairs in a batch, or choose a smaller batch.",
        )


def _mine_negatives(data: PairSet, recipe: DecoderRecipe, work: Path) -> Rows:
    """Return the hard negatives of each pair, int32 [pairs, negatives]; the lists are kept in `work`.

    Raises InvalidInput (`too_few_pairs`) when the passages do not give every pair as many.
    """
    if not recipe.negatives:
        return np.empty((len(data), 0), dtype=np.int32)
    teacher = Bm25Teacher(data.passages, WordTokeniser())
    vectors = load_teacher_vectors(teacher, data, work / "vectors")
    lists = load_candidate_lists(
        VectorCandidates(vectors, teacher.fingerprint), data, recipe.negatives_depth, work / "vectors"
    )
    rule = MiningRule(recipe.negatives, depth=recipe.negatives_depth, ceiling=None, seed=recipe.seed)
    mined = mine_negatives(data, [lists], rule)
    log.info("hard negatives: %s", ", ".join(f"{name} {count:,}" for name, count in mined.counts.items() if count))
    if mined.counts["missing"]:
        raise InvalidInput(
            "too_few_pairs",
            f"{len(data.passages):,} passages do not give every pair {recipe.negatives} negatives: give more pairs, or "
            "fewer negatives.",
        )
    return mined.rows


def _build_dataset(data: PairSet, negatives: Rows) -> Dataset:
    passages = [data.passage_rows, *negatives.T]
    texts = [[data.passages[row] for row in rows] for rows in passages]
    columns = [[data.queries[row] for row in data.query_rows], *texts]
    return Dataset.from_dict(dict(zip(column_sides(negatives.shape[1]), columns, strict=True)))


def _record_log_line(history: list[dict[str, float]], line: dict[str, float]) -> None:
    history.append(line)
    log.info(
        "step %(step)d: loss %(loss).4f (ranking %(ranking).4f), %(active).0f pieces a text, %(seconds_a_step).2f s",
        line,
    )


def write_model_directory(
    document: EchoSplade,
    query_weights: np.ndarray,
    out: Path,
    *,
    positions: int,
    top_k: int = 256,
    window: tuple[int, int] = (254, 32),
    dtype: torch.dtype = torch.bfloat16,
    extra: dict[str, Any] | None = None,
) -> str:
    """Write a model directory with merged adapters and weights in `dtype`; return its fingerprint.

    The directory's name becomes the encoder's. `query_weights`: float32 [vocabulary]. `positions`: longest input of the
    decoder. `window`: pieces and overlap. `extra`: further members of the manifest (licence, training record). An old
    directory at `out` stays until the new one is complete. Raises ConfigurationError (`bad_window`, `unwritable_file`)
    and InvalidInput (`not_finite_weights`).
    """
    room = require_window_positions(document, positions, window[0])
    description = {
        "name": out.resolve().name,
        "architecture": DECODER_ARCHITECTURE,
        "vocabulary": document.get_embedding_dimension(),
        # For other encoders, max_pieces includes the two pieces that open and close a window.
        "max_pieces": room + 2,
        "window": {"pieces": window[0], "overlap": window[1]},
        "top_k": min(top_k, document.get_embedding_dimension()),
        "activation": "log1p_relu",
        "pooling": "max over the second copy",
        "head": "tied" if document.output is None else "own",
        "precision": str(dtype).removeprefix("torch."),
        "licence": "unstated",
        **(extra or {}),
    }
    with replace_directory(out) as fresh:
        document.save(str(fresh), dtype=dtype)
        write_weights(
            fresh / QUERY_WEIGHTS_FILE, query_weights, document.tokenizer.get_vocab(), document.excluded_ids()
        )
        return write_manifest(fresh, description, [*DECODER_FILES, QUERY_WEIGHTS_FILE])


def require_window_positions(document: EchoSplade, positions: int, pieces: int) -> int:
    """Return the longest window of a decoder of `positions` positions.

    Raises ConfigurationError (`bad_window`) when `pieces` is more.
    """
    room = document.echo.room(positions)
    if pieces > room:
        raise ConfigurationError(
            "bad_window", f"The decoder reads a text twice, so a window has at most {room} pieces, not {pieces}."
        )
    return room


def extract_query_weights(model: Any) -> PieceWeights:
    """Return the query table of an encoder of `assemble_encoder`, float32 [vocabulary]."""
    table = model[0].sub_modules["query"][0]
    table.project()
    weights: PieceWeights = table.weight.detach().float().cpu().numpy()
    return weights


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sparsewell train mistral",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("start")
    parser.add_argument("pairs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="model directory; its name becomes the encoder's")
    parser.add_argument("--recipe", type=Path, help="JSON of a recipe; the options below override it")
    parser.add_argument("--licence", default="unstated", help="of the decoder's weights, for the manifest")
    parser.add_argument("--adapters", type=Path, help="checkpoint directory with initial trained parameters")
    for name, field in DecoderRecipe.model_fields.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default=None, metavar=str(field.default), dest=name)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    from transformers.utils.logging import disable_progress_bar

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    disable_progress_bar()
    arguments = _parse_arguments(argv)
    options = {name: value for name in DecoderRecipe.model_fields if (value := getattr(arguments, name)) is not None}
    try:
        recipe = read_decoder_recipe(arguments.recipe, options)
        trained = train_decoder(
            recipe,
            arguments.start,
            arguments.pairs,
            arguments.out,
            licence=arguments.licence,
            adapters=arguments.adapters,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise SystemExit(f"{'.'.join(map(str, first['loc'])) or 'recipe'}: {first['msg']}") from None
    except (SparsewellError, OSError) as error:
        raise SystemExit(str(error)) from None
    log.info("%s has the fingerprint %s, trained in %.0f s", trained.directory, trained.fingerprint, trained.seconds)


if __name__ == "__main__":
    main()
