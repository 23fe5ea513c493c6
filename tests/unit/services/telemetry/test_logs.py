"""Log lines in JSON and text."""

import json
import logging

from services.telemetry.logs import JsonFormatter, TextFormatter, log_context


def record(message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("some.name", logging.WARNING, __file__, 1, message, arguments, None)


def test_a_log_line_is_a_single_line() -> None:
    said = JsonFormatter("worker").format(record("a\nb %s", "c\r\nd\u2028"))
    assert "\n" not in said
    assert json.loads(said)["message"] == "a\nb c\r\nd\u2028"
    text = TextFormatter().format(record("a\nb %s", "c\r\nd"))
    assert len(text.splitlines()) == 1


def test_the_context_never_replaces_members_of_the_line() -> None:
    with log_context(request_id="mine", message="m", level="l", time="t", pid="p"):
        said = json.loads(JsonFormatter("worker").format(record("it happened")))
    assert (said["message"], said["level"], said["request_id"]) == ("it happened", "warning", "mine")
    assert isinstance(said["pid"], int)


def test_unserialisable_values_are_logged() -> None:
    one = record("x")
    one.status = object()
    assert json.loads(JsonFormatter("api").format(one))["message"] == "x"
    assert json.loads(JsonFormatter("api").format(record("half a pair \ud800")))["level"] == "warning"
