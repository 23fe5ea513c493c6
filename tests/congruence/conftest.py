"""A client of the real node that these tests compare with."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from services.opensearch.client import SyncSearch
from services.settings import Settings


@pytest.fixture(scope="session")
def search_client(opensearch_url: str) -> Iterator[SyncSearch]:
    with closing(SyncSearch(Settings(opensearch_url=opensearch_url))) as client:
        yield client
