"""What a report says about the machine that it was measured on."""

import platform
from pathlib import Path


def cpu_name() -> str:
    """The processor's model as the system names it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
