"""Provide a client of the real node that these tests compare with the oracle."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from services.opensearch.client import SyncSearchClient
from services.settings import Settings
from tests.congruence import shelf
from tests.congruence.node_index import NodeIndex


@pytest.fixture(scope="session")
def search_client(opensearch_url: str) -> Iterator[SyncSearchClient]:
    with closing(SyncSearchClient(Settings(opensearch_url=opensearch_url))) as client:
        yield client


@pytest.fixture(scope="session")
def shelf_index(search_client: SyncSearchClient) -> Iterator[NodeIndex]:
    """Index the documents of `shelf` with their metadata."""
    with shelf.filled_index(search_client) as index:
        yield index
