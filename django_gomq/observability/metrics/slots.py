"""Slots of a directory: each is held by one living process; they know no metric."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from django_gomq.bus.process import Process, current

from .directory import lock_path

try:
    import fcntl
except ImportError:  # only POSIX has it
    fcntl = None  # type: ignore[assignment]

# A record lock belongs to the process, not to the descriptor: a fork does not inherit
# it, and the kernel takes it back at any death. But closing any descriptor of the file
# gives it up, so a process never opens the lock file of a slot that it holds.
_held: set[tuple[Process, str]] = set()


class Slot:
    """A slot that this process holds until ``release``, or until its death."""

    def __init__(self, number: int, path: str, descriptor: int) -> None:
        self.number = number
        self._path = path
        self._descriptor: int | None = descriptor
        self._owner = current()
        _held.add((self._owner, path))

    @property
    def is_in_place(self) -> bool:
        """Whether others still see it as held: nobody emptied the directory."""
        return self._descriptor is not None and _is_at(self._path, self._descriptor)

    def release(self) -> None:
        """Let others have it; in a forked child, forget the parent's. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
            _held.discard((self._owner, self._path))


def claim(directory: str) -> Slot:
    """Take the lowest slot that no living process holds.

    Blocks for no other process. Raises OSError where the directory cannot be used.
    """
    for number in itertools.count():
        slot = hold(directory, number)
        if slot is not None:
            return slot
    raise AssertionError  # numbers do not end


def hold(directory: str, number: int) -> Slot | None:
    """Take this slot, or return None if a living process holds it."""
    if fcntl is None:
        raise OSError("this system has no record locks")
    process = current()
    with process.lock:  # to the kernel all threads are one and the same
        return _hold(number, lock_path(directory, number), process)


def _hold(number: int, path: str, process: Process) -> Slot | None:
    while (process, path) not in _held:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX lets a system choose
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        if _is_at(path, descriptor):
            return Slot(number, path, descriptor)
        os.close(descriptor)  # a file that was removed before we had its lock
    return None


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(Path(path).stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
