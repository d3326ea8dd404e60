"""Whether events are published or captured in this process, and by whom."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

from django_gomq.bus.broker import Broker
from django_gomq.bus.message import Message
from django_gomq.bus.patterns import Pattern
from django_gomq.commit import initialized
from django_gomq.options import Receipt

KEPT_OUTSIDE: Final = 1000  # what nobody captures is kept no longer than this


class Entry:
    """One captured message; hidden while the test's own atomic block is open."""

    __slots__ = ("broker", "is_open", "message")

    def __init__(
        self, message: Message[Any], broker: Broker, is_open: Callable[[], bool]
    ) -> None:
        self.message = message
        self.broker = broker
        self.is_open = is_open

    def __deepcopy__(self, memo: object) -> Entry:
        # Django copies what setUpTestData keeps; a broker has locks.
        return self


class Capture:
    """Takes the events of some types in the place of their brokers.

    What was emitted inside an atomic block of a test's own counts when the outermost
    such block is left, and never if it was rolled back. Usable from any thread.
    """

    def __init__(self, only: Iterable[str] = (), most: int | None = None) -> None:
        """``only`` are event types and patterns; all types without one."""
        self._only = [Pattern(text) for text in only]
        self.entries: deque[Entry] = deque(maxlen=most)

    def takes(self, event_type: str) -> bool:
        """Whether events of this type are captured here."""
        only = self._only
        return not only or any(pattern.matches(event_type) for pattern in only)

    def record(self, entry: Entry) -> Callable[[], None]:
        """Add a message; return the function that takes it back after a rollback."""
        self.entries.append(entry)
        return lambda: self.forget(entry)

    def forget(self, entry: Entry) -> None:
        """Take a message back, if it is still there."""
        if entry in self.entries:
            self.entries.remove(entry)

    def run_due(self) -> None:
        """Handle what was recorded and is committed; a mere capture handles nothing."""


class Watcher(Capture):
    """Takes no event, and is told of each, by whomever it is taken."""

    def takes(self, event_type: str) -> bool:
        """Leave it to others."""
        return False

    def see(self, receipts: Sequence[Receipt], broker: Broker, *, waits: bool) -> None:
        """Hear of events that are emitted, before they go on.

        ``waits`` says whether it is for a commit. Runs on the thread that emits, in its
        context; must not raise.
        """


captures: Final[list[Capture]] = []
"""Those that are open now, innermost last."""

LIVE: Final = Capture()
"""Stands there for a ``live()`` block: what reaches it is published."""

outside: Final = Capture(most=KEPT_OUTSIDE)
"""Takes what a test emits where none is open."""


def capture_of(event_type: str) -> Capture | None:
    """Return who takes an event of this type now; None if it is to be published."""
    for found in captures[::-1]:  # watchers come and go on other threads
        if found.takes(event_type):
            return None if found is LIVE else found
    return outside if is_test_environment() else None


def is_test_environment() -> bool:
    """Whether Django's test environment is set up, by its runner or pytest-django."""
    # Asking costs 40 ns where django.test was never imported, as in production.
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")  # noqa: SLF001


def is_forced() -> bool:
    """Whether this is inside ``live()``."""
    return LIVE in captures


def is_live() -> bool:
    """Whether events are really published: outside tests, and inside ``live()``."""
    return is_forced() or not is_test_environment()


def own_block(connection: BaseDatabaseWrapper) -> object | None:
    """Return the outermost open atomic block that is not TestCase's own."""
    blocks = connection.atomic_blocks
    return next((block for block in blocks if not _is_of_test_case(block)), None)


def is_in_test_case() -> bool:
    """Whether this thread is in a transaction of TestCase's, which never commits."""
    return any(
        _is_of_test_case(block)
        for connection in initialized()
        for block in connection.atomic_blocks
    )


def _is_of_test_case(block: object) -> bool:
    return getattr(block, "_from_testcase", False)
