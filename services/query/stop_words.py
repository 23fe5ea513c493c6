"""Function words of English questions, which the lexical list of an English index does not search for.

Documents keep their words: only the query loses them. Lucene's own list, which the index's analyser removes, has 33
words; "how do I", "what are" and "which of these" are not among them, and a document that repeats them beats one on the
subject. The longer list gained .7 points of NDCG@10 over six collections (cisi .385 to .412, cranfield .359 to .367,
none lost; docs/decisions/0244).
"""

import re
from typing import Final

# The English list of NLTK and of the Snowball project without its fragments of words ("don", "ll", "s"): "d" is no
# function word in "vitamin d". Words with an apostrophe are one token of Lucene's standard tokeniser.
_WORDS: Final = """
    a about above after again against all am an and any are as at be because been before being below between both but by
    can did do does doing down during each few for from further had has have having he her here hers herself him himself
    his how i if in into is it its itself just me more most my myself no nor not now of off on once only or other our
    ours ourselves out over own same she should so some such than that the their theirs them themselves then there these
    they this those through to too under until up very was we were what when where which while who whom why will with
    you your yours yourself yourselves aren't couldn't didn't doesn't don't hadn't hasn't haven't isn't it's mightn't
    mustn't needn't shan't she's should've shouldn't that'll wasn't weren't won't wouldn't you'd you'll you're you've
"""
STOP_WORDS: Final = frozenset(_WORDS.split())
_WORD = re.compile(r"\w+(?:['’]\w+)*")


def blank_stop_words(text: str) -> str:
    """Return the text with spaces in place of its stop words, so that offsets stay valid.

    Case and the kind of apostrophe do not matter. A text of stop words alone ("to be or not to be") stays as it is.
    """
    kept = _WORD.sub(_blank, text)
    return kept if _WORD.search(kept) else text


def _blank(match: re.Match[str]) -> str:
    word = match[0].lower().replace("’", "'")
    return " " * len(match[0]) if word in STOP_WORDS else match[0]
