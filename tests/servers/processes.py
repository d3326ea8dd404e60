"""Processes of this machine, as /proc tells."""

from __future__ import annotations

import contextlib
from pathlib import Path

_PROC = Path("/proc")


def family_of(pid: int) -> set[int]:
    """Return a process and all its descendants that live."""
    children: dict[int, list[int]] = {}
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = _parent_of(folder)
            children.setdefault(parent, []).append(int(folder.name))
    family, found = set(), [pid]
    while found:
        one = found.pop()
        family.add(one)
        found += children.get(one, [])
    return {one for one in family if is_alive(one)}


def _parent_of(folder: Path) -> int:
    # The name of the program, in brackets, may hold anything.
    return int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    with contextlib.suppress(OSError):
        state = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
        return state not in {"Z", "X"}
    return False


def threads_of(pid: int) -> int:
    """Return how many threads a process has; 0 once it has ended."""
    with contextlib.suppress(OSError):
        return len(list((_PROC / str(pid) / "task").iterdir()))
    return 0
