"""List the steps at which killed_reindex.py exits, before and after the swap is decided.

Before the decision an operator may give up.
"""

BEFORE_THE_SWAP = ("planned", "made", "carrying")
DECIDED = ("decided", "blocked", "drained", "swapped")
