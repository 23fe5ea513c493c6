"""Encoders built from recipes: weights of each side, trained parameters, refused starts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder

from models.training.architecture import InferenceFreeEncoder, build_encoder, read_starting_point
from models.training.modules import QueryTableEmbedding
from models.training.recipe import EncoderRecipe
from models.training.train import keep_scale_of_table
from models.training.trainer import parameter_groups
from services.errors import BackendUnavailable, ConfigurationError, InvalidInput
from tests.training.tiny_start import EXCLUDED, PIECES, TEXTS, make_start

ID = {piece: index for index, piece in enumerate(PIECES)}
HEADS = ["plain", "chunked"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_start(tmp_path_factory.mktemp("start") / "tiny")


def build(start: Path, **recipe: object) -> InferenceFreeEncoder:
    given = {"passage_pieces": 16, **recipe}
    return build_encoder(start, EncoderRecipe.model_validate(given), device="cpu")


def queries(encoder: SparseEncoder, texts: list[str]) -> torch.Tensor:
    return encoder.encode_query(texts, convert_to_sparse_tensor=False, show_progress_bar=False)


def documents(encoder: SparseEncoder, texts: list[str]) -> torch.Tensor:
    return encoder.encode_document(texts, convert_to_sparse_tensor=False, show_progress_bar=False)


@pytest.mark.parametrize(
    ("weighting", "cat", "the"),
    [("none", 1.0, 1.0), ("idf", 0.25 + ID["cat"], 0.25 + ID["the"]), ("learned", 0.5 + ID["cat"], 0.5 + ID["the"])],
)
def test_a_query_is_a_bag_of_distinct_pieces(start: Path, weighting: str, cat: float, the: float) -> None:
    encoder = build(start, query_weighting=weighting)
    found = queries(encoder, ["the cat the the cat", "[MASK] [SEP] é"])
    assert {PIECES[i]: w for i, w in enumerate(found[0].tolist()) if w} == {"the": the, "cat": cat}
    # A special piece in a query's text is plain characters.
    assert {PIECES[i] for i in found[1].nonzero()[:, 0].tolist()} == {"[", "]", "mask", "sep", "e"}
    assert encoder[0].sub_modules["query"][0].weight.requires_grad == (weighting == "learned")


@pytest.mark.parametrize("head", HEADS)
def test_special_pieces_always_weigh_zero(start: Path, head: str) -> None:
    encoder = build(start, head=head)
    found = documents(encoder, TEXTS)
    assert (found > 0).any(dim=1).all()
    assert not EXCLUDED & set(found.nonzero()[:, 1].tolist())
    # Training cannot raise them either: they get no gradient.
    encoder.train()
    features = encoder.preprocess(TEXTS, task="document")
    encoder(features, task="document")["sentence_embedding"].sum().backward()
    bias = encoder[0].sub_modules["document"][0].model.get_output_embeddings().bias
    assert (bias.grad[sorted(EXCLUDED)] == 0).all() and (bias.grad != 0).any()


@pytest.mark.parametrize("head", HEADS)
def test_without_expansion_only_pieces_of_the_text_weigh(start: Path, head: str) -> None:
    wide, narrow = build(start, head=head), build(start, head=head, expansion=False)
    with_expansion, without = documents(wide, TEXTS), documents(narrow, TEXTS)
    present = queries(build(start, query_weighting="none"), TEXTS) > 0
    present[4:] = queries(build(start, query_weighting="none"), ["the", "cats dogs"]) > 0
    assert ((with_expansion > 0) & ~present).any()
    torch.testing.assert_close(without, with_expansion * present)


def test_binary_weights_are_the_distinct_pieces(start: Path) -> None:
    encoder = build(start, document_weighting="binary", expansion=False, regulariser="none")
    found = documents(encoder, ["the the cat", "x"])
    assert sorted(found[0].nonzero()[:, 0].tolist()) == sorted((ID["the"], ID["cat"]))
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert [name for name, _ in trainable(encoder)] == ["0.sub_modules.query.0.weight"]


def trainable(encoder: SparseEncoder) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in encoder.named_parameters() if parameter.requires_grad]


def test_passages_are_cut_at_their_longest_length(start: Path) -> None:
    encoder = build(start, passage_pieces=10)
    assert encoder.preprocess(["a " * 50], task="document")["input_ids"].shape == (1, 10)
    assert encoder.preprocess(["a " * 50], task="query")["input_ids"].shape == (1, 50)


@pytest.mark.parametrize("named", [True, False])
def test_passages_have_the_special_pieces_of_the_workers(tmp_path: Path, named: bool) -> None:
    """This holds even if tokenizer.json has no rule for it and the class in tokenizer_config.json adds none."""
    start = make_start(tmp_path / "start")
    if named:
        special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
        content = {"tokenizer_class": "TokenizersBackend", **special}
        (start / "tokenizer_config.json").write_text(json.dumps(content))
    ids = build(start).preprocess(["a b"], task="document")["input_ids"][0].tolist()
    assert ids == [ID["[CLS]"], ID["a"], ID["b"], ID["[SEP]"]]


@pytest.mark.parametrize("activation", ["log1p_relu", "log1p_log1p_relu"])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_heads_give_the_same_vectors(tmp_path: Path, family: str, activation: str) -> None:
    start = make_start(tmp_path / "start", family)
    plain, chunked = (build(start, head=head, activation=activation) for head in HEADS)
    torch.testing.assert_close(documents(plain, TEXTS), documents(chunked, TEXTS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("expansion", [True, False])
def test_a_saved_encoder_loads_with_sentence_transformers_alone(
    start: Path, tmp_path: Path, head: str, expansion: bool
) -> None:
    encoder = build(start, head=head, expansion=expansion)
    encoder.save_pretrained(str(tmp_path / "saved"))
    for file in (tmp_path / "saved").rglob("*"):
        assert file.suffix not in (".bin", ".pt", ".pkl"), file
    named = json.loads((tmp_path / "saved" / "router_config.json").read_text())["types"].values()
    assert all(one.startswith("sentence_transformers.") for one in named)
    # trust_remote_code stays off, so a class of ours in the directory would be refused.
    again = SparseEncoder(str(tmp_path / "saved"), device="cpu", local_files_only=True)
    torch.testing.assert_close(documents(again, TEXTS), documents(encoder, TEXTS), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(queries(again, TEXTS), queries(encoder, TEXTS))
    # The trainer loads its checkpoints in this way.
    encoder.load_state_dict(again.state_dict())


def test_training_starts_from_a_saved_encoder(start: Path, tmp_path: Path) -> None:
    encoder = build(start)
    encoder.save_pretrained(str(tmp_path / "saved"))
    again = build(tmp_path / "saved", regulariser="flops")
    torch.testing.assert_close(documents(again, TEXTS), documents(encoder, TEXTS))
    torch.testing.assert_close(queries(again, TEXTS), queries(encoder, TEXTS))


def test_the_query_table_stays_at_zero_or_above(start: Path) -> None:
    encoder = build(start)
    table = encoder[0].sub_modules["query"][0]
    encoder.train()
    optimiser = torch.optim.SGD(parameter_groups(encoder, 0.0, 10.0, 0.0))
    features = encoder.preprocess(["cat", "dog ☃"], task="query")
    found = encoder(dict(features), task="query")["sentence_embedding"]
    assert ID["[UNK]"] in features["input_ids"][1]
    (found[:, ID["cat"]].sum() - found[:, ID["[UNK]"]].sum()).backward()
    for _ in range(10):
        optimiser.step()
    assert table.weight[ID["cat"]] < 0 < table.weight[ID["[UNK]"]]
    found = encoder(dict(features), task="query")["sentence_embedding"]
    assert (found >= 0).all() and found[0, ID["cat"]] == 0 and (found[:, sorted(EXCLUDED)] == 0).all()
    # A weight at zero still gets a gradient, so it can grow again.
    optimiser.zero_grad()
    (-found[0, ID["cat"]]).backward()
    optimiser.step()
    assert table.weight[ID["cat"]].item() == pytest.approx(10.0)


def test_parameters_are_split_for_the_optimiser(start: Path) -> None:
    encoder = build(start)
    groups = parameter_groups(encoder, 1e-4, 1e-3, 0.01)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-4, 0.01), (1e-4, 0.0), (1e-3, 0.0)]
    assert all(parameter.ndim > 1 for parameter in groups[0]["params"])
    assert groups[2]["params"] == [encoder[0].sub_modules["query"][0].weight]
    counted = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(counted) == sorted(id(parameter) for _, parameter in trainable(encoder))
    assert len(parameter_groups(build(start, query_weighting="idf"), 1e-4, 1e-3, 0.01)) == 2


def test_nothing_is_saved_when_a_parameter_is_nan(start: Path, tmp_path: Path) -> None:
    encoder = build(start)
    with torch.no_grad():
        next(encoder.parameters())[0] = float("nan")
    with pytest.raises(InvalidInput) as caught:
        encoder.save_pretrained(str(tmp_path / "saved"))
    assert caught.value.code == "not_finite_weights"
    assert not (tmp_path / "saved").exists()


def test_invalid_starts_are_refused(start: Path, tmp_path: Path) -> None:
    def code(where: str | Path, idf: np.ndarray | None = None, **recipe: object) -> str:
        given = EncoderRecipe.model_validate({"passage_pieces": 16, **recipe})
        with pytest.raises(ConfigurationError) as caught:
            build_encoder(where, given, idf, device="cpu")
        return caught.value.code

    assert code(tmp_path / "nowhere") == "unknown_start"
    with pytest.raises(BackendUnavailable) as unreachable:  # the tests run offline
        build_encoder("no-such-owner/no-such-model", EncoderRecipe(passage_pieces=16), device="cpu")
    assert unreachable.value.code == "hub_unreachable"
    (tmp_path / "empty").mkdir()
    assert code(tmp_path / "empty") == "unknown_start"
    assert code(start, passage_pieces=41) == "bad_recipe"
    assert code(start, idf=np.ones(7, np.float32)) == "bad_idf"
    assert code(start, idf=np.full(len(PIECES), np.nan, np.float32)) == "bad_idf"

    pickled = make_start(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert code(pickled) == "pickle_refused"
    damaged = make_start(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\0" * 100)
    assert code(damaged) == "unknown_start"
    other = make_start(tmp_path / "other", pieces=[*PIECES, "more"])
    (start / "tokenizer.json").read_bytes()
    (other / "tokenizer.json").write_bytes((start / "tokenizer.json").read_bytes())
    assert code(other) == "bad_query_table"
    for table in ("query_weights.json", "idf.json"):
        (other / table).unlink()
    assert code(other) == "bad_idf"
    assert code(other, regulariser="flops") == "checkpoint_unsupported"


def test_a_fixed_query_table_stays_that_of_the_start(tmp_path: Path) -> None:
    """The documents of doc-v2 and doc-v3 were trained with their idf.json; a table of other passages does not fit."""
    start = make_start(tmp_path / "start")
    stored = read_starting_point(start).idf
    assert stored is not None
    other = stored + 1
    fixed = build_encoder(start, EncoderRecipe(query_weighting="idf", regulariser="flops", passage_pieces=16), other)
    assert fixed.idf is not None
    assert (fixed.idf == stored).all()
    counted = build_encoder(start, EncoderRecipe(query_weighting="learned", passage_pieces=16), other)
    assert counted.idf is not None
    assert (counted.idf == other).all()


@pytest.mark.parametrize("weighting", ["learned", "idf"])
def test_the_scale_does_not_slide_into_a_learned_table(start: Path, weighting: str) -> None:
    """Only pieces of queries have a gradient. A mean over the whole vocabulary would let them grow nearly freely."""
    encoder = build(start, query_weighting=weighting)
    table = next(module for module in encoder.modules() if isinstance(module, QueryTableEmbedding))
    before = table.weight.detach().clone()
    keep_scale_of_table(encoder, ["the cat", "the the"])
    used = [ID["the"], ID["cat"]]
    with torch.no_grad():
        table.weight[used] *= 3.0
        table.weight[ID["cat"]] *= 2.0
    table.project()
    after = table.weight.detach()
    assert after[ID["cat"]] / after[ID["the"]] == pytest.approx(2 * before[ID["cat"]] / before[ID["the"]])
    others = [i for i in range(len(before)) if i not in used]
    assert torch.equal(after[others], before[others])
    # "the" occurs three times and "cat" once.
    total = (3 * after[ID["the"]] + after[ID["cat"]]).item()
    kept = (3 * before[ID["the"]] + before[ID["cat"]]).item()
    if weighting == "learned":
        assert total == pytest.approx(kept)
    else:
        assert total > 3 * kept, "a fixed table is what it is"
