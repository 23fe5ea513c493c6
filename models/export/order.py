"""An export: a model directory (ONNX, tokeniser, query table, manifest) from a checkpoint or a published encoder."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from models.export.checkpoint import Checkpoint, load_checkpoint
from models.export.collection import Collection, read_collection
from models.export.graph import Precision, build_graph
from models.export.package import (
    copy_query_weights,
    copy_tokenizer,
    excluded_pieces,
    read_vocabulary,
    write_manifest,
)
from models.export.placing import replacing, require_place
from models.export.source import Source, open_source
from models.training.recipe_encoder import Activation, EncoderRecipe
from models.verification import verify
from services.errors import ConfigurationError
from services.manifest import LARGEST_VOCABULARY, MANIFEST, Manifest, read_manifest

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
    require_place(order.out, replace=order.replace)
    _require_measurable(order)
    record = _record(order.record)
    collections = [read_collection(directory) for directory in order.parity]
    report = None if collections or order.report is None else _read_report(order.report)
    with tempfile.TemporaryDirectory() as work, replacing(order.out) as fresh:
        source = open_source(order.source, Path(work) / "checkpoint", order.activation)
        _write(order, source, {**source.origin, **record}, fresh)
        for problem in verify(fresh).problems:
            raise problem
        if collections:
            report = _measure(source.checkpoint, fresh, collections)
        if report is not None:
            _add_parity(fresh, report)
    if collections and order.report is not None:
        _write_report(order.report, report)
    return read_manifest(order.out)


def _add_parity(out: Path, report: dict[str, Any]) -> None:
    """Puts the report's key figures into the manifest; the fingerprint stays. A report of other files is left out."""
    description = json.loads((out / MANIFEST).read_bytes())
    if report["fingerprint"] != description["fingerprint"]:
        log.warning("the report is about the fingerprint %s: measure again with --parity", report["fingerprint"])
        return
    write_manifest(out, description | {"parity": _key_figures(report)}, FILES)


def _key_figures(report: dict[str, Any]) -> dict[str, Any]:
    return {
        collection: {
            label: {name: found[name]["ndcg_at_10"] for name in found if name != "rows"}
            for label, found in cuts.items()
        }
        for collection, cuts in report["collections"].items()
    }


def _write(order: Order, source: Source, extra: dict[str, Any], out: Path) -> None:
    """Writes the files and the manifest."""
    directory = source.checkpoint
    recipe = EncoderRecipe.read(directory) or EncoderRecipe()
    vocabulary = read_vocabulary(directory / "tokenizer.json")
    excluded = excluded_pieces(vocabulary)
    checkpoint = load_checkpoint(directory)
    _require_one_vocabulary(directory, checkpoint, vocabulary)
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


def _require_one_vocabulary(directory: Path, checkpoint: Checkpoint, vocabulary: dict[str, int]) -> None:
    if checkpoint.vocabulary > LARGEST_VOCABULARY:
        raise ConfigurationError(
            "vocabulary_too_large",
            f"{directory} has a vocabulary of {checkpoint.vocabulary:,} pieces, and vectors keep an id in two bytes, "
            f"so {LARGEST_VOCABULARY:,} at most: of the OpenSearch family the multilingual encoder cannot be used.",
        )
    if (last := max(vocabulary.values(), default=0)) >= checkpoint.vocabulary:
        raise ConfigurationError(
            "bad_tokenizer",
            f"{directory / 'tokenizer.json'} has piece ids up to {last:,}, and the model a vocabulary of "
            f"{checkpoint.vocabulary:,}: it is another model's.",
        )


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


def _measure(checkpoint: Path, out: Path, collections: Sequence[Collection]) -> dict[str, Any]:
    """The parity report of what was written to `out`."""
    # Only here: writing the files needs no torch.
    from models.export.parity import parity

    excluded = excluded_pieces(read_vocabulary(checkpoint / "tokenizer.json"))
    return parity(checkpoint, out, load_checkpoint(checkpoint), read_manifest(out), excluded, collections)


def _write_report(path: Path, report: dict[str, Any] | None) -> None:
    try:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            "unwritable_file",
            f"The encoder is in its place, its manifest has the figures, but {path} cannot be written: "
            f"{error.strerror}.",
        ) from None


def _read_report(path: Path) -> dict[str, Any]:
    """A parity report. Raises ConfigurationError (`bad_record`)."""
    try:
        report: dict[str, Any] = json.loads(path.read_bytes())
        _key_figures(report)
        str(report["fingerprint"])
    except OSError as error:
        raise ConfigurationError(
            "bad_record", f"{path} cannot be read ({error.strerror}): --report without --parity reads a report."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError("bad_record", f"{path} is no parity report of an export: {error!r}.") from None
    return report


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
                "missing_extra", "--parity compares with PyTorch: pip install -e '.[train]', or leave it out."
            ) from None


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
