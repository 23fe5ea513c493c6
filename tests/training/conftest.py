"""Fixtures of tests that need the `train` extra. Without the extra, only the test that reports it is collected."""

import importlib.util
import os

TRAINS = importlib.util.find_spec("torch") is not None
if not TRAINS:
    collect_ignore_glob = ["*"]
else:
    # A second thread waits in a busy loop, which makes the tests 20 times slower on a busy machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
