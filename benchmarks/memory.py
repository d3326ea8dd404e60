"""What this process and its children occupy, as Linux tells; elsewhere it raises."""

from __future__ import annotations

import os
import re
from pathlib import Path

_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


def resident() -> int:
    """Return the bytes of this process that are in memory, shared ones included."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def proportional(pid: int) -> int:
    """Return the bytes of a process, each shared page divided by who shares it."""
    found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    if found is None:
        raise OSError("This system does not tell the proportional set size.")
    return int(found[1]) * 1024
