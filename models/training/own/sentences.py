"""Cuts text into sentences, well enough to take one out of a paragraph. Takes time linear in the text."""

import re

Span = tuple[int, int]

# A full stop, and what may close after it; or an empty line. (That a space follows is asked afterwards: inside the
# pattern it would make a long row of dots take cubic time.)
_END = re.compile(r"[.!?…]+[\"'”’)\]]*|[。！？]+[”’」』]*|\n[^\S\n]*(?=\n)")
_WORD_BEFORE = re.compile(r"[\w.]{0,12}$")
_ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof st vs etc e.g i.e eg ie fig figs eq eqs ref refs no nos al cf inc ltd jr sr approx dept vol pp p
    ed eds ch sec resp ca viz u.s u.k a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec
    """.split()  # noqa: SIM905 - a paragraph of words
)
_OPENS = re.compile(r"\s*[\"'“‘(\[«]*")


def sentence_spans(text: str) -> list[Span]:
    """Where each sentence begins and ends, without the white space between them; together they hold all the rest.

    A full stop ends one when a capital, a digit or a mark follows (anything, in a text without capitals), and not
    after an abbreviation or an initial; always when a space stands before it, as in texts that were tokenised.
    """
    lower = text == text.lower()
    spans: list[Span] = []
    start = 0
    for match in _END.finditer(text):
        if _ends(text, match, lower):
            _add(spans, text, start, match.end())
            start = match.end()
    _add(spans, text, start, len(text))
    return spans


def sentences(text: str) -> list[str]:
    """The sentences themselves."""
    return [text[start:end] for start, end in sentence_spans(text)]


def _ends(text: str, match: re.Match[str], lower: bool) -> bool:
    mark = match.group()
    if mark[0] in "\n。！？":
        return True
    if match.end() < len(text) and not text[match.end()].isspace():
        return False
    if mark[0] in "!?…":
        return True
    before = match.start()
    if before and text[before - 1].isspace():
        return True
    opened = _OPENS.match(text, match.end())
    following = text[opened.end() : opened.end() + 1] if opened else ""
    # (letters of scripts without capitals are not lower case either)
    if following.islower() and not lower:
        return False
    word = _WORD_BEFORE.search(text, max(0, before - 12), before)
    name = word.group().lower() if word else ""
    return not (mark == "." and (name in _ABBREVIATIONS or (len(name) == 1 and name.isalpha())))


def _add(spans: list[Span], text: str, start: int, end: int) -> None:
    part = text[start:end]
    left = len(part) - len(part.lstrip())
    if part.strip():
        spans.append((start + left, start + len(part.rstrip())))
