"""The bytes of a file, decompressed as they are read, in lines of bounded length."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from services.errors import ConfigurationError, InvalidInput, require_extra

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_CHUNK_BYTES = 64 * 1024
# An archive names the memory that unpacking it takes; `xz -9` needs 65 MiB, `zstd --ultra -22` 128 MiB.
MOST_MEMORY = 192 * 1024**2
_MAX_WINDOW_LOG = 27  # of zstd, as a power of two


@dataclass(frozen=True, slots=True)
class DecompressedFile:
    """`stream` gives uncompressed bytes and seeks in them; `raw` is the file."""

    stream: BinaryIO
    raw: BinaryIO


def split_suffixes(path: Path) -> tuple[str, str]:
    """The suffix that tells the format and the one that tells the compression, in lower case, empty for none."""
    last = path.suffix.lower()
    if last in COMPRESSIONS:
        return Path(path.stem).suffix.lower(), last
    return last, ""


@contextmanager
def open_content(path: Path) -> Iterator[DecompressedFile]:
    """Opens a file for reading. What goes wrong inside the `with` with the file comes out as our errors: InvalidInput
    (`damaged_file`) for what will never be readable, ConfigurationError (`unreadable_file`) for what may be."""
    with translate_read_errors(path), path.open("rb") as raw:
        match split_suffixes(path)[1]:
            case ".gz":
                stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw))
            case ".bz2":
                stream = cast(BinaryIO, bz2.BZ2File(raw))
            case ".xz":
                stream = _open_decompressed(raw, lambda: lzma.LZMADecompressor(memlimit=MOST_MEMORY))
            case ".zst":
                stream = _open_decompressed(raw, _zstd())
            case _:
                stream = raw
        yield DecompressedFile(stream, raw)


@contextmanager
def translate_read_errors(path: Path) -> Iterator[None]:
    """Translates what reading a file raises."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise InvalidInput("damaged_file", f"{path} is damaged: {error}.") from None
    except OSError as error:
        if error.errno is None:  # how gzip and bz2 say that it is none of theirs
            raise InvalidInput("damaged_file", f"{path} is damaged: {error}.") from None
        raise ConfigurationError("unreadable_file", f"{path} cannot be read: {error.strerror}.") from None


def read_lines(
    content: DecompressedFile, line: int, offset: int, limit: int
) -> Iterator[tuple[int, bytes | None, int]]:
    """Lines after number `line` and byte `offset` as (number, bytes with their end, offset after it).

    None stands for a line of more than `limit` bytes, which is passed over without being held.
    """
    stream = content.stream
    stream.seek(offset)
    while data := stream.readline(limit + 1):
        line += 1
        offset += len(data)
        if len(data) <= limit:
            yield line, data, offset
            continue
        while not data.endswith(b"\n") and (data := stream.readline(_CHUNK_BYTES)):
            offset += len(data)
        yield line, None, offset


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _DecompressingReader(io.RawIOBase):
    """A stream of archives one after the other, unpacked a little at a time; a cut one raises EOFError.

    The standard library has such a reader for xz, but it takes no limit on memory.
    """

    def __init__(self, raw: BinaryIO, make: Callable[[], _Decompressor]) -> None:
        self._raw = raw
        self._make = make
        self._restart()

    def _restart(self) -> None:
        self._part = self._make()
        self._begun = False
        self._at = 0
        self._left = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("seeks from the beginning only")
        if offset < self._at:
            self._raw.seek(0)
            self._restart()
        while self._at < offset and self._read(min(_CHUNK_BYTES, offset - self._at)):
            pass
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _read(self, size: int) -> bytes:
        while True:
            if self._part.eof:
                self._left = self._part.unused_data or self._raw.read(_CHUNK_BYTES)
                if not self._left:
                    return b""
                self._part, self._begun = self._make(), False
            given = self._left
            if not given and self._part.needs_input:
                given = self._raw.read(_CHUNK_BYTES)
                if not given:
                    if not self._begun:
                        return b""
                    raise EOFError("it ends before its end mark")
            self._left = b""
            self._begun = True
            data = self._part.decompress(given, size)
            if data:
                self._at += len(data)
                return data


def _open_decompressed(raw: BinaryIO, make: Callable[[], _Decompressor]) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_DecompressingReader(raw, make), _CHUNK_BYTES))


def _zstd() -> Callable[[], _Decompressor]:
    with require_extra("backports.zstd", "read or write a .zst file"):
        from backports import zstd

    class Zstd:
        """zstd's own error is none of those that `damage` knows."""

        def __init__(self) -> None:
            self._inner = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})

        @property
        def eof(self) -> bool:
            return self._inner.eof

        @property
        def needs_input(self) -> bool:
            return self._inner.needs_input

        @property
        def unused_data(self) -> bytes:
            return self._inner.unused_data

        def decompress(self, data: bytes, max_length: int = -1) -> bytes:
            try:
                return self._inner.decompress(data, max_length)
            except zstd.ZstdError as error:
                raise EOFError(str(error)) from None

    return Zstd
