"""Read candidates for mining from a live index, with a live API and a real worker."""

from collections.abc import Callable

import httpx
import numpy as np
import pytest

from cli.relevance.live import make_index_candidates
from infra.processes import ChildProcess
from models.training.mining import passage_documents
from models.training.pairs import Pair, PairSet
from services.errors import InvalidInput, NotFound

PAIRS = PairSet.of(
    [
        Pair("lift of a wing", "The lift of a wing grows with the angle of attack until the flow separates."),
        Pair("heat transfer", "Heat transfer from a hot plate to a supersonic stream of air."),
        Pair("wing " * 2000, "The wing of a bird."),
    ]
)


@pytest.mark.usefixtures("worker")
def test_hits_of_a_live_index_are_rows_of_the_set(
    api: httpx.Client, worker: ChildProcess, eventually: Callable[[Callable[[], object], float, str], None]
) -> None:
    api.put("/v1/indexes/passages", json={}).raise_for_status()
    body = [*passage_documents(PAIRS), {"id": "stranger", "text": "A wing that is in no pair."}]
    api.post("/v1/indexes/passages/documents", json=body).raise_for_status()
    eventually(
        lambda: api.get("/v1/indexes/passages").json()["documents"]["encoded"] == 4, 60, "four documents are encoded"
    )
    for mode in ("sparse", "lexical", "hybrid"):
        source = make_index_candidates(api, "passages", mode, PAIRS)
        found = source.best(np.array([1, 0, 2]), 3)
        assert found[0, 0] == 1
        assert set(found[1][found[1] >= 0].tolist()) >= {0}
        assert found[2].tolist() == [-1, -1, -1], "a query that is too long has no candidates"
    sparse = make_index_candidates(api, "passages", "sparse", PAIRS)
    assert sparse.fingerprint == make_index_candidates(api, "passages", "sparse", PAIRS).fingerprint
    assert sparse.fingerprint != source.fingerprint
    with pytest.raises(InvalidInput):
        sparse.best(np.array([0]), 100_000)
    with pytest.raises(NotFound):
        make_index_candidates(api, "absent", "sparse", PAIRS)
