"""Run a part of the congruence suite on 2.19 over TLS. `make test-2.19` runs the whole suite."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from services.opensearch.client import SyncSearchClient
from services.settings import Settings
from tests.congruence import corpora, oracle
from tests.congruence.node_index import fresh_index
from tests.secured.secured_parts import Secured

SEED = 20_240_602


@pytest.fixture(scope="module")
def administrator(secured_node: Secured) -> Iterator[SyncSearchClient]:
    """Connect as the administrator, because the test's indexes have names that no role covers."""
    cert, key = secured_node.authority.sign("the-admin")
    settings = Settings(
        opensearch_url=secured_node.url,
        opensearch_ca=secured_node.authority.ca,
        opensearch_cert=cert,
        opensearch_key=key,
    )
    with closing(SyncSearchClient(settings)) as client:
        yield client


def test_scores_are_those_that_the_oracle_predicts(administrator: SyncSearchClient) -> None:
    every = corpora.documents(SEED)
    documents = {name: every[name] for name in list(every)[::20]}
    queries = corpora.queries(SEED + 1)[::12]
    whole = oracle.Oracle(documents)
    expected = [whole.scores(query) for query in queries]
    with fresh_index(administrator, shards=2) as made:
        made.put_all(documents)
        for size in (10, 1_000):
            hits = 0
            for predicted, found in zip(expected, made.search(queries, size), strict=True):
                oracle.check(predicted, found, size)
                hits += len(found)
        assert hits > 1_000
        # the control: the check detects a query with another weight
        (wrong,) = made.search([{i: weight * 2 for i, weight in queries[0].items()}], 10)
        with pytest.raises(AssertionError):
            oracle.check(expected[0], wrong, 10)
