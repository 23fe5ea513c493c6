"""Markdown, plain text and HTML: a file is a document, its name the id.

An HTML page as columns: its title, and its main text in reading order without scripts, styles and navigation.

A Markdown file as columns: its front matter, the first heading as title, the rest as it is written.

Transcripts in files: NAME.vtt, .json, .srt or .txt, with NAME.chapters.json and NAME.meta.json beside it.
"""

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from cli.loading.directories import FileEntry, FileSource, printable_name, walk_files
from cli.loading.source import (
    FORMATS_BY_SUFFIX,
    MAX_RECORD_BYTES,
    TEXT_FORMATS,
    DocumentMaker,
    FileFormat,
    detect_format,
    make_document,
)
from cli.loading.tabular import not_utf8
from services.documents.compressed_lines import open_content, split_suffixes
from services.errors import ConfigurationError, InvalidInput, require_extra

# An element takes about 360 bytes: 8 MiB of nothing but `<p>a` took 734 MB.
MAX_TAGS = 500_000
_DROPPED_ELEMENTS = {
    "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "embed", "canvas", "audio",
    "video", "nav", "head", "select", "textarea",
}  # fmt: skip
_PARAGRAPH_ELEMENTS = {
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "blockquote", "pre", "section", "article",
    "main", "header", "footer", "aside", "figure", "form", "hr",
}  # fmt: skip
_LINE_ELEMENTS = {
    "br", "div", "li", "tr", "dt", "dd", "caption", "figcaption", "address", "fieldset", "option", "legend",
    "summary", "details", "body",
}  # fmt: skip
_CELL_ELEMENTS = {"td", "th"}
_SPACE = re.compile(r"[ \t\r\n\f]+")


def read_html(text: str) -> dict[str, Any]:
    """Columns `title` (of <title>, else the first <h1>) and `text` (of the one <main>, else of the body).

    Raises InvalidInput (`bad_html`) for a page that the parser gives up, ConfigurationError (`missing_library`).
    """
    with require_extra("lxml", "read HTML"):
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
    return {"title": _extract_title(root), "text": _extract_text(start)}


def _extract_title(root: Any) -> str:
    for path in ("//head/title", "//title", "//h1"):
        for element in root.xpath(path):
            title = _SPACE.sub(" ", "".join(element.itertext())).strip()
            if title:
                return title
    return ""


def _extract_text(start: Any) -> str:
    from lxml import etree

    found = _TextBuilder()
    walker = etree.iterwalk(start, events=("start", "end"))
    for event, element in walker:
        tag = element.tag if isinstance(element.tag, str) else ""
        gap = 2 if tag in _PARAGRAPH_ELEMENTS else 1 if tag in _LINE_ELEMENTS else 0
        found.part(gap)
        if event == "start":
            if tag in _DROPPED_ELEMENTS or element.get("hidden") is not None or element.get("aria-hidden") == "true":
                walker.skip_subtree()
                continue
            if tag in _CELL_ELEMENTS:
                found.add(" ")
            found.kept += tag == "pre"
            found.add(element.text)
        else:
            if tag == "pre" and found.kept:
                found.kept -= 1
            if element is not start:
                found.add(element.tail)
    return "".join(found.parts).strip()


class _TextBuilder:
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


MAX_FRONT_MATTER_CHARACTERS = 64 * 1024  # characters; what is longer is no front matter
_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
# what a line of = or - may underline: no list, quotation or table
_PARAGRAPH = re.compile(r" {0,3}[^\s>|*+-]")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")


def read_markdown(text: str) -> dict[str, Any]:
    """Columns `title` and `text`, and one for each key of the front matter; a key `id` or `text` of it is called
    `front_matter.id` or `front_matter.text`. Raises InvalidInput (`bad_front_matter`), ConfigurationError
    (`missing_library`)."""
    front, body = _split_front_matter(text)
    title, body = _split_title(body)
    columns = {f"front_matter.{name}" if name in ("id", "text") else name: value for name, value in front.items()}
    return {"title": title, **columns, "text": body}


def _split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    found = _FRONT_MATTER.match(text, 0, MAX_FRONT_MATTER_CHARACTERS)
    if not found:
        return {}, text
    with require_extra("yaml", "read Markdown with front matter"):
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


def _split_title(body: str) -> tuple[str, str]:
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
                return heading[1], _drop_lines(lines, at, 1)
        elif _PARAGRAPH.match(before) and _SETEXT.match(line.rstrip("\r\n")):
            return before.strip(), _drop_lines(lines, at - 1, 2)
        before = "" if fence else line
    return "", body


def _drop_lines(lines: list[str], at: int, count: int) -> str:
    whole = "".join(lines)
    rest = "".join(lines[at + count :]).lstrip("\r\n")
    if "".join(lines[:at]).strip() or not rest.strip():
        return whole
    return rest


class TextSource(FileSource):
    """A directory, or files that were named one by one. Lines count files.

    The id of a file in a directory is its path below it, that of a named file the path that was given.
    """

    typed = True

    def __init__(self, root: Path | None, files: Sequence[Path] = (), given: FileFormat | None = None) -> None:
        """Looks at every file's size and time of change. Raises OSError."""
        self._format = given
        super().__init__(root, files)

    def _entries(self, skipped: Counter[str]) -> Iterator[FileEntry]:
        if self._root is not None:
            return walk_files(
                self._root, skipped, lambda path: FORMATS_BY_SUFFIX.get(split_suffixes(path)[0]) in TEXT_FORMATS
            )
        return (FileEntry(printable_name(path.as_posix()), path) for path in self._files)

    def _document(self, entry: FileEntry, make: DocumentMaker) -> bytes | InvalidInput:
        try:
            text = read_text(entry.path)
            match self._format or detect_format(entry.path):
                case FileFormat.markdown:
                    record = read_markdown(text)
                case FileFormat.html:
                    record = read_html(text)
                case _:
                    record = {"text": text}
        except ConfigurationError as error:
            if error.code == "missing_library":
                raise
            return InvalidInput(error.code, error.detail)
        except InvalidInput as error:
            return error
        if not str(record["text"]).strip():
            return InvalidInput("empty_file", "It has no text.")
        return make_document(make, {**record, "id": entry.name})


def read_text(path: Path) -> str:
    """All of a file. Raises InvalidInput (`file_too_large`, `not_utf8`, `not_text`, `damaged_file`)."""
    with open_content(path) as content:
        data = content.stream.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        raise InvalidInput("file_too_large", f"It has more than {MAX_RECORD_BYTES:,} bytes.")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        begin = data.rfind(b"\n", 0, error.start) + 1
        end = data.find(b"\n", error.start)
        line = data[begin : end if end >= 0 else None]
        raise not_utf8(data.count(b"\n", 0, error.start) + 1, error.start - begin, line) from None
    if "\0" in text:
        raise InvalidInput("not_text", "It holds NUL bytes: not text, or not in UTF-8.")
    return text


# Of several transcripts of one name the first of these is taken: they have times and speakers, times, neither.
TRANSCRIPT_MEDIA_TYPES = {
    ".vtt": "text/vtt",
    ".json": "application/json",
    ".srt": "application/x-subrip",
    ".txt": "text/plain",
}
CHAPTERS, META = ".chapters.json", ".meta.json"
_META_MEMBERS = ("title", "description", "duration", "url", "metadata", "version")


class TalkSource(FileSource):
    """A directory, or transcripts that were named one by one. Lines count talks.

    The id of a talk is the path of its transcript below the directory, or as it was given, without the ending.
    """

    typed = False

    def __init__(self, root: Path | None, files: Sequence[Path] = ()) -> None:
        """Looks at every file's size and time of change. Raises OSError, ConfigurationError (`unknown_format`)."""
        for path in files:
            if _transcript_name(path) is None:
                raise ConfigurationError(
                    "unknown_format",
                    f"{path} is no transcript: those end in {', '.join(TRANSCRIPT_MEDIA_TYPES)}.",
                )
        super().__init__(root, files)

    def _beside(self, path: Path) -> Iterable[Path]:
        return _companion_paths(path)

    def _document(self, entry: FileEntry, make: DocumentMaker) -> bytes | InvalidInput:
        return _make_talk(entry)

    def _entries(self, skipped: Counter[str]) -> Iterator[FileEntry]:
        if self._root is None:
            yield from (FileEntry(printable_name(path.as_posix()), path) for path in self._files)
            return
        for entry in walk_files(self._root, skipped, lambda path: path.suffix.lower() in TRANSCRIPT_MEDIA_TYPES):
            stem = _transcript_name(entry.path)
            if stem is None:
                if not any(
                    Path(f"{_companion_transcript(entry.path)}{ending}").exists() for ending in TRANSCRIPT_MEDIA_TYPES
                ):
                    skipped["chapters and meta files without a transcript"] += 1
            elif any(Path(f"{stem}{ending}").exists() for ending in _preferred_endings(entry.path.suffix.lower())):
                skipped["other transcripts of the same talk"] += 1
            else:
                yield entry


def _make_talk(entry: FileEntry) -> bytes | InvalidInput:
    """The JSON of a talk as the API takes it; the service reads what the transcript holds."""
    chapters, meta = _companion_paths(entry.path)
    document: dict[str, Any] = {"id": entry.name[: -len(entry.path.suffix)], "kind": "talk"}
    try:
        text = read_text(entry.path)
        if not text.strip():
            raise InvalidInput("empty_file", "It has no text.")
        document["transcript"] = {"type": TRANSCRIPT_MEDIA_TYPES[entry.path.suffix.lower()], "text": text}
        if chapters.exists():
            document["chapters"] = _read_json(chapters)
        if meta.exists():
            document |= _read_meta(meta)
        return orjson.dumps(document)
    except ConfigurationError as error:
        return InvalidInput(error.code, error.detail)
    except InvalidInput as error:
        return error


def _read_meta(path: Path) -> dict[str, Any]:
    value = _read_json(path)
    if not isinstance(value, dict) or (value.keys() - set(_META_MEMBERS)):
        raise InvalidInput("bad_meta", f"{path.name} must be an object with some of {', '.join(_META_MEMBERS)}.")
    return value


def _read_json(path: Path) -> Any:
    try:
        return orjson.loads(read_text(path))
    except orjson.JSONDecodeError as error:
        raise InvalidInput("invalid_json", f"{path.name} is not JSON: {error}.") from None
    except InvalidInput as error:
        raise InvalidInput(error.code, f"{path.name}: {error.detail}") from None


def _transcript_name(path: Path) -> str | None:
    """The path of a transcript without its ending; None for other files."""
    if path.suffix.lower() not in TRANSCRIPT_MEDIA_TYPES or path.name.lower().endswith((CHAPTERS, META)):
        return None
    return str(path)[: -len(path.suffix)]


def _companion_transcript(path: Path) -> str:
    ending = CHAPTERS if path.name.lower().endswith(CHAPTERS) else META
    return str(path)[: -len(ending)]


def _preferred_endings(ending: str) -> list[str]:
    """The endings of transcripts that are taken rather than this one."""
    return list(TRANSCRIPT_MEDIA_TYPES)[: list(TRANSCRIPT_MEDIA_TYPES).index(ending)]


def _companion_paths(path: Path) -> tuple[Path, Path]:
    stem = str(path)[: -len(path.suffix)]
    return Path(stem + CHAPTERS), Path(stem + META)
