"""Lets a process count together with the children that it forks. Imports nothing of prometheus_client, on purpose."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# The variable by which prometheus_client keeps values in files that processes share; it reads it when it is imported.
MULTIPROCESS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def share_with_children() -> Iterator[None]:
    """Values of this process and of its children are files inside the block, which survive a child that is killed.

    Must come before anything that counts is imported, else it raises RuntimeError. The files lie below TMPDIR.
    """
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client was imported before it was said that processes share its values")
    owner = os.getpid()
    directory = tempfile.mkdtemp(prefix="sparsewell-metrics-")
    os.environ[MULTIPROCESS_VARIABLE] = directory
    try:
        yield
    finally:
        if os.getpid() == owner:  # not a child that ends by an exception
            shutil.rmtree(directory, ignore_errors=True)
