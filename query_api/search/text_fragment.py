"""A link to a passage within a web page: the fragment that makes a browser scroll to a text and mark it.

W3C Community Group, URL Fragment Text Directives: `#:~:text=START,END` marks from the first place of START to the next
one of END after it. Each is compared with the words of one block of the page, so neither may span a line's end.
"""

from urllib.parse import quote

# Enough to be found once on a page, few enough that an edit elsewhere in the passage does not break the link.
_WORDS = 6


def text_fragment(passage: str) -> str:
    """What follows the `#` of a page's address; empty for a passage without a word.

    It begins with `:~:text=`, so after an address that has a fragment already it is appended without another `#`.
    """
    lines = [words for line in passage.splitlines() if (words := line.split())]
    if not lines:
        return ""
    if len(lines) == 1 and len(lines[0]) <= 2 * _WORDS:
        return f":~:text={_said(lines[0])}"
    return f":~:text={_said(lines[0][:_WORDS])},{_said(lines[-1][-_WORDS:])}"


def _said(words: list[str]) -> str:
    """Percent-encoded, with what the directive gives a meaning of its own: `-`, `,` and `&`."""
    return quote(" ".join(words), safe="").replace("-", "%2D")
