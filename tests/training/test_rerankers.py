"""Rerankers in the model process: a tiny random cross-encoder and decoder."""

from pathlib import Path

import httpx
import numpy as np
import pytest

from models.reranking import CrossEncoderScorer, ListwiseScorer
from models.serving import create_model_app, load_model_pool
from services.encoders.manifest import WEIGHTS_ROOT
from services.errors import ConfigurationError
from services.settings import Settings

pytest.importorskip("sentence_transformers", reason="the extra [train] is not installed")

PASSAGES = [f"passage {number} about wings and flow" for number in range(25)] + [""]


def tokenizer(directory: Path, **special: str) -> None:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_file=str(WEIGHTS_ROOT / "standin" / "tokenizer.json"),
        unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        model_max_length=64, **special,
    ).save_pretrained(directory)  # fmt: skip


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cross_encoder(tmp_path_factory.mktemp("cross"), 1)


def make_cross_encoder(directory: Path, labels: int) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, num_labels=labels,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(directory, safe_serialization=True)
    tokenizer(directory)
    return directory


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("decoder")
    config = LlamaConfig(
        vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16_384,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory, safe_serialization=True)
    tokenizer(directory)
    return directory


def test_a_cross_encoder_gives_one_number_a_passage(cross_encoder: Path) -> None:
    scorer = CrossEncoderScorer(str(cross_encoder), device="cpu")
    scores = scorer("flow", PASSAGES)
    assert (scores.dtype, scores.shape) == (np.float32, (len(PASSAGES),))
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores[::-1], scorer("flow", PASSAGES[::-1]), atol=1e-5)
    assert scorer("wings " * 500, ["flow " * 500]).shape == (1,), "what is too long is cut"


TOPICS = ("cat", "river", "engine", "doctor", "bread", "music", "stone", "garden")


def train_cross_encoder(directory: Path) -> Path:
    """Train a small cross-encoder on the CPU: a passage is relevant if it has the word of the query."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    tokenizer(directory)
    tokenise = AutoTokenizer.from_pretrained(directory)
    config = BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, num_labels=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    pairs = [(asked, told) for asked in TOPICS for told in TOPICS]
    batch = tokenise(
        [f"about {asked}" for asked, _ in pairs], [f"the {told} is here" for _, told in pairs],
        padding=True, return_tensors="pt",
    )  # fmt: skip
    labels = torch.tensor([float(asked == told) for asked, told in pairs])
    for _ in range(200):
        logits = model(**batch).logits[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=torch.tensor(7.0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.save_pretrained(directory, safe_serialization=True)
    return directory


def test_a_trained_cross_encoder_puts_the_answer_first(tmp_path: Path) -> None:
    scorer = CrossEncoderScorer(str(train_cross_encoder(tmp_path)), device="cpu")
    passages = [f"the {told} is here" for told in TOPICS]
    best = [int(scorer(f"about {asked}", passages).argmax()) for asked in TOPICS]
    assert best == list(range(len(TOPICS)))


def test_invalid_rerankers_are_refused(tmp_path: Path, cross_encoder: Path) -> None:
    with pytest.raises(ConfigurationError, match="3 numbers"):
        CrossEncoderScorer(str(make_cross_encoder(tmp_path / "three", 3)), device="cpu")
    for opened in (CrossEncoderScorer, ListwiseScorer):
        with pytest.raises(ConfigurationError) as caught:
            opened(str(tmp_path))
        assert caught.value.code == "bad_reranker"


def test_an_unreadable_answer_of_a_decoder_changes_no_order(decoder: Path) -> None:
    scorer = ListwiseScorer(str(decoder))
    assert isinstance(scorer.answer("flow", 2), str)
    scores = scorer("flow", PASSAGES[:3])
    assert sorted(scores.tolist()) == pytest.approx([1 / 3, 2 / 3, 1])


def test_a_relevant_passage_moves_from_the_end_to_the_top(decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder here always ranks the passage about lift first."""
    scorer = ListwiseScorer(str(decoder))
    passage_counts = []

    def says(message: str, passages: int) -> str:
        passage_counts.append(passages)
        lines = [line for line in message.splitlines() if line.startswith("[") and "lift" in line]
        return lines[0].partition(" ")[0] if lines else ""

    monkeypatch.setattr(scorer, "answer", says)
    scores = scorer("what is lift", [*PASSAGES, "lift is a force"])
    assert int(scores.argmax()) == len(PASSAGES)
    assert passage_counts == [20, 17]
    assert scores[: len(PASSAGES)].tolist() == sorted(scores[: len(PASSAGES)].tolist(), reverse=True)


async def test_through_the_model_process(cross_encoder: Path, decoder: Path) -> None:
    settings = Settings(
        model_encoders="standin-dense", cross_encoder=str(cross_encoder), listwise_reranker=str(decoder)
    )
    held = load_model_pool(settings, Path("unused"), lambda message: None)
    transport = httpx.ASGITransport(create_model_app(held))
    async with httpx.AsyncClient(transport=transport, base_url="http://models", timeout=60) as client:
        for model in ("cross-encoder", "listwise"):
            answer = await client.post("/rerank", json={"model": model, "query": "flow", "passages": PASSAGES[:4]})
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["scores"]) == 4
    held.close()
