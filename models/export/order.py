"""An export: a model directory (ONNX, tokeniser, query table, manifest) from a checkpoint or a published encoder."""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from models.export.checkpoint import Checkpoint, load_checkpoint
from models.export.collection import read_collection
from models.export.graph import Precision, build_graph
from models.export.package import (
    copy_query_weights,
    copy_tokenizer,
    excluded_pieces,
    read_vocabulary,
    write_manifest,
)
from models.export.source import Source, open_source
from models.training.recipe_encoder import Activation, EncoderRecipe
from models.verification import verify
from services.errors import ConfigurationError
from services.manifest import MANIFEST, NAME, Manifest, has_manifest, read_manifest

FILES = ("model.onnx", "tokenizer.json", "query_weights.json")
# The size that was best on two collections (docs/decisions/0020); shorter where the model is.
WINDOW = 382
log = logging.getLogger("models.export")


@dataclass(frozen=True, slots=True)
class Order:
    """What to export, to where and how.

    `source` is a path or a hub name; the name of `out` becomes the encoder's. `window` (pieces without the special
    ones) and `overlap` are as long as the model allows, at most 382 and 48, when None. `record` is a JSON object with
    `licence`, `training` and more for the manifest. `parity` are collections in BEIR's layout to measure on; the report
    goes to `report`, from where it is read again when there is nothing to measure. `replace` lets an encoder at `out`
    be replaced.
    """

    source: str
    out: Path
    precision: Precision = "int8"
    top_k: int = 256
    window: int | None = None
    overlap: int | None = None
    record: Path | None = None
    parity: tuple[Path, ...] = ()
    report: Path | None = None
    activation: Activation | None = None
    replace: bool = False


def carry_out(order: Order) -> Manifest:
    """Exports, verifies what was made, and puts it in its place only then: a failure leaves what was there.

    Raises ConfigurationError: `bad_name`, `encoder_exists`, `not_empty`, `bad_window`, `bad_record`, `missing_extra`,
    what `models.export.source.open_source`, `models.export.checkpoint.load_checkpoint` and `models.verification.verify`
    find.
    """
    _require_place(order)
    _require_measurable(order)
    record = _record(order.record)
    with tempfile.TemporaryDirectory() as work:
        source = open_source(order.source, Path(work) / "checkpoint", order.activation)
        fresh = _beside(order.out)
        try:
            _write(order, source, {**source.origin, **record}, fresh)
            for problem in verify(fresh).problems:
                raise problem
            _put(fresh, order.out)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        if order.parity:
            add_parity(order.out, _measure(order, source.checkpoint))
        elif order.report:
            add_parity(order.out, json.loads(order.report.read_bytes()))
    return read_manifest(order.out)


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


def _write(order: Order, source: Source, extra: dict[str, Any], out: Path) -> None:
    """Writes the files and the manifest."""
    directory = source.checkpoint
    recipe = EncoderRecipe.read(directory) or EncoderRecipe()
    vocabulary = read_vocabulary(directory / "tokenizer.json")
    excluded = excluded_pieces(vocabulary)
    checkpoint = load_checkpoint(directory)
    window = _window(order, checkpoint, source.longest)
    model = build_graph(
        checkpoint,
        precision=order.precision,
        top_k=order.top_k,
        excluded=excluded,
        activation=recipe.activation,
        expansion=recipe.expansion,
    )
    onnx.checker.check_model(model)
    (out / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    copy_tokenizer(directory / "tokenizer.json", out / "tokenizer.json")
    dropped = copy_query_weights(directory / "query_weights.json", out / "query_weights.json", vocabulary, excluded)
    description = {
        "name": order.out.resolve().name,
        "architecture": checkpoint.architecture,
        "vocabulary": checkpoint.vocabulary,
        "max_pieces": checkpoint.max_pieces,
        "window": window,
        "top_k": min(order.top_k, checkpoint.vocabulary),
        "activation": recipe.activation,
        "pooling": "max",
        "precision": order.precision,
        "query_pieces_left_out": dropped,
        **({} if recipe.expansion else {"expansion": False}),
    }
    write_manifest(out, {**description, **{k: v for k, v in extra.items() if k not in description}}, FILES)


def _window(order: Order, checkpoint: Checkpoint, longest: int | None) -> dict[str, int]:
    # Two places are for the pieces that open and close a window.
    room = checkpoint.max_pieces - 2
    trained = room if longest is None else min(room, longest - 2)
    pieces = min(WINDOW, trained) if order.window is None else order.window
    overlap = round(pieces / 8) if order.overlap is None else order.overlap
    if not 16 <= pieces <= room or not 0 <= overlap <= pieces // 2:
        raise ConfigurationError(
            "bad_window",
            f"Windows of {pieces} pieces with an overlap of {overlap} cannot be: the model takes 16 to {room} pieces, "
            "and neighbours share at most half.",
        )
    return {"pieces": pieces, "overlap": overlap}


def _measure(order: Order, checkpoint: Path) -> dict[str, Any]:
    """The parity report, measured now and written to `report`."""
    # Only here: writing the files needs no torch.
    from models.export.parity import parity

    excluded = excluded_pieces(read_vocabulary(checkpoint / "tokenizer.json"))
    collections = [read_collection(directory) for directory in order.parity]
    report = parity(checkpoint, order.out, load_checkpoint(checkpoint), read_manifest(order.out), excluded, collections)
    if order.report:
        order.report.write_text(json.dumps(report, indent=2) + "\n")
    return report


def _require_place(order: Order) -> None:
    """Finds out before the work whether its result may stand at `out`."""
    name = order.out.resolve().name
    if not re.fullmatch(NAME, name):
        raise ConfigurationError(
            "bad_name",
            f"{name!r} is no name of an encoder: at most 64 lower-case letters, digits, dots, hyphens, underscores.",
        )
    if has_manifest(order.out) and not order.replace:
        raise ConfigurationError(
            "encoder_exists", f"{order.out} holds an encoder already: choose another directory, or say --replace."
        )
    if order.out.exists() and not has_manifest(order.out) and (order.out.is_file() or any(order.out.iterdir())):
        raise ConfigurationError("not_empty", f"{order.out} is there and is no encoder: choose another directory.")


def _require_measurable(order: Order) -> None:
    for directory in order.parity:
        missing = [name for name in ("queries.jsonl", "qrels.tsv") if not (directory / name).is_file()]
        if missing:
            raise ConfigurationError(
                "bad_collection",
                f"{directory} lacks {', '.join(missing)}: --parity takes a collection in BEIR's layout.",
            )
    if order.parity:
        try:
            import torch  # noqa: F401
        except ModuleNotFoundError:
            raise ConfigurationError(
                "missing_extra", "--parity compares with PyTorch: pip install 'sparsewell[train]', or leave it out."
            ) from None
    if not order.parity and order.report is not None and not order.report.is_file():
        raise ConfigurationError("bad_record", f"{order.report} is missing: --report without --parity reads a report.")


def _record(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_record", f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(found, dict) or not isinstance(found.get("licence", ""), str):
        raise ConfigurationError("bad_record", f"{path} has to be a JSON object, its `licence` a text.")
    return found


def _beside(out: Path) -> Path:
    """An empty directory beside `out`, on the same disk. Raises ConfigurationError (`unwritable_file`)."""
    fresh = out.with_name(f".{out.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
    except OSError as error:
        raise ConfigurationError("unwritable_file", f"{fresh} cannot be made: {error.strerror}.") from None
    return fresh


def _put(fresh: Path, out: Path) -> None:
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)
