"""Log lines in JSON and text."""

import json
import logging

from services.telemetry.logs import JsonFormatter, TextFormatter, log_context


def record(message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("some.name", logging.WARNING, __file__, 1, message, arguments, None)


def test_a_line_is_one_line_whatever_is_in_it() -> None:
    said = JsonFormatter("worker").format(record("a\nb %s", "c\r\nd\u2028"))
    assert "\n" not in said
    assert json.loads(said)["message"] == "a\nb c\r\nd\u2028"
    text = TextFormatter().format(record("a\nb %s", "c\r\nd"))
    assert len(text.splitlines()) == 1


def test_whose_a_line_is_never_displaces_what_it_says() -> None:
    with log_context(request_id="mine", message="m", level="l", time="t", pid="p"):
        said = json.loads(JsonFormatter("worker").format(record("it happened")))
    assert (said["message"], said["level"], said["request_id"]) == ("it happened", "warning", "mine")
    assert isinstance(said["pid"], int)


def test_what_cannot_be_serialised_is_said_all_the_same() -> None:
    one = record("x")
    one.status = object()
    assert json.loads(JsonFormatter("api").format(one))["message"] == "x"
    assert json.loads(JsonFormatter("api").format(record("half a pair \ud800")))["level"] == "warning"
