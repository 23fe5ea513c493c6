"""Words that tell nothing about a passage: a list for English, and those that most of a corpus has.

Queries that are cut out of the passage they belong to taught an earlier encoder function words: the weight of "about"
in its query table rose fivefold, since a sentence and its paragraph share such words as surely as their subject. What
people type has few of them. So cut-out queries go without.
"""

import re
from collections import Counter
from collections.abc import Collection

WORD = re.compile(r"\w+(?:['’-]\w+)*")

ENGLISH = frozenset(
    """
    a about above across after again against all almost along already also although always am among an and another
    any anyone anything are aren't around as at away back be became because become becomes been before being below
    between both but by came can can't cannot could couldn't did didn't do does doesn't doing don't done down due
    during each either else enough etc even ever every everyone everything few for from further gave get gets
    getting give given gives go goes going gone got had hadn't has hasn't have haven't having he he's her here hers
    herself him himself his how however i i'd i'll i'm i've if in indeed instead into is isn't it it's its itself
    just keep kept know least less let let's like made make makes making many may maybe me might mine more most much
    must my myself near neither never no nobody none nor not nothing now of off often oh on once one only onto or
    other others our ours ourselves out over own per perhaps put quite rather really said same say says see seem
    seemed seems seen several shall she she's should shouldn't since so some someone something sometimes soon still
    such take taken than that that's the their theirs them themselves then there there's therefore these they
    they're they've thing things think this those though through thus till to together too took toward towards under
    until up upon us use used uses using usually very via want wants was wasn't way we we're we've well went were
    weren't what what's when whenever where whereas wherever whether which while who who's whole whom whose why will
    with within without won't would wouldn't yes yet you you'd you'll you're you've your yours yourself yourselves
    """.split()  # noqa: SIM905 - a paragraph of words, not three hundred strings
)
# Of fewer passages than this the share of one word says little.
_ENOUGH = 200
_SHARE = 0.4


def words(text: str) -> list[str]:
    """The words of a text as they stand, hyphens and apostrophes inside them kept."""
    return WORD.findall(text)


def passage_counts(passages: Collection[str]) -> Counter[str]:
    """For each word in lower case the number of passages that have it."""
    counts: Counter[str] = Counter()
    for passage in passages:
        counts.update({word.lower() for word in words(passage)})
    return counts


def function_words(counts: Counter[str], passages: int) -> frozenset[str]:
    """English ones, and in a corpus of 200 passages or more the words that more than 40 % of them have."""
    if passages < _ENOUGH:
        return ENGLISH
    return ENGLISH | {word for word, count in counts.items() if count > _SHARE * passages}
