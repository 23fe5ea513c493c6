"""Training of a tiny decoder on a CPU: the decoder learns, resumes after a kill, and serves its vectors."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.decoder import train as packages
from models.decoder import trainer as trainers
from models.decoder.model import (
    PROJECTIONS,
    EchoSplade,
    add_adapters,
    assemble_encoder,
    calibrate_bias,
    load_sparse_encoder,
    max_text_logits,
    merged_state_dict,
)
from models.decoder.recipe import DecoderRecipe, read_decoder_recipe
from models.decoder.tokenisation import passage_idf_weights
from models.decoder.train import (
    TrainedDecoder,
    main,
    train_decoder,
)
from models.decoder.trainer import (
    TRAINABLE_FILE,
    SpladeObjective,
    last_checkpoint,
    load_trainable,
    trainable_state,
)
from models.registry import load_encoder
from services.encoders.query_table import QueryTable
from services.errors import ConfigurationError, InvalidInput
from tests.training.decoder.tiny_decoder import SENTENCES, make_start, tiny_checkpoint

WORDS = sorted({word.strip(".;(),") for sentence in SENTENCES for word in sentence.lower().split()})
RECIPE = DecoderRecipe(
    passage_pieces=24, rank=4, alpha=8, dropout=0.1, calibration_texts=32, active_at_start=60, score_scale=0.3,
    steps=12, batch=8, learning_rate=5e-3, precision="float32", save_every=4, log_every=2, top_k=420,
    window=24, overlap=4,
)  # fmt: skip

LONGER = RECIPE.model_copy(
    update={"steps": 60, "query_weighting": "learned", "learning_rate": 1e-2, "score_scale": 1.0, "save_every": 20}
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_start(tmp_path_factory.mktemp("start") / "tiny"))


def write_pairs(path: Path, count: int = 96) -> Path:
    """Write pairs: a query of two words, and a sentence with these words and others."""
    chosen = np.random.default_rng(5)
    with path.open("w") as file:
        for number in range(count):
            words = [WORDS[i] for i in chosen.permutation(len(WORDS))[:7]]
            line = {"query": f"{words[0]} {words[1]}", "passage": f"{' '.join(words)} {number}"}
            file.write(json.dumps(line) + "\n")
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")


@pytest.fixture(scope="module")
def trained(start: str, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedDecoder:
    return train_decoder(LONGER, start, [pairs], tmp_path_factory.mktemp("out") / "tiny", licence="MIT")


def test_the_loss_falls_and_the_documents_stay_alive(trained: TrainedDecoder) -> None:
    ranking = [line["ranking"] for line in trained.history]
    assert np.mean(ranking[-10:]) < np.mean(ranking[:10]) - 0.15
    assert trained.history[-1]["active"] > 5
    assert trained.pairs == 96
    assert trained.adapter_parameters > 0


def test_the_workers_get_the_vectors_of_training(start: str, trained: TrainedDecoder) -> None:
    """The exported encoder, with merged adapters, gives the same vectors as the model with adapters."""
    checkpoint = last_checkpoint(trained.directory.with_name("tiny.training"))
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-60"
    document = EchoSplade.from_checkpoint(tiny_checkpoint(Path(start)), longest=100)
    add_adapters(document.decoder, rank=LONGER.rank, alpha=LONGER.alpha, dropout=LONGER.dropout)
    model = assemble_encoder(document, torch.ones(document.get_embedding_dimension()), learn=True, device="cpu").eval()
    load_trainable(model, checkpoint)
    encoder, table = load_encoder(str(trained.directory)), QueryTable.load(trained.directory)
    untrained = EchoSplade.from_checkpoint(tiny_checkpoint(Path(start)))
    for sentence in SENTENCES[:4]:
        wanted = model.encode_document(sentence, convert_to_sparse_tensor=False).numpy()
        (vector,) = encoder.encode(encoder.windows(sentence, 100, 8))
        np.testing.assert_allclose(vector.weights, wanted[vector.ids], rtol=0.005, atol=1e-4)
        assert len(vector) == (wanted > 1e-30).sum() > 5
        with torch.inference_mode():
            before = untrained(untrained.preprocess([sentence]))["sentence_embedding"][0].numpy()
        assert np.abs(before - wanted).max() > 0.1
        query_vector = model.encode_query(sentence, convert_to_sparse_tensor=False).numpy()
        assert table.encode(sentence, 100).by_id() == pytest.approx(
            {i: query_vector[i] for i in query_vector.nonzero()[0].tolist()}, rel=1e-5
        )
    assert encoder.manifest.licence == "MIT"
    assert encoder.manifest.model_extra is not None
    assert encoder.manifest.model_extra["training"]["recipe"]["steps"] == 60


def test_a_resumed_training_equals_an_uninterrupted_one(start: str, pairs: Path, tmp_path: Path) -> None:
    through = train_decoder(RECIPE, start, [pairs], tmp_path / "through")

    class Killed(Exception):
        pass

    class Kills(trainers.DecoderTrainer):
        def training_step(self, *arguments: object, **more: object) -> torch.Tensor:
            if self.state.global_step == 6:
                raise Killed
            return super().training_step(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainers, "DecoderTrainer", Kills)
        train_decoder(RECIPE, start, [pairs], tmp_path / "killed")
    work = tmp_path / "killed.training"
    assert last_checkpoint(work) == work / "checkpoint-4"
    # An incomplete later checkpoint, as a kill leaves it.
    shutil.copytree(work / "checkpoint-4", work / "checkpoint-5")
    (work / "checkpoint-5" / "trainer_state.json").write_text('{"global_step": 5')
    again = train_decoder(RECIPE, start, [pairs], tmp_path / "killed")
    assert again.history[0]["step"] == 6
    for name in ("model.safetensors", "sparse_bias.safetensors"):
        one, other = (load_file(tmp_path / out / name) for out in ("through", "killed"))
        for tensor, values in one.items():
            torch.testing.assert_close(values, other[tensor], atol=1e-6, rtol=1e-5)
    assert through.fingerprint == again.fingerprint


@pytest.mark.parametrize("negatives", [0, 1])
def test_gradients_do_not_depend_on_the_mini_batch(start: str, negatives: int) -> None:
    recipe = RECIPE.model_copy(update={"regulariser_weight": 0.1, "negatives": negatives})
    queries, passages = WORDS[:8], SENTENCES
    found = []
    for rows in (8, 3, 1):
        torch.manual_seed(1)
        document = EchoSplade.from_checkpoint(tiny_checkpoint(Path(start)), longest=24)
        calibrate_bias(document, SENTENCES, active=60)
        add_adapters(document.decoder, rank=4, alpha=8, dropout=0.0)
        with torch.no_grad():
            for name, parameter in document.decoder.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.1)
        model = assemble_encoder(document, torch.ones(document.get_embedding_dimension()), learn=True, device="cpu")
        objective = SpladeObjective(model, recipe, torch.ones(document.get_embedding_dimension()))
        objective.mini_batch_size = rows
        columns = [passages, *[passages[::-1]] * negatives]
        features = [model.preprocess(queries, task="query")]
        features += [model.preprocess(column, task="document") for column in columns]
        loss = torch.stack(list(objective(features).values())).sum()
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        found.append((loss.item(), gradients))
        assert objective.active > 10
    for loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        for name, gradient in found[0][1].items():
            torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-3)
    assert any(gradient.abs().max() > 1e-4 for gradient in found[0][1].values())


def test_hard_negatives_share_words_with_the_query(
    start: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, list[str]]] = []
    made = packages.make_decoder_trainer

    def watch(model: object, objective: object, dataset: Any, *rest: object) -> Any:
        seen.append({name: dataset[name][:] for name in dataset.column_names})
        return made(model, objective, dataset, *rest)

    monkeypatch.setattr(packages, "make_decoder_trainer", watch)
    recipe = RECIPE.model_copy(update={"steps": 2, "negatives": 2, "batch": 4})
    found = train_decoder(recipe, start, [pairs], tmp_path / "with")
    assert found.history
    (columns,) = seen
    assert list(columns) == ["query", "positive", "negative_0", "negative_1"]

    def sharing(passages: list[str]) -> float:
        pairs_of_texts = zip(columns["query"], passages, strict=True)
        return float(np.mean([bool(set(query.split()) & set(passage.split())) for query, passage in pairs_of_texts]))

    assert sharing(columns["negative_0"]) > 0.9
    assert sharing(np.roll(columns["positive"], 1).tolist()) < 0.6, "the control: passages of other pairs"
    assert not any(a == b for a, b in zip(columns["positive"], columns["negative_0"], strict=True))
    # They change what is learned.
    without = train_decoder(recipe.model_copy(update={"negatives": 0}), start, [pairs], tmp_path / "without")
    assert found.history[-1]["ranking"] > without.history[-1]["ranking"]


def test_out_of_memory_halves_the_rows_and_loses_no_step(
    start: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forward, sizes = EchoSplade.forward, []

    def scarce(self: EchoSplade, features: dict[str, torch.Tensor], **more: object) -> dict[str, torch.Tensor]:
        rows = features["input_ids"].shape[0]
        if self.training and torch.is_grad_enabled() and rows > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        sizes.append(rows)
        return forward(self, features, **more)

    recipe = RECIPE.model_copy(update={"steps": 4, "dropout": 0.0})
    wanted = train_decoder(recipe, start, [pairs], tmp_path / "plenty")
    monkeypatch.setattr(EchoSplade, "forward", scarce)
    found = train_decoder(recipe, start, [pairs], tmp_path / "scarce")
    assert "2 pairs are computed at once" in caplog.text
    assert max(sizes) <= 4
    assert [line["loss"] for line in found.history] == pytest.approx(
        [line["loss"] for line in wanted.history], rel=1e-3
    )

    def none_left(self: EchoSplade, features: dict[str, torch.Tensor], **more: object) -> dict[str, torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(EchoSplade, "forward", none_left)
    with pytest.raises(ConfigurationError) as caught:
        train_decoder(recipe, start, [pairs], tmp_path / "none")
    assert caught.value.code == "out_of_memory"


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    start: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = EchoSplade.forward, []

    def breaks(self: EchoSplade, features: dict[str, torch.Tensor], **more: object) -> dict[str, torch.Tensor]:
        found = forward(self, features, **more)
        calls.append(1)
        if len(calls) > 6:
            found["sentence_embedding"] = found["sentence_embedding"] * torch.nan
        return found

    monkeypatch.setattr(EchoSplade, "forward", breaks)
    with pytest.raises(ConfigurationError, match="step 7 is nan") as caught:
        train_decoder(RECIPE, start, [pairs], tmp_path / "broken")
    assert caught.value.code == "loss_not_finite"
    assert "learning rate" in caught.value.detail
    good = last_checkpoint(tmp_path / "broken.training")
    assert good is not None
    assert good.name == "checkpoint-4"
    assert all(tensor.isfinite().all() for tensor in load_file(good / TRAINABLE_FILE).values())
    monkeypatch.undo()
    # The remedy in the message (a lower learning rate) works.
    recipe = RECIPE.model_copy(update={"steps": 2, "learning_rate": 1e-5})
    again = train_decoder(recipe, start, [pairs], tmp_path / "again", adapters=good)
    fresh = train_decoder(recipe, start, [pairs], tmp_path / "fresh")
    assert again.history[0]["loss"] != pytest.approx(fresh.history[0]["loss"])


def test_documents_without_weights_stop_the_training(start: str, pairs: Path, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(
        update={"regulariser": "l1", "regulariser_weight": 1e4, "regulariser_ramp": 0.01, "bias_learning_rate": 5.0,
                "steps": 60}
    )  # fmt: skip
    with pytest.raises(ConfigurationError) as caught:
        train_decoder(recipe, start, [pairs], tmp_path / "dead")
    assert caught.value.code == "no_active_pieces"
    assert "regulariser weight" in caught.value.detail


def test_a_checkpoint_of_broken_weights_is_never_written(start: str, pairs: Path, tmp_path: Path) -> None:
    class Poisons(trainers.DecoderTrainer):
        def _save_checkpoint(self, model: object, trial: object) -> None:
            if self.state.global_step == 8:
                with torch.no_grad():
                    next(p for p in self.model.parameters() if p.requires_grad).fill_(torch.nan)
            super()._save_checkpoint(model, trial)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InvalidInput) as caught:
        patch.setattr(trainers, "DecoderTrainer", Poisons)
        train_decoder(RECIPE, start, [pairs], tmp_path / "poisoned")
    assert caught.value.code == "not_finite_weights"
    good = last_checkpoint(tmp_path / "poisoned.training")
    assert good is not None
    assert good.name == "checkpoint-4"


@pytest.mark.parametrize(("lines", "code"), [(0, "no_pairs"), (5, "too_few_pairs"), (15, "too_few_pairs")])
def test_too_few_pairs_are_refused(start: str, tmp_path: Path, lines: int, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        train_decoder(RECIPE, start, [write_pairs(tmp_path / "few.jsonl", lines)], tmp_path / "out")
    assert caught.value.code == code
    assert not (tmp_path / "out").exists()


def test_checkpoints_of_another_training_are_refused(start: str, pairs: Path, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"steps": 1})
    train_decoder(recipe, start, [pairs], tmp_path / "one")
    with pytest.raises(ConfigurationError) as caught:
        train_decoder(recipe.model_copy(update={"rank": 2}), start, [pairs], tmp_path / "one")
    assert caught.value.code == "other_training"


def test_late_errors_are_found_at_the_beginning(start: str, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("mine")
    shutil.copytree("models/weights/standin", tmp_path / "served")
    before = {path.name: path.read_bytes() for path in (tmp_path / "served").iterdir()}
    wide = RECIPE.model_copy(update={"window": 128})
    for name, recipe, code in (
        ("My Decoder", RECIPE, "bad_name"),
        ("mine", RECIPE, "not_empty"),
        ("served", RECIPE, "encoder_exists"),
        ("wide", wide, "bad_window"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            train_decoder(recipe, start, [pairs], tmp_path / name)
        assert caught.value.code == code
    assert {path.name: path.read_bytes() for path in (tmp_path / "served").iterdir()} == before
    # No run began, so the directory is free for the next recipe.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "served"]


def test_the_old_directory_stays_until_the_new_one_is_complete(
    start: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE.model_copy(update={"steps": 1})
    first = train_decoder(recipe, start, [pairs], tmp_path / "one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(packages, "write_weights", full)
        train_decoder(recipe, start, [pairs], tmp_path / "one")
    assert load_encoder(str(tmp_path / "one")).fingerprint == first.fingerprint
    # The same command resumes from its last checkpoint and replaces its own output.
    assert train_decoder(recipe, start, [pairs], tmp_path / "one").fingerprint == first.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "one.training"]


def test_a_training_without_a_checkpoint_can_be_replaced(
    start: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(self: EchoSplade, features: dict[str, torch.Tensor], **more: object) -> dict[str, torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    recipe = RECIPE.model_copy(update={"steps": 1})
    with monkeypatch.context() as patch, pytest.raises(ConfigurationError, match="passage_pieces"):
        patch.setattr(EchoSplade, "forward", none_left)
        train_decoder(recipe, start, [pairs], tmp_path / "one")
    shorter = recipe.model_copy(update={"passage_pieces": 16})
    assert train_decoder(shorter, start, [pairs], tmp_path / "one").directory.is_dir()


@pytest.mark.parametrize("damage", ["missing", "cut", "another"])
def test_trained_parameters_that_do_not_fit_are_refused(start: str, tmp_path: Path, damage: str) -> None:
    document = EchoSplade.from_checkpoint(tiny_checkpoint(Path(start)))
    add_adapters(document.decoder, rank=2, alpha=2, dropout=0.0)
    if damage != "missing":
        save_file(trainable_state(document) if damage == "cut" else {"x": torch.ones(1)}, tmp_path / TRAINABLE_FILE)
    if damage == "cut":
        (tmp_path / TRAINABLE_FILE).write_bytes((tmp_path / TRAINABLE_FILE).read_bytes()[:-7])
    with pytest.raises(ConfigurationError) as caught:
        load_trainable(document, tmp_path)
    assert caught.value.code == "bad_training_state"


@pytest.mark.parametrize("shift", [-50.0, 0.0, 50.0])
def test_calibration_gives_the_requested_number_of_pieces(tmp_path: Path, shift: float) -> None:
    document = EchoSplade.from_checkpoint(tiny_checkpoint(tmp_path / "start"), longest=24)
    with torch.no_grad():
        document.bias += shift
    result = calibrate_bias(document, SENTENCES, active=50)
    assert result.after == pytest.approx(50, abs=2)
    assert result.alive > 0.5
    assert (result.before > 300) if shift > 0 else (result.before == 0) if shift < 0 else True
    with torch.inference_mode():
        weights = document(document.preprocess(SENTENCES))["sentence_embedding"]
    assert float((weights > 0).sum(dim=1).float().mean()) == pytest.approx(result.after, abs=1)


def test_calibration_needs_a_text(tmp_path: Path) -> None:
    document = EchoSplade.from_checkpoint(tiny_checkpoint(tmp_path / "start"))
    assert max_text_logits(document, ["", " "], 100).shape[0] == 0
    with pytest.raises(InvalidInput) as caught:
        calibrate_bias(document, ["", " "], active=50)
    assert caught.value.code == "empty_collection"


def test_adapters_are_on_every_projection_and_merge_exactly(tmp_path: Path) -> None:
    document = EchoSplade.from_checkpoint(tiny_checkpoint(tmp_path / "start"), longest=24).eval()
    plain = {name: tensor.clone() for name, tensor in document.decoder.state_dict().items()}
    trained_parameters = add_adapters(document.decoder, rank=3, alpha=6, dropout=0.5)
    names = {name for name, parameter in document.decoder.named_parameters() if parameter.requires_grad}
    assert len(names) == 2 * len(PROJECTIONS) * 2
    assert trained_parameters == sum(p.numel() for p in document.decoder.parameters() if p.requires_grad)
    assert all(torch.equal(tensor, plain[name]) for name, tensor in merged_state_dict(document.decoder).items())
    with torch.no_grad():
        for name, parameter in document.decoder.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.2)
    state = merged_state_dict(document.eval().decoder)
    assert state.keys() == plain.keys()
    ids = torch.tensor([[0, 30, 40, 50]])
    with torch.inference_mode():
        wanted = document.decoder(input_ids=ids).last_hidden_state
        other = EchoSplade.from_checkpoint(tiny_checkpoint(tmp_path / "other")).decoder
        other.load_state_dict(state)
        torch.testing.assert_close(other(input_ids=ids).last_hidden_state, wanted, atol=1e-4, rtol=1e-4)


def test_idf_of_passages_is_higher_for_rare_words_and_zero_for_excluded_pieces(tmp_path: Path) -> None:
    document = EchoSplade.from_checkpoint(tiny_checkpoint(tmp_path / "start"))
    size, excluded = document.get_embedding_dimension(), document.excluded_ids()
    weights = passage_idf_weights(document.tokenizer, SENTENCES, size, excluded)
    the, cat = (document.tokenizer.encode(word).ids for word in ("the", "cat"))
    assert 0 < weights[the].max() < weights[cat].max()
    assert not weights[list(excluded)].any()
    # A byte of a character that no passage has gets the lowest weight, not the highest.
    parts = document.tokenizer.encode("中").ids[1:]
    assert weights[parts] == pytest.approx(weights[weights > 0].min())


def test_the_command_trains_and_reports_errors(start: str, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(RECIPE.model_dump_json())
    common = [start, str(pairs), "--out", str(tmp_path / "out"), "--recipe", str(tmp_path / "recipe.json")]
    main([*common, "--steps", "2", "--batch", "4", "--licence", "Apache-2.0"])
    assert load_encoder(str(tmp_path / "out")).manifest.licence == "Apache-2.0"
    assert load_sparse_encoder(tmp_path / "out", device="cpu").encode_query("wing").shape[0] > 300
    for wrong, said in (["--steps", "-1"], "steps"), (["--batch", "900"], "too_few_pairs"), (["--rank", "x"], "rank"):
        with pytest.raises(SystemExit, match=said):
            main([*common[:3], str(tmp_path / f"out{said}"), *common[4:], *wrong])
    assert read_decoder_recipe(None, {"batch": "16"}).batch == 16


def test_recomputed_activations_change_no_gradient(start: str, pairs: Path, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"steps": 2, "dropout": 0.0})
    kept = train_decoder(recipe, start, [pairs], tmp_path / "kept")
    again = train_decoder(recipe.model_copy(update={"checkpoint_layers": True}), start, [pairs], tmp_path / "again")
    assert again.history[0]["loss"] == pytest.approx(kept.history[0]["loss"], rel=1e-5)
    one, other = (load_file(tmp_path / out / "model.safetensors") for out in ("kept", "again"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-6, rtol=1e-5)


def test_an_untied_head_is_trained_and_written(pairs: Path, tmp_path: Path) -> None:
    start = make_start(tmp_path / "own", tied=False)
    train_decoder(RECIPE.model_copy(update={"steps": 2}), str(start), [pairs], tmp_path / "out")
    encoder = load_encoder(str(tmp_path / "out"))
    assert encoder.manifest.model_extra is not None
    assert encoder.manifest.model_extra["head"] == "own"
    assert len(encoder.encode(encoder.windows("a warm wall"))[0]) > 5


def test_adapters_train_in_float32_on_16_bit_weights(start: str, pairs: Path, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"steps": 2, "precision": "bfloat16", "save_every": 2})
    train_decoder(recipe, start, [pairs], tmp_path / "half")
    state = load_file(tmp_path / "half.training" / "checkpoint-2" / TRAINABLE_FILE)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert {tensor.dtype for tensor in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.bfloat16}
    assert load_encoder(str(tmp_path / "half")).manifest.model_extra["precision"] == "bfloat16"  # type: ignore[index]


def test_zero_steps_write_the_calibrated_decoder(start: str, pairs: Path, tmp_path: Path) -> None:
    done = train_decoder(RECIPE.model_copy(update={"steps": 0}), start, [pairs], tmp_path / "untrained")
    assert done.history == []
    encoder = load_encoder(str(done.directory))
    assert 20 < len(encoder.encode(encoder.windows("wing library heat wall"))[0]) < 120
