"""The set-up of a worker before it starts."""

import logging
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery.worker.consumer import consumer
from celery.worker.control import Panel
from pydantic import ValidationError

from cli import serve
from indexer.celery_app import celery_configuration, create_celery
from indexer.runtime import WorkerSettings
from indexer.task_logging import describe_validation_error, install_body_filter
from indexer.worker import available_cores, limit_remote_control
from services.encoders.manifest import WEIGHTS_ROOT
from services.errors import ConfigurationError
from services.queue.messages import ENCODE_TASK, INGEST_TASK, IngestMessage
from services.settings import Settings
from tests.unit.services.encoders.model_directories import restate


def test_a_message_comes_again_long_after_its_task_was_killed() -> None:
    chosen = celery_configuration(Settings(), WorkerSettings())
    assert chosen["broker_transport_options"]["visibility_timeout"] >= 4 * chosen["task_time_limit"]
    assert chosen["task_acks_late"]
    assert chosen["task_reject_on_worker_lost"]
    assert chosen["accept_content"] == ["json"]
    assert chosen["result_backend"] is None


def test_workers_keep_the_remote_command_of_the_health_checks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Panel, "data", dict(Panel.data))
    assert {"ping", "shutdown", "conf"} <= set(Panel.data)
    limit_remote_control()
    assert set(Panel.data) == {"ping"}


def test_the_application_knows_both_tasks_and_asks_nobody() -> None:
    app = create_celery(Settings(redis_url="redis://127.0.0.1:1/0", opensearch_url="http://127.0.0.1:1"))
    assert {ENCODE_TASK, INGEST_TASK} <= set(app.tasks)
    assert app.conf.result_backend is None
    assert app.conf.broker_url == "redis://127.0.0.1:1/0"


def test_times_that_would_run_a_task_twice_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEWELL_TASK_LIMIT", "300")
    monkeypatch.setenv("SPARSEWELL_REDELIVERY", "301")
    with pytest.raises(ConfigurationError, match="SPARSEWELL_REDELIVERY"):
        WorkerSettings.read()
    monkeypatch.setenv("SPARSEWELL_TASK_BUDGET", "200")
    with pytest.raises(ConfigurationError, match="SPARSEWELL_TASK_LIMIT must"):
        WorkerSettings.read()
    monkeypatch.setenv("SPARSEWELL_REDELIVERY", "soon")
    with pytest.raises(ConfigurationError, match="SPARSEWELL_REDELIVERY"):
        WorkerSettings.read()


def test_a_containers_share_limits_the_processes() -> None:
    everything = available_cores("max 100000")
    assert everything >= 1
    assert available_cores("100000 100000") == 1
    assert available_cores("50000 100000") == 1
    assert available_cores("6400000 100000") == everything
    assert available_cores("") == everything


@pytest.mark.parametrize(
    ("template", "arguments"),
    [
        (consumer.UNKNOWN_FORMAT, ("SECRET",)),
        (consumer.UNKNOWN_TASK_ERROR, ("sparsewell.ingest.v9", "SECRET", {"kwargsrepr": "SECRET"}, {})),
        (consumer.INVALID_TASK_ERROR, ("error", "SECRET")),
        (consumer.MESSAGE_DECODE_ERROR, ("error", "type", "utf-8", "SECRET", "SECRET")),
    ],
)
def test_unusable_messages_are_logged_without_their_body(
    template: str, arguments: tuple[object, ...], caplog: pytest.LogCaptureFixture
) -> None:
    install_body_filter()
    install_body_filter()
    logger = logging.getLogger(consumer.__name__)
    assert len([one for one in logger.filters if type(one).__name__ == "BodyLogFilter"]) == 1
    with caplog.at_level(logging.WARNING):
        logger.error(template, *arguments)
    assert "SECRET" not in caplog.text
    assert "was deleted" in caplog.text
    assert ("sparsewell.ingest.v9" in caplog.text) is (template == consumer.UNKNOWN_TASK_ERROR)


def test_a_complaint_about_a_message_holds_nothing_of_it() -> None:
    with pytest.raises(ValidationError) as caught:
        IngestMessage.model_validate({"index": "a", "documents": "SECRET"})
    assert describe_validation_error(caught.value).startswith("documents: ")
    assert "SECRET" not in describe_validation_error(caught.value)


@pytest.mark.parametrize(
    ("architecture", "lacking", "said"),
    [
        ("BertForMaskedLM", "onnxruntime", ".[worker]"),
        ("MistralForSparseEncoding", "torch", ".[worker,gpu]"),
        ("MistralForSparseEncoding", "sentence_transformers", ".[worker,gpu]"),
        ("standin", "celery", ".[worker]"),
    ],
)
def test_what_a_worker_lacks_for_its_encoder_is_said_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, lacking: str, said: str
) -> None:
    mine = shutil.copytree(WEIGHTS_ROOT / "standin", tmp_path / "mine")
    restate(mine, architecture=architecture)
    installed = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None if name == lacking else name))
    monkeypatch.setattr(serve, "importlib", installed)
    with pytest.raises(ConfigurationError, match=re.escape(said)) as caught:
        serve.check_worker_requirements(Settings(encoder=str(mine)))
    assert caught.value.code == "worker_not_installed"
    assert lacking in caught.value.detail
    installed.util.find_spec = lambda name: name
    assert serve.check_worker_requirements(Settings(encoder=str(mine))).name == "standin"
