"""Provide one API for all tests of a module, for tests that write only indexes and documents to the application.

A module's tests share the API, its settings and its Redis. An index that a test creates is deleted after the test. An
index of a module-scoped fixture lives as long as the module.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing

import httpx
import pytest
import redis

from services.queue.lanes import encode_queues
from services.settings import Settings
from tests.encoding import encoding


@pytest.fixture(scope="module")
def settings(new_settings: Callable[..., Settings]) -> Settings:
    """Return the settings of the module's service. A module overrides this fixture with one of the same scope."""
    return new_settings(sweep_interval=0.5)


@pytest.fixture(scope="module")
def api_url(
    settings: Settings,
    live_api: Callable[[Settings], AbstractContextManager[str]],
    remove_indexes: Callable[[str, str], None],
) -> Iterator[str]:
    """Return the address of the module's API."""
    with live_api(settings) as url:
        yield url
    remove_indexes(settings.opensearch_url, settings.index_prefix)


@pytest.fixture(scope="module")
def api(api_url: str) -> Iterator[httpx.Client]:
    """Return a client of the module's API."""
    with httpx.Client(base_url=api_url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def encode(settings: Settings) -> Callable[[], None]:
    """Provide `encode()`, as in the folder above."""
    return encoding(settings)


@pytest.fixture(autouse=True)
def own_indexes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Delete the indexes that a test has created and the messages that it left.

    The fixture uses the API, because the API caches an index for a moment.
    """
    if not {"api", "settings"} & set(request.fixturenames):
        yield
        return
    api: httpx.Client = request.getfixturevalue("api")
    kept = names(api)
    yield
    for name in names(api) - kept:
        api.delete(f"/v1/indexes/{name}").raise_for_status()
    settings: Settings = request.getfixturevalue("settings")
    with closing(redis.Redis.from_url(settings.redis_url)) as broker:
        broker.delete(*encode_queues(settings.encoder))


def names(api: httpx.Client) -> set[str]:
    return {one["name"] for one in api.get("/v1/indexes").raise_for_status().json()["indexes"]}
