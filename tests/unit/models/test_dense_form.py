"""Tests of the form of a dense encoder, read from the files beside its model."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.dense import open_dense_encoder
from models.dense_form import read_dense_form
from services.encoders.manifest import DenseForm, Pooling
from services.errors import ConfigurationError

FORMER = {"word_embedding_dimension": 384, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
FIRST = FORMER | {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}


def write(directory: Path, **files: Any) -> Path:
    """Write JSON files: `pooling`, `prompts`, `length`, `modules` or `dense`."""
    names = {
        "pooling": "1_Pooling/config.json",
        "prompts": "config_sentence_transformers.json",
        "length": "sentence_bert_config.json",
        "modules": "modules.json",
        "dense": "dense.json",
    }
    for name, content in files.items():
        path = directory / names[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return directory


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (FORMER, Pooling.mean),
        (FIRST, Pooling.first),
        ({"pooling_mode": "mean"}, Pooling.mean),
        ({"pooling_mode": ["cls"]}, Pooling.first),
    ],
)
def test_the_pooling_is_that_of_the_files(tmp_path: Path, config: dict[str, Any], pooling: Pooling) -> None:
    assert read_dense_form(write(tmp_path, pooling=config)) == DenseForm(pooling=pooling)


def test_prompts_and_length_are_those_of_the_files(tmp_path: Path) -> None:
    write(
        tmp_path,
        pooling=FIRST,
        prompts={"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": None},
        length={"max_seq_length": 256, "do_lower_case": False},
        modules=[
            {"idx": 0, "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "type": "sentence_transformers.models.Normalize"},
        ],
    )
    assert read_dense_form(tmp_path) == DenseForm(
        pooling=Pooling.first, query_prefix="query: ", passage_prefix="passage: ", max_pieces=256
    )


def test_the_default_prompt_stands_for_a_missing_one(tmp_path: Path) -> None:
    write(
        tmp_path,
        pooling=FORMER,
        prompts={"prompts": {"search": "s: ", "query": "q: "}, "default_prompt_name": "search"},
    )
    form = read_dense_form(tmp_path)
    assert (form.query_prefix, form.passage_prefix) == ("q: ", "s: ")


def test_our_own_file_goes_before_those_of_sentence_transformers(tmp_path: Path) -> None:
    form = DenseForm(pooling=Pooling.first, query_prefix="ask: ", max_pieces=64)
    manifest = {
        "format": "sparsewell-dense/1", "name": "mine", "width": 8, "form": form.model_dump(mode="json"),
        "window": {"pieces": 32, "overlap": 4}, "licence": "MIT",
        "files": {"model.onnx": "0" * 64, "tokenizer.json": "0" * 64},
    }  # fmt: skip
    assert read_dense_form(write(tmp_path, pooling=FORMER, dense=manifest)) == form


@pytest.mark.parametrize(
    ("files", "code", "reason"),
    [
        ({}, "no_dense_form", "1_Pooling/config.json"),
        ({"pooling": "{"}, "bad_dense_encoder", "cannot be used"),
        ({"pooling": [1]}, "bad_dense_encoder", "not a JSON object"),
        ({"pooling": {}}, "bad_dense_encoder", "no mode"),
        ({"pooling": {"pooling_mode": "lasttoken"}}, "bad_dense_encoder", "lasttoken"),
        ({"pooling": FORMER | {"pooling_mode_cls_token": True}}, "bad_dense_encoder", r"cls \+ mean"),
        ({"pooling": {"pooling_mode": 7}}, "bad_dense_encoder", "7"),
        (
            {"pooling": FORMER | {"include_prompt": False}, "prompts": {"prompts": {"query": "q: "}}},
            "bad_dense_encoder",
            "prompt",
        ),
        (
            {"pooling": FORMER, "modules": [{"type": "sentence_transformers.models.Dense"}]},
            "bad_dense_encoder",
            "Dense",
        ),
        ({"pooling": FORMER, "modules": {"type": "Transformer"}}, "bad_dense_encoder", "not a list of modules"),
        ({"pooling": "[" * 100_000}, "bad_dense_encoder", "cannot be used"),
        ({"dense": {"format": "other"}}, "bad_dense_encoder", "format"),
    ],
)
def test_a_form_that_is_not_stated_or_not_supported_is_refused(
    tmp_path: Path, files: dict[str, Any], code: str, reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        read_dense_form(write(tmp_path, **files))
    assert caught.value.code == code


def test_a_directory_without_a_form_is_refused_before_its_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigurationError) as caught:
        open_dense_encoder(str(tmp_path), tmp_path)
    assert caught.value.code == "no_dense_form"
