"""A Markdown file as columns: its front matter, the first heading as title, the rest as it is written."""

import re
from typing import Any

from services.errors import InvalidInput
from services.extra import needs

MAX_FRONT_MATTER = 64 * 1024  # characters; what is longer is no front matter
_FRONT = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
# what a line of = or - may underline: no list, quotation or table
_PARAGRAPH = re.compile(r" {0,3}[^\s>|*+-]")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")


def read_markdown(text: str) -> dict[str, Any]:
    """Columns `title` and `text`, and one for each key of the front matter; a key `id` or `text` of it is called
    `front_matter.id` or `front_matter.text`. Raises InvalidInput (`bad_front_matter`), ConfigurationError
    (`missing_library`)."""
    front, body = _split(text)
    title, body = _titled(body)
    columns = {f"front_matter.{name}" if name in ("id", "text") else name: value for name, value in front.items()}
    return {"title": title, **columns, "text": body}


def _split(text: str) -> tuple[dict[str, Any], str]:
    found = _FRONT.match(text, 0, MAX_FRONT_MATTER)
    if not found:
        return {}, text
    with needs("yaml", "read Markdown with front matter"):
        import yaml
    try:
        # an alias makes a few lines grow into gigabytes
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(found[1], yaml.SafeLoader)):
            raise InvalidInput("bad_front_matter", "Its front matter uses an alias (*name), which is not read.")
        front = yaml.safe_load(found[1])
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 2}" if mark else ""
        problem = getattr(error, "problem", None) or type(error).__name__
        raise InvalidInput("bad_front_matter", f"Its front matter is not YAML{where}: {problem}.") from None
    if front is None:
        front = {}
    if not isinstance(front, dict):
        # two rules around a paragraph, not front matter
        return {}, text
    return {str(name): value for name, value in front.items()}, text[found.end() :]


def _titled(body: str) -> tuple[str, str]:
    """The first heading, and the text without it when nothing but space comes before it."""
    lines = body.splitlines(keepends=True)
    fence, before = "", ""
    for at, line in enumerate(lines):
        mark = _FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1].startswith(fence) and not line[mark.end() :].strip() else fence
        elif mark:
            fence = mark[1]
        elif heading := _ATX.match(line.rstrip("\r\n")):
            if heading[1]:
                return heading[1], _without(lines, at, 1)
        elif _PARAGRAPH.match(before) and _SETEXT.match(line.rstrip("\r\n")):
            return before.strip(), _without(lines, at - 1, 2)
        before = "" if fence else line
    return "", body


def _without(lines: list[str], at: int, count: int) -> str:
    whole = "".join(lines)
    rest = "".join(lines[at + count :]).lstrip("\r\n")
    if "".join(lines[:at]).strip() or not rest.strip():
        return whole
    return rest
