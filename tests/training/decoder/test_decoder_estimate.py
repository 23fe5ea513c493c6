"""Estimated cost of training, compared with the sizes and activations of a tiny model."""

import json
from pathlib import Path

import pytest
import torch

from models.decoder.checkpoint import load_checkpoint
from models.decoder.estimate import MISTRAL_7B_CONFIG, estimate_training, main
from models.decoder.model import EchoSplade, add_adapters
from models.decoder.recipe import DecoderRecipe
from tests.training.decoder.tiny_decoder import make_start

RECIPE = DecoderRecipe(passage_pieces=24, batch=4, rank=3, window=24, overlap=4)


def kept_for_backward(document: EchoSplade, rows: list[list[int]]) -> int:
    """Return the bytes of the tensors that a forward pass keeps, without the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in document.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage  # a reference, so that no other tensor gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        document.decoder(input_ids=document.features(rows)["input_ids"], use_cache=False)
    return sum(storage.nbytes() for storage in found.values())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dropout", [0.1, 0.0])
def test_counts_and_activations_equal_those_of_the_model(tmp_path: Path, tied: bool, dropout: float) -> None:
    checkpoint = load_checkpoint(str(make_start(tmp_path, tied=tied)), dtype=torch.bfloat16)
    parameters = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    document = EchoSplade.from_checkpoint(checkpoint, longest=24)
    adapters = add_adapters(document.decoder, rank=3, alpha=6, dropout=dropout)
    recipe = RECIPE.model_copy(update={"dropout": dropout})
    config = json.loads((tmp_path / "config.json").read_text())
    found = estimate_training(config, recipe, tflops=1.0, bytes_a_mask=4)
    assert (found.parameters, found.adapter_parameters) == (parameters, adapters)
    kept = kept_for_backward(document.train(), [list(range(100, 124))] * 4)
    assert found.activations == pytest.approx(kept, rel=0.1)
    document.decoder.activation_checkpointing_enable({"use_reentrant": False})
    again = kept_for_backward(document.train(), [list(range(100, 124))] * 4)
    less = estimate_training(config, recipe.model_copy(update={"checkpoint_layers": True}), tflops=1.0, bytes_a_mask=4)
    # The estimate adds one layer's activations, for the recomputation, to the kept tensors.
    assert again < less.activations < again + kept


def test_mistral_7b_has_its_published_size() -> None:
    found = estimate_training(MISTRAL_7B_CONFIG, DecoderRecipe(), tflops=400.0)
    assert found.parameters == 7_241_732_096
    assert found.adapter_parameters == 41_943_040


def test_time_and_memory_depend_on_the_recipe() -> None:
    def of(**changes: object) -> tuple[float, float]:
        recipe = DecoderRecipe.model_validate({"batch": 64, "passage_pieces": 192, **changes})
        found = estimate_training(MISTRAL_7B_CONFIG, recipe, tflops=400.0)
        return found.memory, found.hours

    whole, again, parts = of(), of(checkpoint_layers=True), of(mini_batch=8)
    assert whole[0] > 200e9
    assert 14.4e9 < of(checkpoint_layers=True)[0] < 80e9
    assert again[1] == pytest.approx(1.5 * whole[1])
    assert parts[0] < 60e9
    assert of(steps=2000)[1] == pytest.approx(2 * whole[1])
    assert of(passage_pieces=384)[1] > 2 * whole[1]


def test_the_recipe_of_mistral_7b_fits_one_gpu_of_24_gb(capsys: pytest.CaptureFixture[str]) -> None:
    main(["mistral-7b", "--recipe", str(Path(__file__).parents[3] / "examples" / "mistral-7b.json"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert 14.4e9 < found["memory"] < 22e9
    assert found["hours"] == pytest.approx(19.5, abs=0.1)


def test_the_command_states_that_its_figures_are_computed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["mistral-7b", "--batch", "64", "--checkpoint-layers", "true"])
    assert "computed, not measured" in capsys.readouterr().out
    main([str(make_start(tmp_path)), "--json"])
    assert json.loads(capsys.readouterr().out)["parameters"] > 0
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "config.json").write_text("{}")
    for where, said in (("none", "lacks 'hidden_size'"), ("gone", "No such file")):
        with pytest.raises(SystemExit, match=said):
            main([str(tmp_path / where)])
