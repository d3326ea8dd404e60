"""Tells a server how deliveries ended, many in one call, on a thread of its own.

What ended within ten milliseconds goes in one call, for all consumers together.
Handler threads and the event loop of async handlers only hand over, and never wait for
a server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from threading import Condition, Thread, current_thread
from typing import Final

import msgspec

from django_gomq.bus.backend import Settled, Settlement
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.process.fork import claim_thread

from .settler import Conclude

BATCH: Final = 256
BATCH_SECONDS: Final = 0.01
"""A batch is told when it is full, or when its first settlement is so old."""
FIRST_BACKOFF: Final = 0.05  # seconds until what could not be stored is offered again
MAX_BACKOFF: Final = 2.0
FAILURES_OF_A_SERVER: Final = 3
"""So many that fail alone, one after the other, and the fault is the server's."""

Settle = Callable[[Sequence[Settlement]], list[Settled]]


class _Entry(msgspec.Struct, frozen=True):
    conclude: Conclude
    settlement: Settlement
    is_suspect: bool = False
    """It failed where others did not: if it fails again, the server may be well."""


class SettlementBatcher:
    """Collects settlements, and offers again what a server could not store.

    Thread-safe; ``add`` does not block. Permits are given back only by ``conclude``, so
    what is kept here is bounded by the channels.
    """

    def __init__(
        self, settle: Settle, on_error: Callable[[BaseException], object]
    ) -> None:
        self._settle = settle
        self._on_error = on_error
        self._changed = Condition()
        self._waiting: deque[_Entry] = deque()
        self._kept: list[_Entry] = []
        """What could not be stored."""
        self._telling: list[_Entry] = []
        self._due = 0.0  # when the first of those that wait should be told
        self._again_at = 0.0  # when what was kept is offered again
        self._backoff = FIRST_BACKOFF
        self._is_away = False
        self._is_stopping = False
        self._has_ended = False
        self._thread: Thread | None = None

    def start(self) -> None:
        """Start the thread; idempotent. Raises RuntimeError where none can start."""
        if self._thread is None:
            thread = Thread(target=self._run, name="gomq-settler", daemon=True)
            thread.start()
            self._thread = thread

    @property
    def is_up(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def add(
        self,
        conclude: Conclude,
        settlements: Sequence[Settlement],
        *,
        is_urgent: bool = False,
    ) -> None:
        """Have these told, and ``conclude`` called with them and the answers.

        What is urgent waits for no others, but for a call that is under way. After a
        stop they count as lost: the server hands the messages out again.
        """
        if not settlements:
            return
        with self._changed:
            has_ended = self._has_ended
            if not has_ended:
                before = len(self._waiting)
                if is_urgent:
                    self._due = 0.0
                elif not before:
                    self._due = Clock.monotonic() + BATCH_SECONDS
                self._waiting.extend(_Entry(conclude, each) for each in settlements)
                if is_urgent or not before or before < BATCH <= len(self._waiting):
                    self._changed.notify()
        if has_ended:
            conclude(settlements, [Settled.LOST_LEASE] * len(settlements))

    def _run(self) -> None:
        claim_thread()
        while batch := self._next():
            try:
                self._tell(batch)
            except BaseException as error:  # noqa: BLE001 - the thread outlives any bug
                self._on_error(error)

    def _next(self) -> list[_Entry]:
        """Block until a batch is due, and return it; nothing at the end."""
        with self._changed:
            while not self._has_ended:
                now = Clock.monotonic()
                if self._kept and now >= self._again_at:
                    return self._take_again()
                if self._waiting and not self._is_away and self._is_due(now):
                    return self._take_waiting()
                if self._is_stopping and not (self._kept or self._waiting):
                    break
                self._changed.wait(self._pause(now))
        return []

    def _is_due(self, now: float) -> bool:
        is_full = len(self._waiting) >= BATCH
        return is_full or self._is_stopping or now >= self._due

    def _pause(self, now: float) -> float | None:
        moments = [self._again_at] if self._kept else []
        if self._waiting and not self._is_away:
            moments.append(self._due)
        return max(0.0, min(moments) - now) if moments else None

    def _take_again(self) -> list[_Entry]:
        # Where a server seems away, new ones come first: what was kept may be at fault.
        fresh = min(BATCH // 2, len(self._waiting)) if self._is_away else 0
        self._telling = [self._waiting.popleft() for _ in range(fresh)]
        self._telling += self._kept[: BATCH - fresh]
        del self._kept[: BATCH - fresh]
        return self._telling

    def _take_waiting(self) -> list[_Entry]:
        size = min(BATCH, len(self._waiting))
        self._telling = [self._waiting.popleft() for _ in range(size)]
        self._due = Clock.monotonic() + BATCH_SECONDS
        return self._telling

    def _tell(self, batch: list[_Entry]) -> None:
        answers = self._settle_all(batch)
        with self._changed:
            if self._has_ended:
                return  # the stop has concluded them
            self._telling = []
            pairs = list(zip(batch, answers, strict=False))
            failed = [entry for entry, answer in pairs if answer is Settled.KEPT]
            self._keep(failed, batch[len(answers) :], len(failed) < len(pairs))
        _conclude([pair for pair in pairs if pair[1] is not Settled.KEPT])

    def _settle_all(self, batch: Sequence[_Entry]) -> list[Settled]:
        """Return an answer for each; for fewer, if the rest was not tried."""
        try:
            return self._ask(batch)
        except BaseException as error:  # noqa: BLE001 - the server, or one of them
            if not (self._is_away or all(entry.is_suspect for entry in batch)):
                self._on_error(error)  # once for each outage
        return self._ask_one_by_one(batch) if len(batch) > 1 else [Settled.KEPT]

    def _ask(self, batch: Sequence[_Entry]) -> list[Settled]:
        answers = self._settle([entry.settlement for entry in batch])
        if len(answers) != len(batch):
            raise ValueError(f"{len(answers)} answers to {len(batch)} settlements")
        return answers

    def _ask_one_by_one(self, batch: Sequence[_Entry]) -> list[Settled]:
        answers: list[Settled] = []
        failures = 0
        for entry in batch:
            try:
                answers += self._ask([entry])
                failures = 0
            except BaseException:  # noqa: BLE001 - told once for the batch
                answers.append(Settled.KEPT)
                failures += 1
                if failures >= FAILURES_OF_A_SERVER:
                    break
        return answers

    def _keep(
        self, failed: Sequence[_Entry], untried: Sequence[_Entry], any_done: bool
    ) -> None:
        if any_done:
            self._is_away = False
            failed = [
                msgspec.structs.replace(entry, is_suspect=True) for entry in failed
            ]
        elif not all(entry.is_suspect for entry in failed):
            self._is_away = True
        # What failed goes to the end, lest it keep others from being tried.
        self._kept = [*untried, *self._kept, *failed]
        if failed:
            longest = FIRST_BACKOFF if self._is_stopping else MAX_BACKOFF
            pause = min(longest, self._backoff)
            self._again_at = Clock.monotonic() + pause
            self._backoff = 2 * pause
        elif not self._kept:
            self._backoff = FIRST_BACKOFF

    def stop(self, timeout: float) -> int:
        """Tell what is left and end; return how many outcomes were never told.

        Blocks up to ``timeout`` seconds. Idempotent.
        """
        with self._changed:
            self._is_stopping, self._again_at = True, 0.0
            self._changed.notify()
        thread = self._thread
        if thread is not None and thread is not current_thread():
            thread.join(timeout)
        with self._changed:
            left = [*self._telling, *self._kept, *self._waiting]
            self._telling, self._kept = [], []
            self._waiting.clear()
            self._has_ended = True
            self._changed.notify()
        _conclude([(entry, Settled.LOST_LEASE) for entry in left])
        return len(left)


def _conclude(pairs: Sequence[tuple[_Entry, Settled]]) -> None:
    """Tell those who handed settlements over, each for all of its neighbours."""
    for conclude, group in groupby(pairs, lambda pair: pair[0].conclude):
        own = list(group)
        conclude([entry.settlement for entry, _ in own], [answer for _, answer in own])
