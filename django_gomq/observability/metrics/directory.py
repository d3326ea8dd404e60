"""Which files lie in a directory that processes share, and whose they are."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from .catalogue import Kind, Mode

# The client library reads the kind, and of gauges the mode, from a file's name. What it
# takes for the pid is our slot; a pid never looks so, and no hook that cleans up after
# pids touches it.
_OURS: Final = re.compile(
    r"(counter|histogram|gauge_(livesum|livemax|livemin|max))_gomq-(\d+)\.db"
)
_LOCK: Final = "gomq_{}.lock"


class NumberFile(msgspec.Struct, frozen=True):
    """One file of ours: numbers of one kind of one slot."""

    path: str
    kind: Kind
    mode: Mode
    slot: int

    @property
    def is_live(self) -> bool:
        """Whether its numbers end with their process."""
        return self.mode.startswith("live")


class Listing(msgspec.Struct, frozen=True):
    """What lies in the directory at one moment."""

    ours: Sequence[NumberFile]
    theirs: Sequence[str]
    """Paths of what others share through the client library."""

    def live_by_slot(self) -> Mapping[int, Sequence[NumberFile]]:
        """Return the files whose numbers end with their process, by slot."""
        found: dict[int, list[NumberFile]] = {}
        for one in self.ours:
            if one.is_live:
                found.setdefault(one.slot, []).append(one)
        return found


def look(directory: str) -> Listing:
    """Return what lies there. Raises OSError if it cannot be read."""
    ours: list[NumberFile] = []
    theirs: list[str] = []
    for name in sorted(os.listdir(directory)):  # noqa: PTH208 - 20 times as fast
        if not name.endswith(".db"):
            continue
        path = os.path.join(directory, name)  # noqa: PTH118 - as above
        found = _OURS.fullmatch(name)
        if found is None:
            theirs.append(path)
            continue
        kind: Kind = "gauge" if found[2] else found[1]  # type: ignore[assignment]
        ours.append(NumberFile(path, kind, found[2] or "", int(found[3])))  # type: ignore[arg-type]
    return Listing(ours, theirs)


def number_path(directory: str, kind: Kind, mode: Mode, slot: int) -> str:
    """Return the path of the file for numbers of this kind."""
    prefix = f"{kind}_{mode}" if mode else kind
    return str(Path(directory, f"{prefix}_gomq-{slot}.db"))


def lock_path(directory: str, slot: int) -> str:
    """Return the path of the file whose lock says that the slot's process lives."""
    return str(Path(directory, _LOCK.format(slot)))


def check_directory(path: str) -> str | None:
    """Return what keeps processes from sharing their numbers there, or None.

    Reads only what the directory says of itself; writes nothing.
    """
    if importlib.util.find_spec("fcntl") is None:
        return (
            "this system has no record locks (fcntl), by which processes know who lives"
        )
    if not Path(path).is_dir():
        return f"{path!r} is no directory"
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return f"{path!r} cannot be read and written by this user"
    return None
