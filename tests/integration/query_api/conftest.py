"""Encoded documents for tests of searches, without a worker process."""

from collections.abc import Callable

import pytest

from services.settings import Settings
from tests.encoding import encoding


@pytest.fixture
def encode(settings: Settings) -> Callable[[], None]:
    """`encode()`: takes what waits in the queue and does with it what a worker's task does, in this process."""
    return encoding(settings)
