"""Training of a tiny chapter generator on a CPU: the generator learns, resumes, and opens as an engine."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from cli.main import app
from models.chapters.engine import AnnotatedEpisode, Episode, read_episodes
from models.chapters.maker import EngineChapterMaker, open_chapter_engine
from models.chapters.podtile import open_podtile
from models.chapters.podtile_checkpoint import ADAPTER_FILES, load_checkpoint, read_chapter_manifest
from models.chapters.training import LOG_FILE, TrainedChapterModel, train_chapters
from models.chapters.training_data import ChapterRecipe
from models.progress import SilentReporter
from models.registry import load_encoder
from models.training.run_directory import last_checkpoint
from services.errors import ConfigurationError, InvalidInput
from tests.training.chapters.tiny_generators import TOPICS, make_generator, write_episodes

# Train all weights (rank 0): adapters cannot teach a model with random weights.
RECIPE = ChapterRecipe(
    part_pieces=512, answer_pieces=48, title_pieces=256, titles_share=0.5, rank=0, steps=60, batch=8, mini_batch=8,
    learning_rate=1e-2, save_every=30, warmup=0.1,
)  # fmt: skip
SHORT = RECIPE.model_copy(update={"steps": 4, "batch": 4, "mini_batch": 2, "save_every": 2, "rank": 4, "alpha": 8})


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("episodes") / "toy.jsonl")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bases")
    for kind in ("llama", "t5", "longt5"):
        make_generator(root / kind, kind)
    return root


def trained(
    bases: Path, episodes: Path, out: Path, recipe: ChapterRecipe, kind: str = "llama", **given: Any
) -> TrainedChapterModel:
    return train_chapters([episodes], str(bases / kind), out, recipe, show=given.pop("show", SilentReporter()), **given)


def held_out(episodes: Path) -> list[AnnotatedEpisode]:
    return [one for one in read_episodes(episodes) if one.held_out]


@pytest.fixture(scope="module")
def made(bases: Path, episodes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedChapterModel:
    return trained(bases, episodes, tmp_path_factory.mktemp("out") / "toy", RECIPE)


def test_the_loss_falls_and_titles_of_unseen_episodes_are_right(made: TrainedChapterModel, episodes: Path) -> None:
    assert made.losses[-1] < 0.5 * made.losses[0]
    engine = open_podtile(str(made.directory))
    right = total = 0
    for one in held_out(episodes)[:4]:
        found = engine.titled(one.episode, [chapter.start for chapter in one.chapters])
        right += sum(a.title == b.title for a, b in zip(found, one.chapters, strict=True))
        total += len(one.chapters)
        assert {chapter.title for chapter in engine.propose(one.episode)} & set(TOPICS)
    assert right >= 0.75 * total


def test_the_manifest_describes_the_generator(made: TrainedChapterModel, episodes: Path) -> None:
    manifest = read_chapter_manifest(made.directory)
    assert manifest.fingerprint == made.manifest.fingerprint == open_podtile(str(made.directory)).fingerprint[:16]
    assert manifest.base is None
    assert (manifest.part_pieces, manifest.title_pieces) == (512, 256)
    record = manifest.model_extra["training"]  # type: ignore[index]
    assert record["episodes"] == 24 - len(held_out(episodes))
    assert record["recipe"]["steps"] == 60
    assert {path.name for path in made.directory.iterdir()} == {*manifest.files, "manifest.json"}


@pytest.mark.parametrize("kind", ["llama", "t5", "longt5"])
def test_adapters_and_merged_weights_generate_the_same(
    bases: Path, episodes: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In float32, because bfloat16 would round the adapters and the merged weights.
    monkeypatch.setattr("models.training.trainer.cpu_dtype", lambda: torch.float32)
    recipe = SHORT.model_copy(update={"precision": "float32"})
    adapters = trained(bases, episodes, tmp_path / "adapters", recipe, kind)
    whole = trained(bases, episodes, tmp_path / "whole", recipe, kind, merge=True)
    assert adapters.manifest.base is not None
    assert set(adapters.manifest.files) == set(ADAPTER_FILES)
    assert str(bases) not in (adapters.directory / ADAPTER_FILES[0]).read_text()
    episode = held_out(episodes)[0].episode
    given, wanted = (open_podtile(str(one.directory)).propose(episode) for one in (adapters, whole))
    assert given == wanted
    assert given[0].start == 0


def test_workers_check_the_generated_chapters(made: TrainedChapterModel, episodes: Path, bases: Path) -> None:
    encoder = load_encoder("standin")
    for model in (made.directory, bases / "llama"):  # with and without training
        maker = EngineChapterMaker(open_chapter_engine("podtile", encoder, str(model), threads=1))
        for one in held_out(episodes)[:2]:
            chapters, _ = maker.chapters(one.episode, 60)
            assert [c.start for c in chapters] == [0, *(c.end for c in chapters[:-1])]
            assert chapters[-1].end == len(one.episode.text)
            assert len({c.title for c in chapters}) == len(chapters)
            assert all(c.title for c in chapters)


class Stops(SilentReporter):
    """Interrupt the run with Ctrl-C at step 3."""

    def trained(self, step: int, steps: int, logs: Mapping[str, float]) -> None:
        if step >= 3:
            raise KeyboardInterrupt


def test_a_resumed_run_ends_with_the_same_weights(bases: Path, episodes: Path, tmp_path: Path) -> None:
    through = trained(bases, episodes, tmp_path / "through", SHORT)
    stops = SHORT.model_copy(update={"save_every": 2})
    with pytest.raises(KeyboardInterrupt):
        trained(bases, episodes, tmp_path / "stopped", stops, show=Stops())
    assert last_checkpoint(tmp_path / "stopped.training") is not None
    assert not (tmp_path / "stopped").exists()
    again = trained(bases, episodes, tmp_path / "stopped", stops)
    one, other = (load_file(made.directory / ADAPTER_FILES[1]) for made in (through, again))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert again.manifest.fingerprint == through.manifest.fingerprint
    steps = [json.loads(line)["step"] for line in (tmp_path / "stopped.training" / LOG_FILE).read_text().splitlines()]
    assert steps[-1] == 4
    once_more = trained(bases, episodes, tmp_path / "stopped", stops, boundaries="tiling")
    assert once_more.losses == []
    assert once_more.manifest.model_extra == again.manifest.model_extra
    assert once_more.manifest.files == again.manifest.files
    assert once_more.manifest.fingerprint != again.manifest.fingerprint
    with pytest.raises(ConfigurationError) as refused:
        open_podtile(str(once_more.directory))
    assert refused.value.code == "no_boundaries"


def test_checkpoints_of_another_run_are_refused(bases: Path, episodes: Path, tmp_path: Path) -> None:
    trained(bases, episodes, tmp_path / "out", SHORT)
    with pytest.raises(ConfigurationError) as refused:
        trained(bases, episodes, tmp_path / "out", SHORT.model_copy(update={"seed": 12}))
    assert refused.value.code == "other_training"


def test_a_run_that_diverges_stops(bases: Path, episodes: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as stopped:
        trained(bases, episodes, tmp_path / "out", RECIPE.model_copy(update={"learning_rate": 1e30, "warmup": 0.0}))
    assert stopped.value.code == "training_diverged"


def test_too_few_episodes_are_refused(bases: Path, tmp_path: Path) -> None:
    few = write_episodes(tmp_path / "few.jsonl", 1)
    with pytest.raises(InvalidInput, match="do not fill") as refused:
        trained(bases, few, tmp_path / "out", SHORT.model_copy(update={"batch": 64}))
    assert refused.value.code == "too_few_examples"


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (lambda out, base: (out / ADAPTER_FILES[1]).write_bytes(b"x"), "corrupt_model_file"),
        (lambda out, base: (out / ADAPTER_FILES[1]).unlink(), "missing_model_file"),
        (lambda out, base: make_generator(base, seed=4), "other_base"),
        (lambda out, base: _changed(out, "part_pieces", 256), "bad_manifest"),
        (lambda out, base: _changed(out, "prompt", 0), "bad_manifest"),
        (lambda out, base: (out / "manifest.json").write_text("[" * 100_000), "bad_manifest"),
    ],
)
def test_changed_files_are_refused(episodes: Path, tmp_path: Path, harm: Any, code: str) -> None:
    base = make_generator(tmp_path / "base")
    out = train_chapters([episodes], str(base), tmp_path / "out", SHORT, show=SilentReporter()).directory
    harm(out, base)
    with pytest.raises(ConfigurationError) as refused:
        open_podtile(str(out))
    assert refused.value.code == code


def _changed(out: Path, name: str, value: Any) -> None:
    path = out / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_incomplete_checkpoint_is_refused(tmp_path: Path, file: str) -> None:
    base = make_generator(tmp_path / "base")
    (base / file).unlink()
    with pytest.raises(ConfigurationError) as refused:
        open_podtile(str(base))
    assert refused.value.code == "bad_checkpoint"


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    base = make_generator(tmp_path / "base")
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match="pickles are refused"):
        open_podtile(str(base))


def test_a_published_long_t5_keeps_its_layout(episodes: Path, tmp_path: Path) -> None:
    """In this layout, `tie_word_embeddings: false` means unscaled outputs; the embedding matrix is tied nevertheless.

    Some releases of transformers untie it and leave three matrices random (their pull request 47620). The training
    refuses these releases.
    """
    base = make_generator(tmp_path / "base", "longt5")
    config = json.loads((base / "config.json").read_text())
    config.pop("scale_decoder_outputs")
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    read = load_checkpoint(base).model
    assert read.lm_head.weight is read.shared.weight is read.encoder.embed_tokens.weight
    assert read.config.scale_decoder_outputs is False
    out = train_chapters([episodes], str(base), tmp_path / "out", SHORT, show=SilentReporter(), merge=True).directory
    assert load_checkpoint(out).model.config.scale_decoder_outputs is False


def test_a_missing_model_names_the_setting() -> None:
    with pytest.raises(ConfigurationError, match="SPARSEWELL_CHAPTER_MODEL") as refused:
        open_podtile("")
    assert refused.value.code == "no_chapter_model"
    with pytest.raises(ConfigurationError, match="smollm2"):
        open_podtile("nowhere")


@pytest.mark.parametrize("kind", ["llama", "t5", "longt5"])
def test_unreadable_answers_of_an_untrained_model_give_no_chapters(bases: Path, episodes: Path, kind: str) -> None:
    engine = open_podtile(str(bases / kind))
    episode = held_out(episodes)[0].episode
    found = engine.propose(episode)
    assert found[0].start == 0
    assert engine.fingerprint != open_podtile(str(bases / ("t5" if kind == "llama" else "llama"))).fingerprint
    empty = Episode("", "", "", episode.segments)
    assert engine.propose(empty) == []


def test_the_command_trains_by_a_recipe(bases: Path, episodes: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    values = SHORT.model_dump(exclude={"steps", "checkpoint_layers"})
    recipe.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items()))
    out = tmp_path / "made"
    arguments = [str(episodes), "--base", str(bases / "llama"), "--out", str(out), "--recipe", str(recipe)]
    done = CliRunner().invoke(app, ["train", "chapters", *arguments, "--steps", "2", "--licence", "MIT"])
    assert done.exit_code == 0, done.output
    manifest = read_chapter_manifest(out)
    assert manifest.licence == "MIT"
    recipe.write_text("answer_pieces = 4000")
    refused = CliRunner().invoke(app, ["train", "chapters", *arguments])
    assert refused.exit_code != 0
    assert "answer_pieces" in str(refused.exception or refused.output)
