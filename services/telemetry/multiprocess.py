"""Metrics shared between a process and the children that it forks. Deliberately does not import prometheus_client."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# With this variable prometheus_client keeps values in files that processes share. It is read at import time.
MULTIPROCESS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def share_with_children() -> Iterator[None]:
    """Keep metrics in shared files within the block, so that the values of a killed child are not lost.

    The files are below TMPDIR. Raises RuntimeError if prometheus_client is already imported.
    """
    if "prometheus_client" in sys.modules:
        raise RuntimeError("share_with_children must be called before prometheus_client is imported")
    owner = os.getpid()
    directory = tempfile.mkdtemp(prefix="sparsewell-metrics-")
    os.environ[MULTIPROCESS_VARIABLE] = directory
    try:
        yield
    finally:
        if os.getpid() == owner:  # not in a child that ends by an exception
            shutil.rmtree(directory, ignore_errors=True)
