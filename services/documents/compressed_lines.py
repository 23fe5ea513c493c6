"""Compressed files: gzip, bzip2, xz and zstd, decompressed while they are read, in lines of bounded length.

Memory is bounded: 192 MiB for decompression (`xz -9` needs 65 MiB, `zstd --ultra -22` 128 MiB), and lines above a
limit are skipped without being held. A damaged file raises InvalidInput (`damaged_file`).
"""

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
# The header of an archive sets the memory for decompression: `xz -9` needs 65 MiB, `zstd --ultra -22` 128 MiB.
MAX_MEMORY_BYTES = 192 * 1024**2
_MAX_WINDOW_LOG = 27  # log2 of zstd's largest window in bytes


@dataclass(frozen=True, slots=True)
class DecompressedFile:
    """Open file. `stream` reads and seeks in the decompressed bytes; `raw` is the file itself."""

    stream: BinaryIO
    raw: BinaryIO


def split_suffixes(path: Path) -> tuple[str, str]:
    """Return the suffixes of the format and of the compression, in lower case; empty for none."""
    last = path.suffix.lower()
    if last in COMPRESSIONS:
        return Path(path.stem).suffix.lower(), last
    return last, ""


@contextmanager
def open_content(path: Path) -> Iterator[DecompressedFile]:
    """Open a file for reading as a context manager.

    Inside the `with`, a read error becomes InvalidInput (`damaged_file`) for damaged content, or ConfigurationError
    (`unreadable_file`) for an error of the operating system.
    """
    with translate_read_errors(path), path.open("rb") as raw:
        match split_suffixes(path)[1]:
            case ".gz":
                stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw))
            case ".bz2":
                stream = cast(BinaryIO, bz2.BZ2File(raw))
            case ".xz":
                stream = _open_decompressed(raw, lambda: lzma.LZMADecompressor(memlimit=MAX_MEMORY_BYTES))
            case ".zst":
                stream = _open_decompressed(raw, _zstd_decompressor())
            case _:
                stream = raw
        yield DecompressedFile(stream, raw)


@contextmanager
def translate_read_errors(path: Path) -> Iterator[None]:
    """Translate the exceptions of reading a file as `open_content` describes."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise InvalidInput("damaged_file", f"{path} is damaged: {error}.") from None
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report bad content with a plain OSError
            raise InvalidInput("damaged_file", f"{path} is damaged: {error}.") from None
        raise ConfigurationError("unreadable_file", f"{path} cannot be read: {error.strerror}.") from None


def read_lines(
    content: DecompressedFile, line: int, offset: int, limit: int
) -> Iterator[tuple[int, bytes | None, int]]:
    """Yield the lines after number `line` and byte `offset` as (number, bytes with line end, offset after the line).

    The bytes are None for a line of more than `limit` bytes, which is skipped without being held.
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
    """Stream of concatenated archives, decompressed in chunks. A truncated archive raises EOFError.

    The standard library's reader for xz accepts no memory limit.
    """

    def __init__(self, raw: BinaryIO, make_decompressor: Callable[[], _Decompressor]) -> None:
        self._raw = raw
        self._make_decompressor = make_decompressor
        self._restart()

    def _restart(self) -> None:
        self._decompressor = self._make_decompressor()
        self._has_input = False
        self._position = 0
        self._leftover = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only SEEK_SET is supported")
        if offset < self._position:
            self._raw.seek(0)
            self._restart()
        while self._position < offset and self._read(min(_CHUNK_BYTES, offset - self._position)):
            pass
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the base class takes any buffer
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _read(self, size: int) -> bytes:
        while True:
            if self._decompressor.eof:
                self._leftover = self._decompressor.unused_data or self._raw.read(_CHUNK_BYTES)
                if not self._leftover:
                    return b""
                self._decompressor, self._has_input = self._make_decompressor(), False
            chunk = self._leftover
            if not chunk and self._decompressor.needs_input:
                chunk = self._raw.read(_CHUNK_BYTES)
                if not chunk:
                    if not self._has_input:
                        return b""
                    raise EOFError("it is truncated")
            self._leftover = b""
            self._has_input = True
            data = self._decompressor.decompress(chunk, size)
            if data:
                self._position += len(data)
                return data


def _open_decompressed(raw: BinaryIO, make_decompressor: Callable[[], _Decompressor]) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_DecompressingReader(raw, make_decompressor), _CHUNK_BYTES))


def _zstd_decompressor() -> Callable[[], _Decompressor]:
    with require_extra("backports.zstd", "read or write a .zst file"):
        from backports import zstd

    class Zstd:
        """Decompressor that raises EOFError in place of ZstdError, for `translate_read_errors`."""

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
