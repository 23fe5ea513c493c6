"""What can be wrong with a model directory, as far as it can be told without its model.

Which files a model directory may hold: data alone. A pickle runs code when it is read, so none may lie there.
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
# Protocols 2 to 5 open with PROTO and the protocol's number; 0 and 1 have no mark, and nothing here reads a file of
# an unknown kind.
_PICKLE_HEADS = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_PROGRAM_HEADS = (b"\x7fELF", b"MZ", b"#!", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")


def refusal_reason(path: Path) -> str | None:
    """Why a file may not lie in a model directory, or None: told by its name, then by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in _CODE:
        return "it is code, and no code of a model is ever run"
    if suffix in _PICKLES:
        return "it may be a pickle, which runs code when it is read; only safetensors and ONNX are read"
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(_PICKLE_HEADS):
        return "it is a pickle, which runs code when it is read; only safetensors and ONNX are read"
    if head.startswith(_PROGRAM_HEADS):
        return "it is a program, and no code of a model is ever run"
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        return "it is an archive, as PyTorch's pickles are; only safetensors and ONNX are read"
    return None


def find_refused_files(directory: Path) -> Iterator[ConfigurationError]:
    """An error (`refused_file`) for each file below a directory that may not lie there."""
    for path in sorted(directory.rglob("*")):
        try:
            reason = refusal_reason(path) if path.is_file() else None
        except OSError as error:
            reason = f"it cannot be read ({error.strerror})"
        if reason is not None:
            yield ConfigurationError("refused_file", f"{path}: {reason}. Remove it.")


# The shipped tables weigh 96.7 % of their vocabulary. A table of pieces that a small collection had may weigh few, one
# below this answers hardly any query.
MIN_COVERAGE = 0.05
# Of the shipped tables' 22,501 words all come out of the tokeniser as they went in.
MIN_REACHABLE = 0.9
_MAX_TRIED_WORDS = 1000


@dataclass(frozen=True, slots=True)
class QueryTableStatistics:
    """How a query table fits its tokeniser.

    `coverage` is the share of the vocabulary that has a weight, `reachable` the share of the weighted words (pieces of
    letters alone) that the tokeniser makes of their own text, `words` some of those.
    """

    coverage: float
    reachable: float
    words: tuple[str, ...]


def check_model_files(directory: Path, manifest: Manifest) -> Iterator[ConfigurationError]:
    """An error for each listed file that is missing or not the one that was listed."""
    for name in sorted(manifest.files):
        try:
            if Path(name).name != name:
                raise ConfigurationError("bad_manifest", f"{directory}: {name!r} is no name of a file beside it.")
            verify_file(directory, manifest, name)
        except ConfigurationError as error:
            yield error


def measure_query_table(table: QueryTable) -> QueryTableStatistics:
    """Tries up to 1,000 of the table's words, evenly from the heaviest to the lightest."""
    weighted = table.weighted_ids()
    words = {i: text for i in weighted if (text := table.piece(i)).isalpha()}
    step = -(-len(words) // _MAX_TRIED_WORDS) or 1
    tried = list(words.items())[::step]
    # In some tokenisers a word carries the space before it, so both forms count.
    reached = [text for i, text in tried if i in {*table.ids(text), *table.ids(f" {text}")}]
    return QueryTableStatistics(
        coverage=len(weighted) / table.manifest.vocabulary,
        reachable=len(reached) / len(tried) if tried else 0.0,
        words=tuple(reached),
    )


def check_query_table(directory: Path, facts: QueryTableStatistics) -> Iterator[ConfigurationError]:
    """Errors (`bad_query_table`) where the table is that of another tokeniser, or of another way to use it."""
    if facts.coverage < MIN_COVERAGE:
        yield ConfigurationError(
            "bad_query_table",
            f"{directory}: the query table weighs {facts.coverage:.1%} of the vocabulary, so that most queries find "
            "nothing: it is unfinished or another encoder's; export the encoder again with its own table.",
        )
    if facts.reachable < MIN_REACHABLE:
        yield ConfigurationError(
            "bad_query_table",
            f"{directory}: the tokeniser yields {facts.reachable:.1%} of the words that the query table weighs: it "
            "writes words in another way (case, accents) or is another model's; export the encoder with its own.",
        )
