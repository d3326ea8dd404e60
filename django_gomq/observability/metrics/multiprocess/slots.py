"""The numbered places of processes in a shared directory, and what the dead leave."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from django_gomq.bus.process.fork import Process, current
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.observability.metrics.catalogue import PREFIX

from .files import ListedFile, Listing, Torn, lock_path, look, read_numbers

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


logger = logging.getLogger("gomq.metrics")

# Of a consumer, or, as long as no consumer has it, of an event.
_WAITING: Final = ("channel_depth", "messages_scheduled", "messages_in_flight")
_QUEUED: Final = ("queue_depth", "messages_delayed")
_NAMED: Final = 10  # in the line; its fields have all
_SUBJECT: Final = {
    **{PREFIX + name: "consumer" for name in _WAITING},
    **{PREFIX + name: "event" for name in _QUEUED},
}


def clear(directory: str, listing: Listing) -> int:
    """Bury all whose slots nobody holds; return how many.

    Raises OSError; blocks for nobody.
    """
    buried = 0
    for number, files in listing.live_by_slot().items():
        slot = hold(directory, number)
        if slot is None:
            continue
        try:
            buried += _reap(number, files)
        finally:
            slot.release()
    return buried


def reap(directory: str, number: int) -> bool:
    """Remove the live numbers of one who held this slot and died; return if one did.

    Logs one warning if there were messages. The caller holds the slot. Raises OSError.
    """
    return _reap(number, look(directory).live_by_slot().get(number, ()))


def remove_live(directory: str, number: int) -> None:
    """Remove the live numbers of a slot that the caller holds. Raises OSError."""
    _remove(look(directory).live_by_slot().get(number, ()))


def _reap(number: int, files: Sequence[ListedFile]) -> bool:
    left: Counter[str] = Counter()
    for file in files:
        if file.mode == "livesum":
            left.update(_messages_in(file.path))
    if left:
        names = [f"{name}: about {count}" for name, count in left.most_common(_NAMED)]
        write_log(
            logger,
            logging.WARNING,
            "A process ended without a stop and took about %d messages along (as of "
            "its last numbers, up to a second before): %s",
            left.total(),
            ", ".join([*names, "..."] if len(left) > _NAMED else names),
            fields={"gomq_slot": number, "gomq_left": dict(left)},
        )
    return _remove(files)


def _remove(files: Sequence[ListedFile]) -> bool:
    """Return whether there was any: its process may have tidied up meanwhile."""
    was_there = False
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file.path)  # noqa: PTH108 - a text, as everywhere here
            was_there = True
    return was_there


def _messages_in(path: str) -> Counter[str]:
    found: Counter[str] = Counter()
    try:
        for key, number in read_numbers(path):
            family, _, labels, _ = json.loads(key)
            subject = _SUBJECT.get(family)
            if subject is not None and number:
                found[labels[subject]] += int(number)
    except (OSError, Torn, ValueError):
        pass  # what cannot be read cannot be told; it goes all the same
    return found
