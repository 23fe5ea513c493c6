"""Provide encoded documents for tests of searches, without a worker process."""

from collections.abc import Callable

import pytest

from services.settings import Settings
from tests.encoding import encoding


@pytest.fixture
def encode(settings: Settings) -> Callable[[], None]:
    """Provide `encode()`: take the waiting messages and process them in this process as a worker's task does."""
    return encoding(settings)
