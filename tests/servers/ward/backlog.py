"""A bus that is busy before its process forks: events wait, and locks are held."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from typing import Any

from django_gomq import brokers
from tests.servers.ward import journal, rounds

_LOCKS = (type(threading.Lock()), type(threading.RLock()))
_CONTAINERS = (dict, list, tuple, set)


def make_if_wanted() -> None:
    """Emit what nobody finishes, and hold every lock of the bus at each fork."""
    if "WARD_BACKLOG" not in os.environ:
        return
    rounds.emit_rounds("stuck", 5)
    holder = _Holder(list(_locks_of(brokers["default"])))
    os.register_at_fork(before=holder.hold, after_in_parent=holder.let_go)


def _locks_of(root: object) -> Iterator[Any]:
    seen: set[int] = set()
    found: list[Any] = [root]
    while found:
        one = found.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, _LOCKS):
            yield one
        elif isinstance(one, _CONTAINERS) or _is_of_the_bus(one):
            found += gc.get_referents(one)


def _is_of_the_bus(one: object) -> bool:
    return type(one).__module__.startswith(("django_gomq.", "threading"))


class _Holder:
    """Holds locks on a thread that a forked child does not have."""

    def __init__(self, locks: list[Any]) -> None:
        self._locks = locks
        self._wanted, self._held = threading.Event(), threading.Event()
        self._done, self._free = threading.Event(), threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def hold(self) -> None:
        self._wanted.set()
        self._wait_for(self._held)

    def let_go(self) -> None:
        self._done.set()
        self._wait_for(self._free)

    def _run(self) -> None:
        while True:
            self._wait_for(self._wanted)
            # What is held for good needs no help from here.
            held = [lock for lock in self._locks if lock.acquire(timeout=0.01)]
            journal.note("fork", len(held))
            self._held.set()
            self._wait_for(self._done)
            for lock in held:
                lock.release()
            self._free.set()

    def _wait_for(self, event: threading.Event) -> None:
        event.wait()
        event.clear()
