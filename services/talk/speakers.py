"""Names that stand before what is said: `Anna: Good morning.`"""

import re
from collections import Counter
from collections.abc import Sequence

from services.talk.row import Row

# One to four words of at most 40 characters, the first of them with a capital where its script has such.
_PREFIX = re.compile(r"([^\W\d_][\w.'’-]*(?: [\w.'’()-]+){0,3}) ?[:：] ?(?=\S)")
_LONGEST = 40
# A transcript with names has one before nearly every paragraph, or (subtitles) wherever another begins to speak.
_NEARLY_ALL = 0.8


def without_prefixes(rows: Sequence[Row]) -> list[Row]:
    """The rows with names taken from their texts, where names are consistently there; otherwise as they are.

    Consistent: the first row has one, and either four of five rows do, or four of five of the names come again. A row
    without a name is said by the one before it.
    """
    found = [_prefix(row.text) for row in rows]
    names = Counter(name for name, _ in found if name)
    prefixed = sum(names.values())
    if prefixed < 2 or not found[0][0]:
        return list(rows)
    if prefixed < _NEARLY_ALL * sum(1 for row in rows if row.text):
        again = {name for name, count in names.items() if count > 1}
        if sum(names[name] for name in again) < _NEARLY_ALL * prefixed or found[0][0] not in again:
            return list(rows)
        names = Counter({name: names[name] for name in again})
    speaker, changed = "", []
    for row, (name, length) in zip(rows, found, strict=True):
        said = name in names
        speaker = name if said else speaker
        changed.append(
            Row(row.text[length:] if said else row.text, row.start, row.end, speaker, row.sent, row.ends_paragraph)
        )
    return changed


def _prefix(text: str) -> tuple[str, int]:
    """A name and how many characters it takes with its colon; empty where there is none."""
    match = _PREFIX.match(text[: _LONGEST + 3])
    if match is None or len(match[1]) > _LONGEST or match[1][0].islower():
        return "", 0
    return match[1], match.end()
