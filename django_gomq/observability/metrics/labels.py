"""Which names out of data are labels of their own: the first few, then ``_other``.

Event types that nobody declared and classes of errors may be made up without end, and
numbers in a shared directory outlive their process. So there the names are in a file
that all processes read and add to.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Final

from django_gomq.bus.counts import OTHER

try:
    import fcntl
except ImportError:  # only POSIX has it, and only there processes share
    fcntl = None  # type: ignore[assignment]

Subject = tuple[str, ...]
"""What has such labels: broker and kind, or broker, kind and consumer."""


class Labels:
    """Those of one process. Thread-safe.

    What a name got it keeps: to move its count to another label later would make a
    counter go backwards.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._given: dict[tuple[Subject, str], str] = {}
        self._known: dict[Subject, set[str]] = {}

    def of(self, subject: Subject, name: str, most: int) -> str:
        """Return the name if it is one of so many, else ``_other``."""
        with self._lock:
            label = self._given.get((subject, name))
            if label is None:
                label = name if self._admits(subject, name, most) else OTHER
                self._given[subject, name] = label
            return label

    def _admits(self, subject: Subject, name: str, most: int) -> bool:
        known = self._known.setdefault(subject, set())
        if len(known) < most:
            known.add(name)
        return name in known


_FILE: Final = "gomq_labels.json"  # one list a line: the subject, and a name


class SharedLabels(Labels):
    """Those of all processes that share a directory, also of those that ended."""

    def __init__(self, directory: str) -> None:
        """Touches no file."""
        super().__init__()
        self._path = Path(directory, _FILE)

    def forget(self) -> None:
        """Ask the file again, as somebody emptied the directory."""
        with self._lock:
            self._known = {}
            self._given = {
                key: label for key, label in self._given.items() if label == OTHER
            }

    def _admits(self, subject: Subject, name: str, most: int) -> bool:
        known = self._known.setdefault(subject, set())
        if name not in known and len(known) < most:
            # Without the file a name shares, which is always right.
            with contextlib.suppress(OSError):
                self._add(subject, name, most)
        return name in known

    def _add(self, subject: Subject, name: str, most: int) -> None:
        with self._path.open("a+b") as file:
            # Not for long, and not at all for a process that was stopped while it had
            # it. It is given back when the file is closed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.seek(0)
            for other, found in _read(file.read()):
                self._known.setdefault(other, set()).add(found)
            known = self._known[subject]
            if name not in known and len(known) < most:
                file.write(json.dumps([*subject, name]).encode() + b"\n")
                file.flush()
                known.add(name)


def _read(text: bytes) -> Iterator[tuple[Subject, str]]:
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError):  # cut off by a full disk
            *subject, name = json.loads(line)
            yield tuple(map(str, subject)), str(name)
