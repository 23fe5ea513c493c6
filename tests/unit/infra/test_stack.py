"""Settings and addresses of the local stack, without starting a process."""

from pathlib import Path

import pytest

from infra.local_servers import LocalSettings
from infra.stack import Stack, settings_environment
from services.errors import ConfigurationError
from services.settings import Settings


def test_a_relative_encoder_path_becomes_absolute_for_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "standin").mkdir()
    assert settings_environment(Settings(encoder="mine"))["SPARSEWELL_ENCODER"] == str(tmp_path.resolve() / "mine")
    assert settings_environment(Settings(encoder="standin"))["SPARSEWELL_ENCODER"] == "standin", "the shipped one"
    assert settings_environment(Settings(encoder="gone"))["SPARSEWELL_ENCODER"] == "gone"


def test_a_child_gets_the_same_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(opensearch_url="http://search:1", redis_port=1)
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    child = Settings.read()
    assert (child.opensearch_url, child.redis_url) == (settings.opensearch_url, settings.redis_url)


def test_status_shows_no_password(tmp_path: Path) -> None:
    local = LocalSettings(
        state_dir=tmp_path, opensearch_url="http://u:s3cret@127.0.0.1:9", redis_url="redis://:s3cret@127.0.0.1:9/0"
    )
    stack = Stack(local, Settings())
    assert [row.where for row in stack.status()][:2] == ["redis://127.0.0.1:9/0", "http://127.0.0.1:9"]
    assert "s3cret" in stack.settings.redis_url, "the parts need it"


def test_the_api_of_a_stack_needs_a_fixed_port(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="SPARSEWELL_API_PORT"):
        Stack(LocalSettings(state_dir=tmp_path), Settings(api_port=0)).up(print)
