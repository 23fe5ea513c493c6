"""Decoder checkpoints: Mistral and Llama, tied and untied heads, and refused checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Module, Router
from sentence_transformers.util import fullname
from transformers import LlamaConfig, LlamaForCausalLM

from models.decoder.checkpoint import load_checkpoint
from models.decoder.model import EchoSplade, assemble_encoder
from services.errors import ConfigurationError
from tests.training.decoder.tiny_decoder import byte_level, make_start, tiny_checkpoint, tiny_document

IDS = torch.tensor([[0, 30, 40, 50, 60, 70]])


def test_llama_weights_load_into_the_mistral_architecture(tmp_path: Path) -> None:
    torch.manual_seed(3)
    tokenizer = byte_level()
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, bos_token_id=0,
            rope_parameters={"rope_type": "default", "rope_theta": 12_345.0},
        )
    ).eval()  # fmt: skip
    llama.save_pretrained(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    mistral = load_checkpoint(str(tmp_path))
    assert mistral.model.config.model_type == "mistral"
    with torch.inference_mode():
        torch.testing.assert_close(mistral.model(IDS).logits, llama(IDS).logits)


def test_a_tied_head_is_the_embeddings(tmp_path: Path) -> None:
    tied = EchoSplade.from_checkpoint(tiny_checkpoint(tmp_path / "tied"))
    own = EchoSplade.from_checkpoint(tiny_checkpoint(tmp_path / "own", tied=False))
    assert tied.head is tied.decoder.embed_tokens.weight
    assert own.head is not own.decoder.embed_tokens.weight
    assert torch.equal(own.head, load_file(tmp_path / "own" / "model.safetensors")["lm_head.weight"])


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_decoder_is_a_plain_checkpoint_with_the_same_vectors(tmp_path: Path, tied: bool) -> None:
    document = tiny_document(tmp_path / "start", tied=tied)
    document.save(str(tmp_path / "saved"))
    again = EchoSplade.load(str(tmp_path / "saved"))
    plain = load_checkpoint(str(tmp_path / "saved"))
    texts = ["The wing carries the load", "a wall", ""]
    with torch.inference_mode():
        wanted = document(document.preprocess(texts))["sentence_embedding"]
        assert (wanted[:2] > 0).sum() > 50
        assert not wanted[2].any()
        torch.testing.assert_close(again(again.preprocess(texts))["sentence_embedding"], wanted)
        torch.testing.assert_close(plain.model.model(IDS).last_hidden_state, document.decoder(IDS).last_hidden_state)
    assert again.excluded_ids() == document.excluded_ids() > {0, 1}


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    start = make_start(tmp_path)
    config = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(
        json.dumps({**config, "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]})
    )
    with pytest.raises(ConfigurationError) as caught:
        load_checkpoint(str(start))
    assert caught.value.code == "checkpoint_unsupported"


def test_a_llama_with_biases_is_refused(tmp_path: Path) -> None:
    start = make_start(tmp_path)
    config = json.loads((start / "config.json").read_text())
    llama = {**config, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": True}
    (start / "config.json").write_text(json.dumps(llama))
    with pytest.raises(ConfigurationError, match="attention_bias") as caught:
        load_checkpoint(str(start))
    assert caught.value.code == "checkpoint_unsupported"


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    start = make_start(tmp_path)
    torch.save(load_file(start / "model.safetensors"), start / "pytorch_model.bin")
    (start / "model.safetensors").unlink()
    with pytest.raises(ConfigurationError) as caught:
        load_checkpoint(str(start))
    assert caught.value.code == "bad_checkpoint"


@pytest.mark.parametrize("damage", ["missing", "cut", "lacking"])
def test_damaged_weights_are_refused(tmp_path: Path, damage: str) -> None:
    start = make_start(tmp_path)
    path = start / "model.safetensors"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        from safetensors.torch import save_file

        tensors = load_file(path)
        del tensors["model.layers.1.mlp.up_proj.weight"]
        save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ConfigurationError) as caught:
        load_checkpoint(str(start))
    assert caught.value.code == "bad_checkpoint"


@pytest.mark.parametrize("source", ["no-such-directory", "a/b/c", "missing.gguf", "owner/no-such-model"])
def test_missing_files_are_named(source: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_checkpoint(source)
    assert caught.value.code == "bad_checkpoint"
    assert source.rsplit("/", maxsplit=1)[-1] in caught.value.detail


def test_sentence_transformers_saves_and_loads_the_whole_encoder(tmp_path: Path) -> None:
    """The library loads our classes only if the caller passes them. It never runs code from the directory."""
    document = tiny_document(tmp_path / "start")
    model = assemble_encoder(document, torch.linspace(0.5, 2.0, document.get_embedding_dimension()), device="cpu")
    model.save_pretrained(str(tmp_path / "saved"))
    assert not list((tmp_path / "saved").rglob("*.bin"))
    with pytest.raises(ValueError, match="not part of Sentence Transformers"):
        SparseEncoder(str(tmp_path / "saved"), device="cpu")
    own = {fullname(module): type(module) for module in model.modules() if isinstance(module, Module)}
    again = SparseEncoder(modules=[Router.load(str(tmp_path / "saved"), module_classes=own)], device="cpu")
    for text in ("The wing carries the load", "a wall", ""):
        for one, other in ((model.encode_document, again.encode_document), (model.encode_query, again.encode_query)):
            assert torch.equal(one(text, convert_to_sparse_tensor=False), other(text, convert_to_sparse_tensor=False))
