"""`python -m models.export CHECKPOINT OUT_DIR`: a model directory from a checkpoint."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from models.export.checkpoint import load_checkpoint
from models.export.collection import read_collection
from models.export.graph import Int8, build_graph
from models.export.package import (
    copy_query_weights,
    copy_tokenizer,
    excluded_pieces,
    read_vocabulary,
    write_manifest,
)
from models.training.recipe_encoder import EncoderRecipe
from services.errors import ConfigurationError
from services.manifest import MANIFEST, read_manifest

FILES = ("model.onnx", "tokenizer.json", "query_weights.json")
log = logging.getLogger("models.export")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m models.export", description=__doc__)
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="config.json, model.safetensors, tokenizer.json, query_weights.json; recipe.json if trained here",
    )
    parser.add_argument("out", type=Path, help="the model directory to write; its name becomes the encoder's")
    parser.add_argument("--record", type=Path, help="JSON with `licence`, `training` and more for the manifest")
    parser.add_argument("--top-k", type=int, default=256)
    parser.add_argument("--bits", type=int, choices=(7, 8), default=8, help="bits of a quantised weight")
    parser.add_argument("--window-pieces", type=int, default=382)
    parser.add_argument("--window-overlap", type=int, default=48)
    parser.add_argument(
        "--parity", type=Path, action="append", default=[], help="a BEIR-layout collection to measure on"
    )
    parser.add_argument("--report", type=Path, help="where the parity report goes; without --parity, read again")
    return parser.parse_args(argv)


def export(arguments: argparse.Namespace) -> str:
    """Writes the files and the manifest, without measuring. Returns the fingerprint."""
    source, out = arguments.checkpoint, arguments.out
    recipe = EncoderRecipe.read(source) or EncoderRecipe()
    if recipe.document_weighting == "binary":
        raise ConfigurationError(
            "checkpoint_unsupported", f"{source} weighs documents by binary presence: there is no model to export."
        )
    vocabulary = read_vocabulary(source / "tokenizer.json")
    excluded = excluded_pieces(vocabulary)
    checkpoint = load_checkpoint(source)
    out.mkdir(parents=True, exist_ok=True)
    model = build_graph(
        checkpoint,
        int8=Int8(arguments.bits),
        top_k=arguments.top_k,
        excluded=excluded,
        activation=recipe.activation,
        expansion=recipe.expansion,
    )
    onnx.checker.check_model(model)
    (out / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    copy_tokenizer(source / "tokenizer.json", out / "tokenizer.json")
    dropped = copy_query_weights(source / "query_weights.json", out / "query_weights.json", vocabulary, excluded)
    extra: dict[str, Any] = json.loads(arguments.record.read_bytes()) if arguments.record else {"licence": "unstated"}
    description = {
        "name": out.resolve().name,
        "architecture": checkpoint.architecture,
        "vocabulary": checkpoint.vocabulary,
        "max_pieces": checkpoint.max_pieces,
        "window": {"pieces": arguments.window_pieces, "overlap": arguments.window_overlap},
        "top_k": min(arguments.top_k, checkpoint.vocabulary),
        "activation": recipe.activation,
        "pooling": "max",
        "precision": "int8" if arguments.bits == 8 else f"int{arguments.bits}",
        "query_pieces_left_out": dropped,
        **({} if recipe.expansion else {"expansion": False}),
        **extra,
    }
    return write_manifest(out, description, FILES)


def measure_parity(arguments: argparse.Namespace) -> dict[str, Any]:
    """The parity report, measured now and written to `--report`."""
    # Only here: writing the files needs no torch.
    from models.export.parity import parity

    vocabulary = read_vocabulary(arguments.checkpoint / "tokenizer.json")
    report = parity(
        arguments.checkpoint,
        arguments.out,
        load_checkpoint(arguments.checkpoint),
        read_manifest(arguments.out),
        excluded_pieces(vocabulary),
        [read_collection(directory) for directory in arguments.parity],
    )
    if arguments.report:
        arguments.report.write_text(json.dumps(report, indent=2) + "\n")
    return report


def add_parity(out: Path, report: dict[str, Any]) -> None:
    """Puts the report's key figures into the manifest; the fingerprint stays. A report of other files is left out."""
    description = json.loads((out / MANIFEST).read_bytes())
    if report["fingerprint"] != description["fingerprint"]:
        log.warning("the report is about the fingerprint %s: measure again with --parity", report["fingerprint"])
        return
    description["parity"] = {
        collection: {
            label: {name: found[name]["ndcg_at_10"] for name in found if name != "rows"}
            for label, found in cuts.items()
        }
        for collection, cuts in report["collections"].items()
    }
    write_manifest(out, description, FILES)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with the process's arguments, or with `argv`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = _arguments(argv)
    log.info("%s has the fingerprint %s", arguments.out, export(arguments))
    if arguments.parity:
        add_parity(arguments.out, measure_parity(arguments))
    elif arguments.report:
        add_parity(arguments.out, json.loads(arguments.report.read_bytes()))


if __name__ == "__main__":
    main()
