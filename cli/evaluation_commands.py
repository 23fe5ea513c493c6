"""`sparsewell eval`: the group of commands that measure search and chapters."""

from typing import Any

import typer
from typer.core import TyperGroup

from cli.evaluate import evaluate
from cli.evaluate_chapters import chapters

_DEFAULT = "collection"


class _CollectionFirst(TyperGroup):
    """`sparsewell eval DIRECTORY` is `sparsewell eval collection DIRECTORY`, as it was before there was more."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_CollectionFirst, no_args_is_help=True, help="Measure search on a judged collection, or chapters of talk."
)
app.command(_DEFAULT)(evaluate)
app.command("chapters")(chapters)
