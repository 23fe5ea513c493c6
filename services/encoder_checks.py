"""What can be wrong with a model directory, as far as it can be told without its model."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.errors import ConfigurationError
from services.manifest import Manifest, verified
from services.query_table import QueryTable

# The shipped tables weigh 96.7 % of their vocabulary. A table of pieces that a small collection had may weigh few, one
# below this answers hardly any query.
LEAST_COVERAGE = 0.05
# Of the shipped tables' 22,501 words all come out of the tokeniser as they went in.
LEAST_REACHABLE = 0.9
_WORDS_TRIED = 1000


@dataclass(frozen=True, slots=True)
class TableFacts:
    """How a query table fits its tokeniser.

    `coverage` is the share of the vocabulary that has a weight, `reachable` the share of the weighted words (pieces of
    letters alone) that the tokeniser makes of their own text, `words` some of those.
    """

    coverage: float
    reachable: float
    words: tuple[str, ...]


def file_problems(directory: Path, manifest: Manifest) -> Iterator[ConfigurationError]:
    """An error for each listed file that is missing or not the one that was listed."""
    for name in sorted(manifest.files):
        try:
            if Path(name).name != name:
                raise ConfigurationError("bad_manifest", f"{directory}: {name!r} is no name of a file beside it.")
            verified(directory, manifest, name)
        except ConfigurationError as error:
            yield error


def table_facts(table: QueryTable) -> TableFacts:
    """Tries up to 1,000 of the table's words, evenly from the heaviest to the lightest."""
    weighted = table.weighted_ids()
    words = {i: text for i in weighted if (text := table.piece(i)).isalpha()}
    step = -(-len(words) // _WORDS_TRIED) or 1
    tried = list(words.items())[::step]
    # In some tokenisers a word carries the space before it, so both forms count.
    reached = [text for i, text in tried if i in {*table.ids(text), *table.ids(f" {text}")}]
    return TableFacts(
        coverage=len(weighted) / table.manifest.vocabulary,
        reachable=len(reached) / len(tried) if tried else 0.0,
        words=tuple(reached),
    )


def table_problems(directory: Path, facts: TableFacts) -> Iterator[ConfigurationError]:
    """Errors (`bad_query_table`) where the table is that of another tokeniser, or of another way to use it."""
    if facts.coverage < LEAST_COVERAGE:
        yield ConfigurationError(
            "bad_query_table",
            f"{directory}: the query table weighs {facts.coverage:.1%} of the vocabulary, so that most queries find "
            "nothing: it is unfinished or another encoder's; export the encoder again with its own table.",
        )
    if facts.reachable < LEAST_REACHABLE:
        yield ConfigurationError(
            "bad_query_table",
            f"{directory}: the tokeniser yields {facts.reachable:.1%} of the words that the query table weighs: it "
            "writes words in another way (case, accents) or is another model's; export the encoder with its own.",
        )
