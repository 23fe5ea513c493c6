"""Tests of errors: they survive pickling between processes."""

import copy
import pickle

from services.errors import NotFound


def test_an_error_survives_pickling_in_a_process_pool() -> None:
    error = NotFound("index_not_found", "There is no index 'books'.", index="books")
    for again in (
        pickle.loads(pickle.dumps(error)),  # noqa: S301 (its own)
        copy.copy(error),
    ):
        assert isinstance(again, NotFound)
        assert (str(again), again.extra) == (str(error), {"index": "books"})
