"""Sources whose documents are text files: HTML, Markdown, plain text, and transcripts of talks.

The id of a document is the path of its file. HTML gives a title and the main text without scripts, styles and
navigation. Markdown gives its front matter, the first heading as title, and the rest unchanged. A talk is a transcript
NAME.vtt, .json, .srt or .txt, with optional companion files NAME.chapters.json and NAME.meta.json.
"""

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import orjson

from cli.loading.directories import FileEntry, FileSource, is_inside, printable_name, walk_files
from cli.loading.source import (
    FORMATS_BY_SUFFIX,
    FRONT_MATTER_PREFIX,
    MAX_RECORD_BYTES,
    TEXT_FORMATS,
    DocumentMaker,
    FileFormat,
    detect_format,
    make_document,
)
from cli.loading.tabular import describe_foreign_form, not_utf8
from services.documents.compressed_lines import open_content, split_suffixes
from services.errors import ConfigurationError, InvalidInput, require_extra

# An element takes about 360 bytes of memory: 8 MiB of `<p>a` took 734 MB.
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
MAX_FRONT_MATTER_CHARACTERS = 64 * 1024  # a longer block is text
_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}#{1,6}[ \t]++(.*)")
# A line that = or - may underline as a heading: not a list, quotation or table.
_PARAGRAPH = re.compile(r" {0,3}[^\s>|*+-]")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
# In the order of preference for transcripts of the same name: times and speakers, then times only, then neither.
TRANSCRIPT_MEDIA_TYPES = {
    ".vtt": "text/vtt",
    ".json": "application/json",
    ".srt": "application/x-subrip",
    ".txt": "text/plain",
}
CHAPTERS = ".chapters.json"
META = ".meta.json"
# Keys of the front matter that are not members of the document.
_MEMBER_KEYS = ("id", "text", "version", "kind", "metadata")
_META_MEMBERS = ("title", "description", "duration", "url", "metadata", "version")


class TextSource(FileSource):
    """HTML, Markdown and plain text: a directory, or files given by name. Line numbers count files.

    The id of a document is its path below the directory, or the path of the argument.
    """

    typed = True

    def __init__(self, root: Path | None, files: Sequence[Path] = (), format_option: FileFormat | None = None) -> None:
        """Read size and modification time of every file. Raises OSError."""
        self._format = format_option
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
            return InvalidInput("empty_file", "The file has no text.")
        return make_document(make, {**record, "id": entry.name})


class TalkSource(FileSource):
    """Transcripts: a directory, or files given by name. Line numbers count talks.

    The id of a talk is the path of its transcript below the directory, or of the argument, without the suffix.
    """

    typed = False

    def __init__(self, root: Path | None, files: Sequence[Path] = ()) -> None:
        """Read size and modification time of every file. Raises OSError, ConfigurationError (`unknown_format`)."""
        for path in files:
            if _transcript_name(path) is None:
                raise ConfigurationError(
                    "unknown_format",
                    f"{path} is not a transcript: its suffix is not one of {', '.join(TRANSCRIPT_MEDIA_TYPES)}.",
                )
        super().__init__(root, files)

    def _companions(self, path: Path) -> Iterable[Path]:
        root = (self._root or path.parent).resolve()
        return (companion for companion in _companion_paths(path) if is_inside(root, companion))

    def _id(self, entry: FileEntry) -> str:
        return entry.name[: -len(entry.path.suffix)]

    def _document(self, entry: FileEntry, make: DocumentMaker) -> bytes | InvalidInput:
        return _make_talk(self._id(entry), entry.path, set(self._companions(entry.path)))

    def _entries(self, skipped: Counter[str]) -> Iterator[FileEntry]:
        if self._root is None:
            yield from (FileEntry(printable_name(path.as_posix()), path) for path in self._files)
            return
        for entry in walk_files(self._root, skipped, lambda path: path.suffix.lower() in TRANSCRIPT_MEDIA_TYPES):
            stem = _transcript_name(entry.path)
            if stem is None:
                owner = _companion_transcript(entry.path)
                if not any(Path(f"{owner}{suffix}").exists() for suffix in TRANSCRIPT_MEDIA_TYPES):
                    skipped["chapters and meta files without a transcript"] += 1
            elif any(Path(f"{stem}{suffix}").exists() for suffix in _preferred_suffixes(entry.path.suffix.lower())):
                skipped["other transcripts of the same talk"] += 1
            else:
                yield entry


def _make_talk(talk_id: str, path: Path, companions: Set[Path]) -> bytes | InvalidInput:
    """Return the JSON of a talk for the API. The service parses the transcript."""
    chapters, meta = _companion_paths(path)
    document: dict[str, Any] = {"id": talk_id, "kind": "talk"}
    try:
        text = read_text(path)
        if not text.strip():
            raise InvalidInput("empty_file", "The file has no text.")
        document["transcript"] = {"type": TRANSCRIPT_MEDIA_TYPES[path.suffix.lower()], "text": text}
        if chapters in companions and chapters.exists():
            document["chapters"] = _read_json(chapters)
        if meta in companions and meta.exists():
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
    """Return the path of a transcript without its suffix; None for other files."""
    if path.suffix.lower() not in TRANSCRIPT_MEDIA_TYPES or path.name.lower().endswith((CHAPTERS, META)):
        return None
    return str(path)[: -len(path.suffix)]


def _companion_transcript(path: Path) -> str:
    """Return the path of a companion's transcript without its suffix."""
    suffix = CHAPTERS if path.name.lower().endswith(CHAPTERS) else META
    return str(path)[: -len(suffix)]


def _preferred_suffixes(suffix: str) -> list[str]:
    """Return the suffixes of transcripts that are preferred to this one."""
    return list(TRANSCRIPT_MEDIA_TYPES)[: list(TRANSCRIPT_MEDIA_TYPES).index(suffix)]


def _companion_paths(path: Path) -> tuple[Path, Path]:
    stem = str(path)[: -len(path.suffix)]
    return Path(stem + CHAPTERS), Path(stem + META)


def read_text(path: Path) -> str:
    """Read a whole text file. Raises InvalidInput (`file_too_large`, `not_utf8`, `not_text`, `damaged_file`)."""
    with open_content(path) as content:
        data = content.stream.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        raise InvalidInput("file_too_large", f"The file has more than {MAX_RECORD_BYTES:,} bytes.")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        begin = data.rfind(b"\n", 0, error.start) + 1
        end = data.find(b"\n", error.start)
        line = data[begin : end if end >= 0 else None]
        raise not_utf8(data.count(b"\n", 0, error.start) + 1, error.start - begin, line) from None
    if "\0" in text:
        hint = describe_foreign_form(data) or "it is not text, or not in UTF-8"
        raise InvalidInput("not_text", f"The file has NUL bytes: {hint}.")
    return text


def read_markdown(text: str) -> dict[str, Any]:
    """Read the columns `title`, `text` and one for each key of the front matter.

    The keys `id`, `text` and `version` of the front matter become `front_matter.id` and so on: the version of a page is
    not the version of its document, which a page with `version: 3` could never change again. Raises InvalidInput
    (`bad_front_matter`), ConfigurationError (`missing_library`).
    """
    front, body = _split_front_matter(text)
    title, body = _split_title(body)
    columns = {f"{FRONT_MATTER_PREFIX}{name}" if name in _MEMBER_KEYS else name: value for name, value in front.items()}
    return {"title": title, **columns, "text": body}


def _split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    match = _FRONT_MATTER.match(text, 0, MAX_FRONT_MATTER_CHARACTERS)
    if not match:
        return {}, text
    with require_extra("yaml", "read Markdown with front matter"):
        import yaml
    try:
        # Aliases can expand a few lines to gigabytes.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(match[1], yaml.SafeLoader)):
            raise InvalidInput("bad_front_matter", "The front matter uses an alias (*name), which is not supported.")
        front = yaml.safe_load(match[1])
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 2}" if mark else ""
        problem = getattr(error, "problem", None) or type(error).__name__
        raise InvalidInput("bad_front_matter", f"The front matter is not YAML{where}: {problem}.") from None
    if front is None:
        front = {}
    if not isinstance(front, dict):
        # a paragraph between two horizontal rules
        return {}, text
    return {str(name): value for name, value in front.items()}, text[match.end() :]


def _split_title(body: str) -> tuple[str, str]:
    """Return the first heading and the text. The text loses the heading if only white space comes before it."""
    lines = body.splitlines(keepends=True)
    fence, before = "", ""
    for number, line in enumerate(lines):
        mark = _FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1].startswith(fence) and not line[mark.end() :].strip() else fence
        elif mark:
            fence = mark[1]
        elif heading := _ATX.match(line.rstrip("\r\n")):
            if title := _drop_closing_hashes(heading[1]):
                return title, _drop_lines(lines, number, 1)
        elif _PARAGRAPH.match(before) and _SETEXT.match(line.rstrip("\r\n")):
            return before.strip(), _drop_lines(lines, number - 1, 2)
        before = "" if fence else line
    return "", body


def _drop_closing_hashes(heading: str) -> str:
    """Return the text of a Markdown heading without the hashes that may close it: "Title ##"."""
    text = heading.rstrip(" \t")
    rest = text.rstrip("#")
    return rest.rstrip(" \t") if not rest or rest[-1] in " \t" else text


def _drop_lines(lines: list[str], start: int, count: int) -> str:
    rest = "".join(lines[start + count :]).lstrip("\r\n")
    if "".join(lines[:start]).strip() or not rest.strip():
        return "".join(lines)
    return rest


def read_html(text: str) -> dict[str, Any]:
    """Read the columns `title` (of <title>, else the first <h1>) and `text` (of a single <main>, else of the body).

    Raises InvalidInput (`bad_html`) for a page that cannot be parsed, ConfigurationError (`missing_library`).
    """
    with require_extra("lxml", "read HTML"):
        from lxml import etree
    if text.count("<") > MAX_TAGS:
        raise InvalidInput("bad_html", f"The page has more than {MAX_TAGS:,} tags.")
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True)
    try:
        root = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as error:
        if not text.strip():
            return {"title": "", "text": ""}
        raise InvalidInput("bad_html", f"The page cannot be read as HTML: {error.msg}.") from None
    # The parser stops at 256 nested elements and reports it only in its log.
    fatal = next((entry for entry in parser.error_log if entry.level_name == "FATAL"), None)
    if fatal is not None:
        raise InvalidInput("bad_html", f"The page cannot be read as HTML: line {fatal.line}: {fatal.message.strip()}.")
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

    builder = _TextBuilder()
    walker = etree.iterwalk(start, events=("start", "end"))
    for event, element in walker:
        tag = element.tag if isinstance(element.tag, str) else ""
        gap = 2 if tag in _PARAGRAPH_ELEMENTS else 1 if tag in _LINE_ELEMENTS else 0
        builder.separate(gap)
        if event == "start":
            if tag in _DROPPED_ELEMENTS or element.get("hidden") is not None or element.get("aria-hidden") == "true":
                walker.skip_subtree()
                continue
            if tag in _CELL_ELEMENTS:
                builder.add(" ")
            builder.pre_depth += tag == "pre"
            builder.add(element.text)
        else:
            if tag == "pre" and builder.pre_depth:
                builder.pre_depth -= 1
            if element is not start:
                builder.add(element.tail)
    return "".join(builder.parts).strip()


class _TextBuilder:
    """Text as a browser shows it: white space is collapsed, except in `pre`."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.pre_depth = 0
        self._gap = 0
        self._space = True

    def separate(self, gap: int) -> None:
        """Put at least `gap` line breaks before the next text."""
        self._gap = max(self._gap, gap)

    def add(self, text: str | None) -> None:
        """Append text."""
        if not text:
            return
        if not self.pre_depth:
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
