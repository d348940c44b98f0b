"""Peak memory of a process, for benchmarks that measure each side in one of its own."""

import resource
import sys
from pathlib import Path


def peak() -> float:
    """Return this process's peak memory so far (MB)."""
    status = Path("/proc/self/status")
    if status.exists():
        # what getrusage tells includes the process this one was started from
        return float(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
