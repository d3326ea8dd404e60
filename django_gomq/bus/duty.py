"""Who does a reader's work, its own thread or an idle one; it knows no message."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import RLock, Thread, current_thread
from typing import Final, Generic, TypeVar

from .ready import ReadyList
from .threads import claim_thread

T = TypeVar("T")

MAX_BACKOFF: Final = 5.0  # seconds
STOP_SECONDS: Final = 1.0
MOST_AS_STAND_IN: Final = 8  # items; what they lead to waits for the same thread

RunSoon = Callable[[Callable[[], object]], bool]
"""Has an idle handler thread run something short; returns whether there is one."""


class Duty(Generic[T]):
    """Has items worked on, one after the other, on threads of the bus.

    A thread of its own does what comes in a flood, and is restarted with a pause
    whenever it dies. While it sleeps, a handler thread that sleeps too stands in for
    it, and goes on to handle what it found: a second wake-up on the way to a handler
    takes 30 us of 70 (measured at 1,000 messages a second, 1 consumer).

    Thread-safe; only ``stop`` blocks.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[T], None],
        *,
        on_error: Callable[[BaseException], None],
        run_soon: RunSoon = lambda _: False,
    ) -> None:
        """``work`` is called by one thread at a time; ``name`` is that of our own."""
        self._work = work
        self._on_error = on_error
        self._run_soon = run_soon
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._items: ReadyList[T] = ReadyList()
        self._working = RLock()  # what we work on may stop us
        self._stand_in_once = self._stand_in  # one object, which may be taken back
        self._is_expected = False
        """Whether a stand-in was called, or is at work: it looks again at the end."""
        self._death: BaseException | None = None
        """Of a stand-in; our own thread dies of it in its place."""
        self._failures = 0
        self.is_up = False
        """Whether what is added will be worked on soon."""

    def start(self) -> None:
        """Start the thread; idempotent."""
        if not self.is_up and self._thread.ident is None:
            self.is_up = True
            self._thread.start()

    def stop(self) -> None:
        """Begin nothing new; blocks up to 2 x STOP_SECONDS for what is under way."""
        self._items.close()
        if self._thread.is_alive() and self._thread is not current_thread():
            self._thread.join(STOP_SECONDS)
        if self._working.acquire(timeout=STOP_SECONDS):  # a stand-in may be at work
            self._working.release()

    def add(self, item: T) -> None:
        """Have somebody work on this: our own thread only if no other is idle."""
        # Whoever is awake, or on the way, looks again before it sleeps.
        if not self._items.add_quietly(item) or self._is_expected:
            return
        self._is_expected = True
        if not self._run_soon(self._stand_in_once):
            self._is_expected = False
            self._items.wake()

    def add_rest(self, item: T) -> None:
        """Have our own thread work on this: there is a flood."""
        self._items.add(item)

    def call_again(self) -> None:
        """Have our own thread look; a signal handler may have kept ``add`` from it."""
        self._is_expected = False
        self._items.wake()

    def _run(self) -> None:
        claim_thread()
        while not self._items.closed:
            try:
                self._work_all()
            except BaseException as error:  # noqa: BLE001 - it is restarted, always
                self.is_up = False
                self._failures += 1
                self._on_error(error)
                time.sleep(min(MAX_BACKOFF, 0.01 * 2 ** min(self._failures, 10)))
            self.is_up = not self._items.closed
        self.is_up = False

    def _work_all(self) -> None:
        while not self._items.closed:
            item = self._items.next()
            if item is not None:
                self._work_on(item)
                self._failures = 0

    def _work_on(self, item: T) -> None:
        with self._working:
            if self._items.closed:
                return
            try:
                self._raise_death()
                self._work(item)
            except BaseException:
                self._items.add_quietly(item)  # for after the restart
                raise

    def _raise_death(self) -> None:
        death = self._death
        if death is not None and current_thread() is self._thread:
            self._death = None
            raise death

    def _stand_in(self) -> None:
        for _ in range(MOST_AS_STAND_IN):
            # In this order: what is added from here on calls somebody, and what was
            # added before is seen.
            self._is_expected = False
            item = self._items.take() if self._items.has_sleepers else None
            if item is None:
                return  # or our own thread is awake
            self._is_expected = True
            try:
                self._work_on(item)
            except BaseException as error:  # noqa: BLE001 - our own thread raises it
                self.is_up = False
                self._death = error
                break
        self.call_again()
