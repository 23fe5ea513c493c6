"""Checks of a model directory that need no model: allowed files, checksums, and how the query table fits the tokeniser.

A model directory holds data only. Pickles and code are refused, because reading a pickle runs code.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.encoders.manifest import Manifest, verify_file
from services.encoders.query_table import QueryTable
from services.errors import ConfigurationError

_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack"})
_CODE = frozenset({".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".ps1", ".jar", ".class"})
# Pickle protocols 2 to 5 begin with PROTO and the protocol number. Protocols 0 and 1 have no mark, but no code here
# reads files of an unknown kind.
_PICKLE_HEADS = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_PROGRAM_HEADS = (b"\x7fELF", b"MZ", b"#!", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")

# The shipped tables weight 96.7 % of their vocabulary. A table from a small collection may weight few pieces, but
# below this share hardly any query finds anything.
MIN_COVERAGE = 0.05
# The tokeniser of the shipped tables reproduces all of their 22,501 words.
MIN_REACHABLE = 0.9
_MAX_TRIED_WORDS = 1000


def check_model_files(directory: Path, manifest: Manifest) -> Iterator[ConfigurationError]:
    """Yield an error for each listed file that is missing or has changed."""
    for name in sorted(manifest.files):
        try:
            if Path(name).name != name:
                raise ConfigurationError("bad_manifest", f"{directory}: {name!r} is not a file name in this directory.")
            verify_file(directory, manifest, name)
        except ConfigurationError as error:
            yield error


def find_refused_files(directory: Path) -> Iterator[ConfigurationError]:
    """Yield an error (`refused_file`) for each file below a directory that is not allowed there."""
    for path in sorted(directory.rglob("*")):
        try:
            reason = refusal_reason(path) if path.is_file() else None
        except OSError as error:
            reason = f"it cannot be read ({error.strerror})"
        if reason is not None:
            yield ConfigurationError("refused_file", f"{path}: {reason}. Remove it.")


def refusal_reason(path: Path) -> str | None:
    """Return why a file is not allowed in a model directory, by its name or its first bytes, or None."""
    suffix = path.suffix.lower()
    if suffix in _CODE:
        return "it is code, and code of a model is never run"
    if suffix in _PICKLES:
        return "it may be a pickle, which runs code when it is read; only safetensors and ONNX are read"
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(_PICKLE_HEADS):
        return "it is a pickle, which runs code when it is read; only safetensors and ONNX are read"
    if head.startswith(_PROGRAM_HEADS):
        return "it is a program, and code of a model is never run"
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        return "it is an archive like PyTorch's pickles; only safetensors and ONNX are read"
    return None


@dataclass(frozen=True, slots=True)
class QueryTableStatistics:
    """The fit of a query table to its tokeniser.

    `coverage`: share of the vocabulary with a weight. `reachable`: share of the weighted words (pieces of letters only)
    that the tokeniser reproduces from their text. `words`: a sample of these.
    """

    coverage: float
    reachable: float
    words: tuple[str, ...]


def measure_query_table(table: QueryTable) -> QueryTableStatistics:
    """Measure a table with up to 1,000 of its words, evenly from the heaviest to the lightest."""
    weighted = table.weighted_ids()
    words = {i: text for i in weighted if (text := table.piece(i)).isalpha()}
    step = -(-len(words) // _MAX_TRIED_WORDS) or 1
    tried = list(words.items())[::step]
    # Some tokenisers include the preceding space in a word, so both forms count.
    reached = [text for i, text in tried if i in {*table.ids(text), *table.ids(f" {text}")}]
    return QueryTableStatistics(
        coverage=len(weighted) / table.manifest.vocabulary,
        reachable=len(reached) / len(tried) if tried else 0.0,
        words=tuple(reached),
    )


def check_query_table(directory: Path, statistics: QueryTableStatistics) -> Iterator[ConfigurationError]:
    """Yield errors (`bad_query_table`) if the table belongs to another tokeniser or is incomplete."""
    if statistics.coverage < MIN_COVERAGE:
        yield ConfigurationError(
            "bad_query_table",
            f"{directory}: the query table has weights for {statistics.coverage:.1%} of the vocabulary, so most "
            "queries find nothing: it is incomplete or another encoder's; export the encoder again with its own table.",
        )
    if statistics.reachable < MIN_REACHABLE:
        yield ConfigurationError(
            "bad_query_table",
            f"{directory}: the tokeniser yields {statistics.reachable:.1%} of the words in the query table: it treats "
            "case or accents differently or is another model's; export the encoder with its own.",
        )
