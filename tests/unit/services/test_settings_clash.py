"""Settings that contradict each other are refused when they are read."""

import pytest

from services.errors import ConfigurationError
from services.settings import Settings


def test_a_key_does_not_outlive_the_record_that_it_is_kept_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEWELL_JOB_DAYS", "1")
    assert Settings.read().job_days == 1
    monkeypatch.setenv("SPARSEWELL_IDEMPOTENCY_HOURS", "25")
    with pytest.raises(ConfigurationError, match="SPARSEWELL_JOB_DAYS"):
        Settings.read()
