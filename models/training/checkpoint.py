"""Writes an encoder as a checkpoint: the directory that is exported, measured and trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

from sentence_transformers.base.modules import Transformer

from models.export.package import copy_tokenizer, excluded_pieces, read_vocabulary
from models.training.idf import write_weights
from models.training.portable import InferenceFreeEncoder, refuse_not_finite
from services.errors import ConfigurationError


def save_checkpoint(model: InferenceFreeEncoder, directory: Path) -> None:
    """Writes what `sparsewell encoders export DIRECTORY OUT` and `build_encoder` read.

    These are config.json and model.safetensors (float32, head tied; neither with binary document weights, which have
    no model), tokenizer.json, query_weights.json, recipe.json, and idf.json when there is one. The directory is
    complete or not there: it is written beside its place and renamed.

    Raises InvalidInput (`not_finite_weights`) when a parameter is NaN or infinite; what was there stays.
    """
    if model.recipe is None or model.tokenizer_json is None:
        raise ConfigurationError("bad_recipe", "Only encoders made by build_encoder can be saved as a checkpoint.")
    refuse_not_finite(model)
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = directory.with_name(f"{directory.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    _write(model, model.tokenizer_json, fresh)
    model.recipe.write(fresh)
    old = directory.with_name(f"{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def _write(model: InferenceFreeEncoder, tokenizer_json: bytes, directory: Path) -> None:
    router = model[0]
    transformer = router.sub_modules["document"][0]
    if isinstance(transformer, Transformer):
        transformer.model.save_pretrained(directory)
        transformer.processor.save_pretrained(directory)
    # the start's own file in place of the one that transformers wrote, which truncates and pads
    given = directory / "given.json"
    given.write_bytes(tokenizer_json)
    copy_tokenizer(given, directory / "tokenizer.json")
    given.unlink()
    pieces = read_vocabulary(directory / "tokenizer.json")
    excluded = excluded_pieces(pieces)
    queries = router.sub_modules["query"][0]
    queries.project()
    table = queries.weight.detach().float().cpu().numpy()
    write_weights(directory / "query_weights.json", table, pieces, excluded)
    if model.idf is not None:
        write_weights(directory / "idf.json", model.idf, pieces, excluded)
