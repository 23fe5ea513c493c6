"""Parquet, by row groups and a few rows of them at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli.loading.source import Make, Place, Row, distinct, file_identity, made
from services.content import damage
from services.errors import InvalidInput
from services.extra import needs

# Rows of a group that are turned into Python values together, and bytes that are read of a column at a time: without
# the second, a row group is held whole.
_ROWS = 64
_BUFFER_BYTES = 1024**2


class Parquet:
    """A row is a document; rows count from 1. Only columns that go somewhere are read."""

    typed = True

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError (`missing_library`)."""
        with needs("pyarrow", "read or write Parquet"):
            import pyarrow.parquet  # noqa: F401
        self.path = path
        self.name = str(path)
        self.size = path.stat().st_size
        self._done = 0.0

    def identity(self) -> str:
        return file_identity(self.path)

    def notes(self) -> list[str]:
        return []

    def read(self) -> int:
        return int(self.size * self._done)

    def columns(self) -> list[str]:
        """Raises InvalidInput (`damaged_file`, `duplicate_column`)."""
        with self._open() as file:
            return distinct(file.schema_arrow.names, self.name)

    def rows(self, start: Place, make: Make) -> Iterator[Row]:
        with self._open() as file:
            wanted = [name for name in distinct(file.schema_arrow.names, self.name) if make.wants(name)]
            last = 0
            for group in range(file.metadata.num_row_groups):
                first, last = last, last + file.metadata.row_group(group).num_rows
                if last <= start.line:
                    continue
                number = first
                for batch in file.iter_batches(_ROWS, row_groups=[group], columns=wanted):
                    if number + batch.num_rows <= start.line:
                        number += batch.num_rows
                        continue
                    for record in self._records(batch):
                        number += 1
                        if number > start.line:
                            yield Row(number, made(make, record), number, 0)
                    self._done = number / max(1, file.metadata.num_rows)

    def _records(self, batch: Any) -> Iterator[dict[str, Any]]:
        try:
            columns = {name: _values(batch.column(name)) for name in batch.schema.names}
        except (ValueError, OverflowError) as error:  # a moment that Python has no name for, text that is none
            raise InvalidInput("damaged_file", f"{self.path} holds a value that cannot be read: {error}.") from None
        for at in range(batch.num_rows):
            yield {name: values[at] for name, values in columns.items()}

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with damage(self.path):
            try:
                with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
                    yield file
            except pa.ArrowException as error:
                raise InvalidInput("damaged_file", f"{self.path} is damaged: {str(error)[:300]}.") from None


def _values(column: Any) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    values: list[Any] = column.to_pylist()
    return values
