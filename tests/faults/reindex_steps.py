"""The steps at which killed_reindex.py dies: before the swap is decided, when one may give up, and after."""

BEFORE_THE_SWAP = ("planned", "made", "carrying")
DECIDED = ("decided", "blocked", "drained", "swapped")
