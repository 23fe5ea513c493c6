"""The transformer body on packed tokens, compared with the library's body on padded batches."""

from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn

from models.training.modules import PACKED_ATTENTION, PackedTokens, StatesTransformer, packed_states, split_head
from services.errors import ConfigurationError
from tests.training.tiny_start import PIECES, make_start


def bodies(directory: Path, family: str) -> tuple[nn.Module, nn.Module]:
    start = make_start(directory / "start", family)
    found = []
    for attention in ("eager", PACKED_ATTENTION):
        model = transformers.AutoModelForMaskedLM.from_pretrained(start, attn_implementation=attention).eval()
        found.append(split_head(model)[0])
    return found[0], found[1]


def batch(lengths: list[int], longest: int = 12) -> tuple[Tensor, Tensor]:
    ids = torch.randint(6, len(PIECES), (len(lengths), longest), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(longest)[None] < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


MASKS = {"ragged": [12, 3, 7, 1], "full": [12, 12], "one": [5], "with an empty row": [4, 0, 9]}


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("lengths", MASKS.values(), ids=MASKS)
def test_states_and_gradients_equal_the_padded_body(tmp_path: Path, family: str, lengths: list[int]) -> None:
    padded, packed = bodies(tmp_path, family)
    ids, mask = batch(lengths)
    wanted = padded(input_ids=ids, attention_mask=mask)[0][mask.bool()]
    found = packed_states(packed, ids, PackedTokens.of(mask))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    wanted.square().sum().backward()
    found.square().sum().backward()
    for (name, one), other in zip(packed.named_parameters(), padded.parameters(), strict=True):
        if other.grad is None:
            assert one.grad is None
        else:
            torch.testing.assert_close(
                one.grad, other.grad, atol=1e-3, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}"
            )


def test_positions_are_those_of_the_row(tmp_path: Path) -> None:
    """With left padding and holes, a token keeps its position in its row."""
    padded, packed = bodies(tmp_path, "bert")
    ids, mask = batch([12, 12])
    mask[0, :5] = 0
    mask[1, [0, 3, 11]] = 0
    wanted = padded(input_ids=ids, attention_mask=mask)[0][mask.bool()]
    torch.testing.assert_close(packed_states(packed, ids, PackedTokens.of(mask)), wanted, atol=1e-5, rtol=1e-4)


def test_a_document_does_not_see_its_neighbours(tmp_path: Path) -> None:
    _, packed = bodies(tmp_path, "bert")
    ids, mask = batch([6, 9])
    together = packed_states(packed, ids, PackedTokens.of(mask))
    ids[1] = (ids[1] + 1) % len(PIECES)
    other = packed_states(packed, ids, PackedTokens.of(mask))
    assert torch.equal(together[:6], other[:6]) and not torch.allclose(together[6:], other[6:])


@pytest.mark.parametrize("shape", [(0, 4), (3, 4), (3, 0)])
def test_a_batch_of_padding_only(tmp_path: Path, shape: tuple[int, int]) -> None:
    _, packed = bodies(tmp_path, "bert")
    found = packed_states(packed, torch.zeros(shape, dtype=torch.long), PackedTokens.of(torch.zeros(shape)))
    assert found.shape == (0, 32)


def test_padded_batches_use_the_attention_of_transformers(tmp_path: Path) -> None:
    padded, packed = bodies(tmp_path, "bert")
    ids, mask = batch([12, 3, 7])
    one, other = (body(input_ids=ids, attention_mask=mask)[0][mask.bool()] for body in (padded, packed))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_no_mask_of_tokens_by_tokens_is_allocated(tmp_path: Path) -> None:
    """A mask of all 2,400 tokens would have 5.8 MB; attention within documents of 12 tokens has 29 KB a head."""
    _, packed = bodies(tmp_path, "bert")
    ids, mask = batch([12] * 200)
    with torch.profiler.profile(profile_memory=True) as profile, torch.no_grad():
        packed_states(packed, ids, PackedTokens.of(mask))
    assert max(event.self_cpu_memory_usage for event in profile.events()) < 2400 * 2400


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("half", [True, False], ids=["variable length", "padded for attention"])
def test_states_on_a_gpu_equal_those_of_the_cpu(tmp_path: Path, half: bool) -> None:
    padded, packed = bodies(tmp_path, "bert")
    ids, mask = batch([12, 3, 7, 0, 1])
    wanted = padded(input_ids=ids, attention_mask=mask)[0][mask.bool()]
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
        found = packed_states(packed.cuda(), ids.cuda(), PackedTokens.of(mask.cuda()))
    torch.testing.assert_close(found.float().cpu(), wanted, atol=0.1, rtol=0.1)


def test_other_families_are_refused(tmp_path: Path) -> None:
    config = transformers.ElectraConfig(
        vocab_size=50, embedding_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    transformers.ElectraForMaskedLM(config).save_pretrained(tmp_path / "electra")
    for file in ("tokenizer.json", "query_weights.json", "idf.json"):
        source = make_start(tmp_path / file.partition(".")[0])
        (tmp_path / "electra" / file).write_bytes((source / file).read_bytes())
    with pytest.raises(ConfigurationError, match="head = plain") as caught:
        StatesTransformer(str(tmp_path / "electra"))
    assert caught.value.code == "checkpoint_unsupported"
