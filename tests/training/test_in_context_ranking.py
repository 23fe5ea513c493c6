"""In-context ranking by attention: tiny random decoders, against one pass with the mask written out."""

from pathlib import Path

import numpy as np
import pytest

from models.serving import load_model_pool
from services.errors import ConfigurationError
from services.settings import Settings
from tests.training.test_rerankers import tokenizer

pytest.importorskip("transformers", reason="the extra [train] is not installed")

from models.in_context_ranking import InContextScorer

PASSAGES = ["wings and flow", "", "the pause of a program " * 100, "a folder", "lift is a force"] * 4


def make_decoder(directory: Path, positions: int = 2048, **changes: int) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=30522, hidden_size=16, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=16, max_position_embeddings=positions, initializer_range=0.5, **changes,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer(directory)
    return directory


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("decoder"))


def test_the_scores_are_those_of_one_pass_with_the_block_mask(decoder: Path) -> None:
    import torch
    from transformers import AutoModel

    scorer = InContextScorer(str(decoder))
    assert scorer.layer == 2
    before, after = scorer.frame("what is lift")
    blocks = [scorer.passage_pieces(passage) for passage in PASSAGES]
    model = AutoModel.from_pretrained(decoder, attn_implementation="eager").eval()
    ids = [*before, *[piece for block in blocks for piece in block], *after]
    owner = torch.tensor(
        [0] * len(before) + [n for n, block in enumerate(blocks, 1) for _ in block] + [-1] * len(after)
    )
    allowed = (owner[:, None] == owner[None]) | (owner[None] == 0) | (owner[:, None] == -1)
    mask = torch.where(allowed.tril(), 0.0, torch.finfo(torch.float32).min)[None, None]
    positions = [*range(len(before))]
    for block in blocks:
        positions += range(len(before), len(before) + len(block))
    positions += range(2048 - len(after), 2048)
    with torch.inference_mode():
        output = model(
            input_ids=torch.tensor([ids]), attention_mask=mask, position_ids=torch.tensor([positions]),
            output_attentions=True,
        )  # fmt: skip
    weights = output.attentions[2][0, :, -2:]
    inside = weights[:, :, owner > 0]
    shares = (inside / inside.sum(dim=-1, keepdim=True)).mean(dim=(0, 1))
    expected = [float(shares[owner[owner > 0] == number].sum()) for number in range(1, len(blocks) + 1)]
    np.testing.assert_allclose(scorer("what is lift", PASSAGES), expected, rtol=1e-3)


def test_the_order_of_the_passages_changes_no_score(decoder: Path) -> None:
    scorer = InContextScorer(str(decoder))
    scores = scorer("what is lift", PASSAGES)
    assert (scores.dtype, scores.shape) == (np.float32, (len(PASSAGES),))
    assert float(scores.sum()) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(scorer("what is lift", PASSAGES[::-1])[::-1], scores, rtol=1e-3)
    assert not np.allclose(scorer("a folder", PASSAGES), scores, rtol=1e-3), "the query counts"
    assert scorer("wings " * 5000, ["flow"]).tolist() == pytest.approx([1.0])
    assert scorer("words", []).shape == (0,)


def test_unusable_decoders_are_refused(tmp_path: Path, decoder: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    mamba = tmp_path / "mamba"
    MambaForCausalLM(MambaConfig(vocab_size=30522, hidden_size=16, num_hidden_layers=2)).save_pretrained(mamba)
    tokenizer(mamba)
    for path, layer, message in (
        (mamba, None, "attention"),
        (make_decoder(tmp_path / "short", positions=256), None, "256 positions"),
        (decoder, 4, "no layer 4"),
        (tmp_path / "nothing", None, "not a usable decoder"),
    ):
        with pytest.raises(ConfigurationError, match=message) as caught:
            InContextScorer(str(path), layer=layer)
        assert caught.value.code == "bad_reranker"


def test_the_setting_chooses_the_method(decoder: Path) -> None:
    settings = Settings(model_encoders="standin-dense", listwise_reranker=str(decoder), listwise_method="attention")
    held = load_model_pool(settings, Path("unused"), lambda message: None)
    assert isinstance(held.scorers["listwise"], InContextScorer)
    held.close()
