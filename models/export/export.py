"""Export command: from a checkpoint, a published encoder's directory or a hub name to a model directory.

`export_encoder` writes ONNX graph, tokeniser, query table and manifest, verifies them, measures parity on request, and
then moves the directory to its place. `open_source` converts a published encoder to a checkpoint (docs/decisions/0131).
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from models.download import fetch_snapshot, is_hub_name
from models.export.checkpoint import Checkpoint, load_checkpoint
from models.export.collection import Collection, read_collection
from models.export.hub_import import convert_to_checkpoint, is_hub_layout, read_licence, require_safetensors
from models.export.onnx_graph import build_graph
from models.export.package import (
    copy_query_weights,
    copy_tokenizer,
    excluded_piece_ids,
    read_vocabulary,
    require_one_vocabulary,
    require_output_place,
    require_window,
    write_manifest,
)
from models.export.transformer_graph import Precision
from models.judged_collection import find_judgements
from models.training.recipe import Activation, EncoderRecipe
from models.verification import verify_directory
from services.directories import replace_directory
from services.encoders.manifest import MANIFEST_FILE, Manifest, expand_path, has_manifest, read_manifest
from services.errors import ConfigurationError

log = logging.getLogger("models.export")
CHECKPOINT_FILES = ("config.json", "tokenizer.json", "query_weights.json")
MODEL_FILES = ("model.onnx", "tokenizer.json", "query_weights.json")
# The best size on two collections (docs/decisions/0020); models with a shorter input get a shorter window.
DEFAULT_WINDOW_PIECES = 382


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of an export.

    - `source`: a path or a hub name; the name of `out` becomes the encoder's.
    - `window` (pieces, without the special ones) and `overlap`: by default as long as the model allows, at most 382 and
      48.
    - `record`: a JSON object with `licence`, `training` and more for the manifest.
    - `parity`: collections in BEIR's layout to measure on. The report is written to `report`; without collections, the
      manifest takes its figures from there.
    - `replace`: whether an encoder at `out` may be replaced.
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


def export_encoder(order: ExportOptions) -> Manifest:
    """Export and verify an encoder, then move it to its place: a failure leaves the old encoder.

    Raises ConfigurationError: `bad_name`, `encoder_exists`, `not_empty`, `bad_window`, `bad_record`, `missing_extra`,
    and the errors of `open_source`, `models.export.checkpoint.load_checkpoint` and
    `models.verification.verify_directory`.
    """
    require_output_place(order.out, replace=order.replace)
    _require_measurable(order)
    record = _read_record(order.record)
    collections = [read_collection(directory) for directory in order.parity]
    report = None if collections or order.report is None else _read_report(order.report)
    with tempfile.TemporaryDirectory() as work, replace_directory(order.out) as fresh:
        source = open_source(order.source, Path(work) / "checkpoint", order.activation)
        _write_model(order, source, {**source.origin, **record}, fresh)
        for problem in verify_directory(fresh).problems:
            raise problem
        if collections:
            report = _measure_parity(source.checkpoint, fresh, collections)
        if report is not None:
            _add_parity(fresh, report)
    if collections and order.report is not None:
        _write_report(order.report, report)
    return read_manifest(order.out)


@dataclass(frozen=True, slots=True)
class ExportSource:
    """Source of an export: checkpoint directory, longest input that its files name (None: no limit), known origin."""

    checkpoint: Path
    longest: int | None
    origin: dict[str, Any]


def open_source(source: str, work: Path, activation: Activation | None = None) -> ExportSource:
    """Return the checkpoint to export. A published encoder's checkpoint is made in the empty directory `work`.

    `activation` is for published encoders whose files name none. Raises ConfigurationError: `unknown_source`,
    `missing_checkpoint_file`, `checkpoint_unsupported`, `pickle_refused`, `unknown_activation`; and the errors of
    `models.export.hub_import.convert_to_checkpoint` and `models.download.fetch_snapshot`.
    """
    directory = fetch_snapshot(source) if is_hub_name(source) else expand_path(source)
    if not directory.is_dir():
        raise ConfigurationError(
            "unknown_source",
            f"There is no directory {source!r}. An export takes a checkpoint directory, the directory of a published "
            "sparse encoder, or a hub name (owner/name or owner/name@revision).",
        )
    if has_manifest(directory):
        raise ConfigurationError(
            "unknown_source", f"{directory} is a model directory already: export its checkpoint instead."
        )
    if is_hub_layout(directory):
        longest = convert_to_checkpoint(directory, work, activation)
        origin = {
            "licence": read_licence(directory) or "unstated",
            "training": {"source": source if is_hub_name(source) else directory.resolve().name},
        }
        return ExportSource(work, longest, origin)
    recipe = EncoderRecipe.read(directory)
    if recipe is not None and not recipe.is_servable:
        raise ConfigurationError(
            "checkpoint_unsupported",
            f"{directory} is a variant of an ablation that cannot be served (see its recipe.json): there is no model "
            "to export.",
        )
    missing = [name for name in CHECKPOINT_FILES if not (directory / name).is_file()]
    if missing:
        raise ConfigurationError(
            "missing_checkpoint_file",
            f"{directory} lacks {', '.join(missing)}: a checkpoint holds {', '.join(CHECKPOINT_FILES)} and "
            "model.safetensors.",
        )
    require_safetensors(directory)
    if activation is not None:
        raise ConfigurationError(
            "unknown_activation",
            f"{directory} is a checkpoint of sparsewell: its recipe.json names the activation.",
        )
    return ExportSource(directory, None, {"licence": "unstated"})


def _write_model(order: ExportOptions, source: ExportSource, extra: dict[str, Any], out: Path) -> None:
    """Write the files and the manifest."""
    directory = source.checkpoint
    recipe = EncoderRecipe.read(directory) or EncoderRecipe()
    vocabulary = read_vocabulary(directory / "tokenizer.json")
    excluded = excluded_piece_ids(vocabulary)
    checkpoint = load_checkpoint(directory)
    require_one_vocabulary(directory, checkpoint, vocabulary)
    window = _choose_window(order, checkpoint, source.longest)
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
    write_manifest(out, {**description, **{k: v for k, v in extra.items() if k not in description}}, MODEL_FILES)


def _choose_window(order: ExportOptions, checkpoint: Checkpoint, longest: int | None) -> dict[str, int]:
    # [CLS] and [SEP] take two positions of a window.
    room = checkpoint.max_pieces - 2
    trained = room if longest is None else min(room, longest - 2)
    pieces = min(DEFAULT_WINDOW_PIECES, trained) if order.window is None else order.window
    overlap = round(pieces / 8) if order.overlap is None else order.overlap
    require_window(pieces, overlap, room)
    return {"pieces": pieces, "overlap": overlap}


def _require_measurable(order: ExportOptions) -> None:
    for directory in order.parity:
        if not (directory / "queries.jsonl").is_file():
            raise ConfigurationError(
                "bad_collection", f"{directory} lacks queries.jsonl: --parity takes a collection in BEIR's layout."
            )
        find_judgements(directory)
    if order.parity:
        try:
            import torch  # noqa: F401 (checks that it is installed)
        except ModuleNotFoundError:
            raise ConfigurationError(
                "missing_extra", "--parity compares with PyTorch: pip install -e '.[train]', or leave it out."
            ) from None


def _measure_parity(checkpoint: Path, out: Path, collections: Sequence[Collection]) -> dict[str, Any]:
    """Return the parity report of the files in `out`."""
    # imported here, because writing the files needs no torch
    from models.export.parity import measure_parity

    excluded = excluded_piece_ids(read_vocabulary(checkpoint / "tokenizer.json"))
    return measure_parity(checkpoint, out, load_checkpoint(checkpoint), read_manifest(out), excluded, collections)


def _read_record(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_record", f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(record, dict) or not isinstance(record.get("licence", ""), str):
        raise ConfigurationError("bad_record", f"{path} must be a JSON object, and its `licence` a string.")
    return record


def _read_report(path: Path) -> dict[str, Any]:
    """Read a parity report. Raises ConfigurationError (`bad_record`)."""
    try:
        report: dict[str, Any] = json.loads(path.read_bytes())
        _key_figures(report)
        str(report["fingerprint"])
    except OSError as error:
        raise ConfigurationError(
            "bad_record", f"{path} cannot be read ({error.strerror}); without --parity, --report names a file to read."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError("bad_record", f"{path} is not a parity report of an export: {error!r}.") from None
    return report


def _write_report(path: Path, report: dict[str, Any] | None) -> None:
    try:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            "unwritable_file",
            f"The encoder is exported and its manifest has the figures, but {path} cannot be written: "
            f"{error.strerror}.",
        ) from None


def _add_parity(out: Path, report: dict[str, Any]) -> None:
    """Put the report's key figures into the manifest; the fingerprint stays. A report on other files is left out."""
    description = json.loads((out / MANIFEST_FILE).read_bytes())
    if report["fingerprint"] != description["fingerprint"]:
        log.warning("the report belongs to the fingerprint %s: measure again with --parity", report["fingerprint"])
        return
    write_manifest(out, description | {"parity": _key_figures(report)}, MODEL_FILES)


def _key_figures(report: dict[str, Any]) -> dict[str, Any]:
    return {
        collection: {
            label: {name: figures[name]["ndcg_at_10"] for name in figures if name != "rows"}
            for label, figures in cuts.items()
        }
        for collection, cuts in report["collections"].items()
    }
