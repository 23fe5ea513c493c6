"""Questions by a tiny random language model: prompts and parsing, not the quality of questions."""

import shutil
from pathlib import Path

import pytest

from models.training.own.questions import CausalQuestionGenerator, generate_pairs
from services.encoders.manifest import WEIGHTS_ROOT
from services.errors import ConfigurationError

PASSAGES = ["A wing lifts when air flows over it.", "heat " * 600, "half \ud800 of it", ""]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a Llama of two layers and width sixteen with our vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("models") / "Tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=30522,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1024,
        bos_token_id=101,
        eos_token_id=102,
    )
    model = LlamaForCausalLM(config)
    # A third of all pieces end an answer, so that some answers end.
    model.generation_config.eos_token_id = list(range(1000, 30522, 3))
    model.save_pretrained(path)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(WEIGHTS_ROOT / "standin" / "tokenizer.json"), eos_token="[SEP]", bos_token="[CLS]"
    )
    tokenizer.save_pretrained(path)
    return path


def test_each_passage_has_its_questions(directory: Path) -> None:
    generator = CausalQuestionGenerator(directory, each=2, question_pieces=24)
    found = generator(PASSAGES)
    assert [len(several) for several in found] == [2] * len(PASSAGES)
    assert all(line and "\n" not in line for several in found for line in several)
    assert generator(PASSAGES) == found


def test_a_truncated_answer_is_left_out(directory: Path) -> None:
    cut = CausalQuestionGenerator(directory, each=16, question_pieces=2)(PASSAGES[:1])[0]
    assert "" in cut
    assert any(cut)


def test_questions_depend_only_on_seed_and_passages(directory: Path) -> None:
    import torch

    first = CausalQuestionGenerator(directory, seed=1, question_pieces=24)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    found = first(PASSAGES[:2])
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's random numbers are left alone"
    assert CausalQuestionGenerator(directory, seed=1, question_pieces=24)(PASSAGES[:2]) == found
    assert CausalQuestionGenerator(directory, seed=2, question_pieces=24)(PASSAGES[:2]) != found


def test_the_fingerprint_depends_on_weights_and_options(directory: Path) -> None:
    prints = {
        CausalQuestionGenerator(directory, **options).fingerprint  # type: ignore[arg-type]
        for options in ({}, {"each": 2}, {"temperature": 0.0}, {"seed": 1}, {"passage_pieces": 64})
    }
    assert len(prints) == 5
    assert CausalQuestionGenerator(directory).fingerprint in prints


def test_pairs_are_made_from_its_answers(directory: Path, tmp_path: Path) -> None:
    generator = CausalQuestionGenerator(directory, temperature=0.0, question_pieces=12)
    assert generator.name == "tiny"
    pairs = generate_pairs(PASSAGES[:2], generator, tmp_path)
    assert set(pairs.counts()) <= {"question"}
    assert len(pairs) <= 2


def test_pickled_and_invalid_weights_are_refused(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    shutil.copytree(directory, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"\x80\x04pickle")
    for name in ("pickled", "broken", "absent"):
        with pytest.raises(ConfigurationError) as caught:
            CausalQuestionGenerator(tmp_path / name)
        assert caught.value.code == "bad_model"


@pytest.mark.parametrize("options", [{"each": 0}, {"temperature": -1.0}, {"each": 2, "temperature": 0.0}])
def test_invalid_options_are_refused(directory: Path, options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CausalQuestionGenerator(directory, **options)  # type: ignore[arg-type]
    assert caught.value.code == "bad_generator"
