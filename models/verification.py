"""Whether a model directory is whole and would serve: its files, its query table, its graph, and one encoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from models.decoder_checks import decoder_problems
from models.registry import DECODER, load_encoder
from services.encoder_checks import TableFacts, file_problems, table_facts, table_problems
from services.errors import ConfigurationError, SparsewellError
from services.manifest import MANIFEST, has_manifest, read_manifest
from services.model_files import refused_files
from services.query_table import QueryTable

# Words of the table in the text that is encoded to see whether the model gives anything.
_SMOKE_WORDS = 40


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found: `problems` is empty for an encoder that is whole.

    `own_words` is how many of `words` words of a text the model weighed in its vector: a trained encoder weighs nearly
    all of them. It is told, not judged.
    """

    problems: list[SparsewellError] = field(default_factory=list)
    table: TableFacts | None = None
    own_words: int = 0
    words: int = 0


def verify(directory: Path) -> Verdict:
    """Every check that the state of the directory allows; a later one is left out where its ground is missing.

    Raises ConfigurationError (`missing_extra`) where the packages that load a model are not installed.
    """
    if not has_manifest(directory):
        # Any folder may be named: what else is in it is not ours to judge.
        return Verdict(
            [
                ConfigurationError(
                    "bad_manifest",
                    f"{directory} has no {MANIFEST}: it is no model directory; `sparsewell encoders export` makes one.",
                )
            ]
        )
    problems: list[SparsewellError] = list(refused_files(directory))
    try:
        manifest = read_manifest(directory)
    except ConfigurationError as error:
        return Verdict([*problems, error])
    found = list(file_problems(directory, manifest))
    if problems or found:
        # Nothing is opened of a directory in which a file was changed.
        return Verdict([*problems, *found])
    try:
        table = QueryTable.load(directory)
        facts = table_facts(table)
        problems += table_problems(directory, facts)
        if "model.onnx" in manifest.files:
            from models.onnx_checks import graph_problems

            problems += graph_problems(directory, manifest)
        if manifest.architecture == DECODER:
            problems += decoder_problems(directory, manifest)
        if problems:
            return Verdict(problems, facts)
        own, words = _encodes(directory, table, facts)
    except SparsewellError as error:
        return Verdict([*problems, error])
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "missing_extra", f"Loading {directory} needs the package {error.name}: pip install -e '.[worker]'."
        ) from None
    return Verdict([], facts, own, words)


def _encodes(directory: Path, table: QueryTable, facts: TableFacts) -> tuple[int, int]:
    """Encodes a text of the table's own words; how many of them the vector weighs, and how many there are.

    Raises SparsewellError where the encoder cannot be loaded, gives NaN or infinity, or gives nothing at all.
    """
    step = len(facts.words) // _SMOKE_WORDS + 1
    words = facts.words[::step]
    encoder = load_encoder(str(directory), threads=1)
    vectors = encoder.encode(encoder.windows(" ".join(words)))
    weighed = {piece for vector in vectors for piece in vector.ids.tolist()}
    if not weighed:
        raise ConfigurationError(
            "bad_model",
            f"{directory}: the model gave no weight to any piece of a text of {len(words)} words: it is untrained or "
            "damaged; export it again from its checkpoint.",
        )
    return sum(1 for word in words if weighed & set(table.ids(word))), len(words)
