"""Rules held against the index that they are for, before they are stored."""

import orjson

from services.curation.boosts import checked_boosts
from services.curation.rules import MAX_BYTES, Rules
from services.errors import InvalidInput, TooLarge
from services.filters.reading import FilterLimits
from services.index_spec import Generation
from services.query_table import QueryTable

# Of one text that is added to a query. Eight words have far fewer; what has more is no words to this encoder.
MAX_PIECES = 64


def checked_rules(rules: Rules, generation: Generation, table: QueryTable, limits: FilterLimits) -> None:
    """Raises TooLarge (`curation_too_large`) and InvalidInput (`bad_curation`, and of boosts what a filter raises) with
    `where` the first fault is.
    """
    checked_boosts(rules, generation.spec.fields, limits)
    if rules.fields.title != 1 and not generation.titles:
        raise _bad(
            "fields.title",
            "this generation of the index was made before titles had words of their own: `sparsewell reindex "
            f"{generation.index}` builds one that has",
        )
    size = _size(rules)
    if size > MAX_BYTES:
        raise TooLarge("curation_too_large", f"Rules may have {MAX_BYTES:,} bytes of JSON; these have {size:,}.")
    for i, synonym in enumerate(rules.synonyms):
        for text in (*synonym.words, *synonym.to):
            _few_pieces(text, table, f"synonyms.{i}")
    for i, term in enumerate(rules.terms):
        _few_pieces(term.term, table, f"terms.{i}")
        if term.weight is not None and not table.word_ids(term.term):
            raise _bad(f"terms.{i}", f"this index's encoder has no piece for {term.term!r}: there is nothing to weigh")


def _size(rules: Rules) -> int:
    try:
        return len(orjson.dumps(rules.stored()))
    except TypeError:  # of a filter, the one part that may hold any number
        raise _bad("boosts", "a filter has a number of more digits than can be stored") from None


def _few_pieces(text: str, table: QueryTable, where: str) -> None:
    found = len(table.ids(text))
    if found > MAX_PIECES:
        raise _bad(where, f"{text[:80]!r} has {found} pieces for this index's encoder, and {MAX_PIECES} may be added")


def _bad(where: str, what: str) -> InvalidInput:
    return InvalidInput("bad_curation", f"{where}: {what}.", where=where)
