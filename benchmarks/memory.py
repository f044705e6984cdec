"""Largest resident size of this process. No array library is imported here: peers read it too."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_gib() -> float:
    """Returns the largest resident size of this process so far, in GiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands the parent's peak down through fork in ru_maxrss; VmHWM starts anew at exec.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**30 if sys.platform == "darwin" else 2**20)
