"""Tests of what only the `train` extra can run. Without it one test says so and the rest is not collected."""

import importlib.util
import os

TRAINS = importlib.util.find_spec("torch") is not None
if not TRAINS:
    collect_ignore_glob = ["*"]
else:
    # Two cores that other processes share: more threads than that make small tensors slower.
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
