"""Echo input: the pieces that a decoder reads, and the positions that are pooled."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.decoder.model import EchoSplade
from models.decoder.tokenisation import EchoFormat, build_echo_batch

rows_of_pieces = st.lists(st.lists(st.integers(5, 99), max_size=9), min_size=1, max_size=6)
echoes = st.builds(
    EchoFormat, st.lists(st.integers(0, 4), max_size=2).map(tuple), st.lists(st.integers(0, 4), max_size=3).map(tuple)
)


@settings(max_examples=100)
@given(rows_of_pieces, echoes)
def test_the_pooling_mask_picks_exactly_the_second_copy(rows: list[list[int]], echo: EchoFormat) -> None:
    batch = build_echo_batch(rows, echo)
    for row, ids, seen, pooled in zip(
        rows, batch.input_ids, batch.attention_mask, batch.pooling_mask, strict=True
    ):  # fmt: skip
        assert ids[pooled == 1].tolist() == row
        assert ids[seen == 1].tolist() == [*echo.before, *row, *echo.between, *row]
        # The first copy has the same length and is not pooled. The second copy ends where the padding begins.
        first = len(echo.before)
        assert not pooled[: first + len(row) + len(echo.between)].any()
        assert seen.sum() == echo.positions(len(row)) == (seen * np.arange(1, seen.size + 1)).max(initial=0)


def test_room_is_the_longest_window_that_fits() -> None:
    echo = EchoFormat((1,), (2, 3))
    for positions in range(8, 40):
        assert echo.positions(echo.room(positions)) <= positions < echo.positions(echo.room(positions) + 1)


def test_a_vector_is_the_maximum_over_the_second_copy(document: EchoSplade) -> None:
    texts = ["The wing carries a load.", "wall", "", "Readers return the books of the library on time."]
    features = document.preprocess(texts)
    with torch.inference_mode():
        found = document(dict(features))["sentence_embedding"]
        hidden = document.decoder(input_ids=features["input_ids"]).last_hidden_state
        for text, states, weights in zip(texts, hidden, found, strict=True):
            pieces = len(document.tokenizer.encode(text).ids)
            first = document.echo.positions(pieces) - pieces
            logits = states[first : first + pieces] @ document.head.T + document.bias
            wanted = torch.log1p(torch.relu(logits)).amax(dim=0) if pieces else torch.zeros_like(weights)
            torch.testing.assert_close(weights, wanted.masked_fill(document.excluded, 0.0))


def test_the_second_copy_sees_the_whole_text_and_the_first_does_not(document: EchoSplade) -> None:
    """A different last word changes the state of the first word in the second copy only."""
    with torch.inference_mode():
        one, other = (
            document.decoder(input_ids=document.preprocess([text])["input_ids"]).last_hidden_state[0]
            for text in ("warm air wall", "warm air wing")
        )
    pieces = len(document.tokenizer.encode("warm air wall").ids)
    assert pieces == len(document.tokenizer.encode("warm air wing").ids)
    first, second = len(document.echo.before), document.echo.positions(pieces) - pieces
    torch.testing.assert_close(one[first], other[first])
    assert (one[second] - other[second]).abs().max() > 1e-3
