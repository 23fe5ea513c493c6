"""Compare docs/cli.md with the commands, and check that every command has help texts and an example that parses."""

import shlex
from pathlib import Path

import pytest

from cli.main import app
from cli.reference import CommandReference, list_commands, render_reference

COMMANDS = list_commands(app)
of_each_command = pytest.mark.parametrize("one", COMMANDS, ids=[one.name for one in COMMANDS])


def test_the_reference_is_up_to_date() -> None:
    committed = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert committed == render_reference(app), "docs/cli.md is stale: run `make cli-docs`."


@of_each_command
def test_help_texts_are_complete(one: CommandReference) -> None:
    assert one.paragraphs[0].endswith("."), "The help text is a docstring of sentences."
    assert [parameter.name for parameter in one.command.params if not parameter.help] == []


@of_each_command
def test_the_example_parses(one: CommandReference) -> None:
    assert one.example, "The last paragraph of the docstring must be `Example: sparsewell …`."
    words = shlex.split(one.example)
    assert tuple(words[: len(one.words)]) == one.words
    # Reading the arguments raises a UsageError for an unknown option or a bad value; it does not run the command.
    one.command.make_context(one.name, words[len(one.words) :])
