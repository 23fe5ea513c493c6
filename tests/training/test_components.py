"""Components of the unified framework that only ablations have: MLP, expMLP, clsMLM, models for queries, top-k."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import transformers
from sentence_transformers import SparseEncoder

from models.export.export import ExportOptions, export_encoder
from models.progress import SilentReporter
from models.training.ablation import FULL_RECIPE
from models.training.architecture import InferenceFreeEncoder, build_encoder, save_checkpoint
from models.training.evaluation import read_curve
from models.training.pipeline import run_ablation, run_recipe
from models.training.prepare import prepare_material
from models.training.recipe import EncoderRecipe, parse_recipe
from models.training.run_directory import CHECKPOINTS
from models.training.teachers import SparseTeacher, expand_texts
from models.training.train import train_encoder
from models.training.trainer import parameter_groups
from services.errors import ConfigurationError
from tests.training.tiny_start import EXCLUDED, TEXTS, make_start
from tests.training.toy_pairs import toy_files, toy_recipe, toy_start

MLP = {"document_weighting": "mlp", "expansion": False, "regulariser": "none"}
TOP_K = {"regulariser": "top_k", "top_k": 3}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_start(tmp_path_factory.mktemp("start") / "tiny")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("toy")
    return toy_start(root / "start"), toy_files(root / "files")


def build(start: Path, **recipe: object) -> InferenceFreeEncoder:
    encoder = build_encoder(start, EncoderRecipe.model_validate({"passage_pieces": 16, **recipe}), device="cpu")
    encoder.eval()
    return encoder


def documents(encoder: SparseEncoder, texts: Sequence[str]) -> torch.Tensor:
    return encoder.encode_document(list(texts), convert_to_sparse_tensor=False)


def queries(encoder: SparseEncoder, texts: Sequence[str]) -> torch.Tensor:
    return encoder.encode_query(list(texts), convert_to_sparse_tensor=False)


def own_pieces(encoder: SparseEncoder, text: str) -> set[int]:
    ids = encoder.preprocess([text], task="document")["input_ids"][0].tolist()
    return set(ids) - set(EXCLUDED)


def test_cls_mlm_has_the_logits_of_the_first_token(start: Path) -> None:
    encoder = build(start, document_weighting="cls_mlm")
    model = transformers.BertForMaskedLM.from_pretrained(start).eval()
    excluded = sorted(EXCLUDED)
    for text, found in zip(TEXTS, documents(encoder, TEXTS), strict=True):
        inputs = {
            name: value
            for name, value in encoder.preprocess([text], task="document").items()
            if name in ("input_ids", "attention_mask")
        }
        with torch.no_grad():
            expected = model(**inputs).logits[0, 0].relu().log1p()
        expected[excluded] = 0
        assert torch.allclose(found, expected, atol=1e-5), text


def test_mlp_begins_as_binary_weights_and_learns(start: Path) -> None:
    encoder = build(start, **MLP)
    [found] = documents(encoder, [TEXTS[0]])
    own = own_pieces(encoder, TEXTS[0])
    assert set(found.nonzero().flatten().tolist()) == own
    assert torch.allclose(found[sorted(own)], torch.ones(len(own)))
    groups = parameter_groups(encoder, 1e-5, 0.3, 0.0)
    assert [sorted(p.numel() for p in group["params"]) for group in groups if group["lr"] == 0.3] == [
        sorted(p.numel() for p in encoder[0].sub_modules["document"][1].parameters())
        + sorted(p.numel() for p in encoder[0].sub_modules["query"][0].parameters())
    ]


def test_a_repeated_piece_has_its_largest_weight(start: Path) -> None:
    encoder = build(start, **MLP)
    layer = encoder[0].sub_modules["document"][1]
    features = {
        "token_states": torch.eye(layer.width)[:4],
        "offsets": torch.tensor([0, 3, 4]),
        "token_ids": torch.tensor([20, 21, 20, 22]),
    }
    with torch.no_grad():
        layer.linear.weight[0, :4] = torch.tensor([1.0, 2.0, 3.0, -9.0])
        layer.linear.bias.fill_(0)
    found = layer(features)["sentence_embedding"]
    expected = torch.zeros(2, layer.size)
    expected[0, [20, 21]] = torch.tensor([3.0, 2.0]).log1p()
    assert torch.allclose(found, expected)


def test_top_k_keeps_the_heaviest_weights(start: Path) -> None:
    whole, cut = documents(build(start), TEXTS), documents(build(start, **TOP_K), TEXTS)
    for before, after in zip(whole, cut, strict=True):
        heaviest = before.topk(3).indices
        assert torch.equal(after[heaviest], before[heaviest])
        assert int((after > 0).sum()) == min(3, int((before > 0).sum()))


def test_a_model_for_queries_is_that_of_the_documents(start: Path) -> None:
    encoder = build(start, query_weighting="mlm")
    assert torch.equal(queries(encoder, TEXTS), documents(encoder, TEXTS))
    weighed = build(start, query_weighting="mlp")
    [found] = queries(weighed, [TEXTS[0]])
    assert set(found.nonzero().flatten().tolist()) == own_pieces(weighed, TEXTS[0])


@pytest.mark.parametrize(
    "encoder",
    [
        MLP,
        {"document_weighting": "cls_mlm", "regulariser": "flops"},
        {"query_weighting": "mlm", "regulariser": "flops"},
        {"query_weighting": "mlp", "regulariser": "flops"},
        TOP_K,
    ],
    ids=lambda members: "-".join(str(value) for value in members.values()),
)
def test_a_stopped_run_resumes(toy: tuple[Path, Path], tmp_path: Path, encoder: dict[str, object]) -> None:
    recipe = parse_recipe(toy_recipe(*toy, encoder={"passage_pieces": 16, **encoder}, steps=6, evaluate_every=3), "toy")
    made: dict[str, torch.Tensor] = {}
    for name in ("once", "stopped"):
        material = prepare_material(recipe, tmp_path / name, SilentReporter())

        def stop(entry: dict[str, object], name: str = name) -> None:
            if name == "stopped" and entry["step"] == 6:
                raise KeyboardInterrupt

        def keep(model: InferenceFreeEncoder, name: str = name) -> None:
            made[name] = documents(model, ["tella so and of", "tellb the a"])

        if name == "stopped":
            with pytest.raises(KeyboardInterrupt):
                train_encoder(recipe, material, tmp_path / name, evaluated=stop)
            last = tmp_path / name / CHECKPOINTS / "checkpoint-6"
            assert not last.exists()
            lines = (tmp_path / name / "curve.jsonl").read_text().splitlines(keepends=True)
            (tmp_path / name / "curve.jsonl").write_text("".join(lines[:-1]))
        train_encoder(recipe, material, tmp_path / name, trained=keep)
    assert torch.allclose(made["once"], made["stopped"], atol=1e-5)


def test_an_encoder_that_cannot_be_served_is_refused(toy: tuple[Path, Path], start: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="train ablation") as caught:
        run_recipe(parse_recipe(toy_recipe(*toy, encoder=MLP), "toy"), tmp_path / "run", name="x")
    assert caught.value.code == "bad_recipe"
    save_checkpoint(build(start, **MLP), tmp_path / "kept")
    with pytest.raises(ConfigurationError, match="cannot be served") as caught:
        export_encoder(ExportOptions(str(tmp_path / "kept"), tmp_path / "out"))
    assert caught.value.code == "checkpoint_unsupported"


def test_words_of_another_encoder_come_before_the_text(tmp_path: Path) -> None:
    teacher = SparseTeacher("projected-minilm-l6")
    texts = ["The physician prescribes drugs against infections.", "A carpenter repairs old chairs."]
    found = expand_texts(teacher, texts, 5, tmp_path)
    for text, expanded in zip(texts, found, strict=True):
        words = expanded.removesuffix(text).split()
        assert len(words) == 5
        assert not set(words) & set(text.lower().rstrip(".").split())
    assert "medical" in found[0] or "doctor" in found[0] or "medicine" in found[0], found[0]
    assert expand_texts(teacher, texts, 5, tmp_path) == found


def test_variants_are_compared_with_what_differs_in_one_part(toy: tuple[Path, Path], tmp_path: Path) -> None:
    content = toy_recipe(*toy, steps=4, evaluate_every=4, encoder={"passage_pieces": 16, "regulariser": "flops"})
    recipe = parse_recipe(content, "toy")
    rows = run_ablation(recipe, tmp_path, ["document weighting mlp", "no expansion + query weighting mlm"])
    assert [(row.name, row.against) for row in rows] == [
        (FULL_RECIPE, FULL_RECIPE),
        ("no expansion", FULL_RECIPE),
        ("document weighting mlp", "no expansion"),
        ("no expansion + query weighting mlm", "no expansion"),
    ]
    assert [row.difference is None for row in rows] == [True, False, False, False]
    assert all(entry["by_query"] for entry in read_curve(tmp_path / "whole"))
