"""An HTML page as columns: its title, and its main text in reading order without scripts, styles and navigation."""

import re
from typing import Any

from services.errors import InvalidInput
from services.extra import needs

# An element takes about 360 bytes: 8 MiB of nothing but `<p>a` took 734 MB.
MAX_TAGS = 500_000
_DROPPED = {
    "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "embed", "canvas", "audio",
    "video", "nav", "head", "select", "textarea",
}  # fmt: skip
_PARAGRAPHS = {
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "blockquote", "pre", "section", "article",
    "main", "header", "footer", "aside", "figure", "form", "hr",
}  # fmt: skip
_LINES = {
    "br", "div", "li", "tr", "dt", "dd", "caption", "figcaption", "address", "fieldset", "option", "legend",
    "summary", "details", "body",
}  # fmt: skip
_CELLS = {"td", "th"}
_SPACE = re.compile(r"[ \t\r\n\f]+")


def read_html(text: str) -> dict[str, Any]:
    """Columns `title` (of <title>, else the first <h1>) and `text` (of the one <main>, else of the body).

    Raises InvalidInput (`bad_html`) for a page that the parser gives up, ConfigurationError (`missing_library`).
    """
    with needs("lxml", "read HTML"):
        from lxml import etree
    if text.count("<") > MAX_TAGS:
        raise InvalidInput("bad_html", f"It has more than {MAX_TAGS:,} tags.")
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True)
    try:
        root = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as error:
        if not text.strip():
            return {"title": "", "text": ""}
        raise InvalidInput("bad_html", f"It cannot be read as HTML: {error.msg}.") from None
    # the parser stops at 256 elements in one another, and says so here only
    fatal = next((entry for entry in parser.error_log if entry.level_name == "FATAL"), None)
    if fatal is not None:
        raise InvalidInput("bad_html", f"It cannot be read as HTML: line {fatal.line}: {fatal.message.strip()}.")
    if root is None:
        return {"title": "", "text": ""}
    mains = root.xpath("//main | //*[@role='main']")
    bodies = root.xpath("//body")
    start = mains[0] if len(mains) == 1 else bodies[0] if bodies else root
    return {"title": _title(root), "text": _text(start)}


def _title(root: Any) -> str:
    for path in ("//head/title", "//title", "//h1"):
        for element in root.xpath(path):
            title = _SPACE.sub(" ", "".join(element.itertext())).strip()
            if title:
                return title
    return ""


def _text(start: Any) -> str:
    from lxml import etree

    found = _Lines()
    walker = etree.iterwalk(start, events=("start", "end"))
    for event, element in walker:
        tag = element.tag if isinstance(element.tag, str) else ""
        gap = 2 if tag in _PARAGRAPHS else 1 if tag in _LINES else 0
        found.part(gap)
        if event == "start":
            if tag in _DROPPED or element.get("hidden") is not None or element.get("aria-hidden") == "true":
                walker.skip_subtree()
                continue
            if tag in _CELLS:
                found.add(" ")
            found.kept += tag == "pre"
            found.add(element.text)
        else:
            if tag == "pre" and found.kept:
                found.kept -= 1
            if element is not start:
                found.add(element.tail)
    return "".join(found.parts).strip()


class _Lines:
    """Text put together as a browser would: space collapsed, except in `pre`."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.kept = 0  # `pre` elements around
        self._gap = 0
        self._space = True

    def part(self, gap: int) -> None:
        self._gap = max(self._gap, gap)

    def add(self, text: str | None) -> None:
        if not text:
            return
        if not self.kept:
            text = _SPACE.sub(" ", text)
            if self._gap or self._space:
                text = text.removeprefix(" ")
        if not text:
            return
        if self._gap and self.parts:
            self.parts[-1] = self.parts[-1].rstrip(" ")
            self.parts.append("\n" * self._gap)
        self._gap = 0
        self.parts.append(text)
        self._space = text.endswith((" ", "\n"))
