"""Costs of sparse vectors that an evaluation reports. Rankings are tested with the runs that use them."""

import pytest

pytest.importorskip("bm25s", reason="the extra [train] is not installed")

from models.judged_queries import expected_products


def test_products_are_shared_pieces_of_a_query_and_a_document() -> None:
    documents = [{1: 0.5, 2: 1.0}, {2: 3.0}, {3: 1.0}, {}]
    # Piece 2 is in two of four documents, piece 3 in one, piece 9 in none: .5, and .25 + 0.
    assert expected_products(documents, [{2: 1.0}, {3: 2.0, 9: 1.0}]) == (0.5 + 0.25) / 2
    assert expected_products([], [{1: 1.0}]) == 0
    assert expected_products(documents, []) == 0
