"""The lock-free buffer under many threads: every item and every permit is found."""

from __future__ import annotations

import functools
import gc
import itertools
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator

import pytest

from django_gomq.backends.memory import buffer as module
from django_gomq.backends.memory.buffer import PublishBuffer
from django_gomq.bus.channels import permits
from tests.bus.interleaving import interleaved
from tests.bus.interrupting import Interrupted
from tests.bus.waiting import LONG, fast_switching, run_threads, wait_until
from tests.untraced import untraced


@pytest.fixture
def undisturbed() -> Iterator[None]:
    """Let a signal handler's exceptions come up only in the lines of the test."""
    gc.disable()  # plugins have it call them, and what that raises is lost
    with untraced():
        yield
    gc.enable()


Item = tuple[int, int, int]
"""Who put it, its priority, and its number among those."""


class Ledger:
    """Counts in its own way who holds a permit; it may be late, and never too high."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._tokens: deque[None] = deque()
        self.highest = 0

    def enter(self) -> None:
        """Note one more, after its put."""
        self._tokens.append(None)
        self.highest = max(self.highest, len(self._tokens))
        assert len(self._tokens) <= self._bound, "more than the bound are inside"

    def leave(self, count: int) -> None:
        """Note that many less, before their release."""
        for _ in range(count):
            while True:
                try:
                    self._tokens.pop()
                    break
                except IndexError:
                    continue  # its producer has not come to note it


class Unkept(Ledger):
    """None, where a signal may part a put from its note."""

    def enter(self) -> None: ...

    def leave(self, count: int) -> None: ...


class Race:
    """Producers and consumers at one buffer, whose books must agree in the end."""

    def __init__(self, bound: int = 16, threads: int = 4) -> None:
        self.buffer: PublishBuffer[Item] = PublishBuffer(bound)
        self.ledger = Ledger(bound)
        self.taken: list[list[Item]] = [[] for _ in range(threads)]
        self.accepted: list[list[Item]] = [[] for _ in range(threads)]
        self.producing = threads
        self.done = threading.Event()
        self._lock = threading.Lock()

    def produce(self, number: int, most: int, many: int = 1) -> None:
        try:
            for index in range(0, most, many):
                priority = index // many % 10
                items = [(number, priority, index + one) for one in range(many)]
                while items:
                    room = self._put(items, priority)
                    self.accepted[number] += items[:room]
                    items = items[room:]
                    if items and self.buffer.closed:
                        return
                    if items:
                        self.buffer.wait_for_room(LONG)
        finally:
            with self._lock:
                self.producing -= 1

    def _put(self, items: list[Item], priority: int) -> int:
        if len(items) == 1:
            room = int(self.buffer.put(items[0], priority))
        else:
            room = self.buffer.try_permits(len(items))
            self.buffer.put_many_permitted(items[:room], priority)
        for _ in range(room):
            self.ledger.enter()
        return room

    def consume(self, number: int, most: int) -> None:
        mine, buffer = self.taken[number], self.buffer
        while not self.done.is_set():
            items = buffer.take(most)
            mine.extend(items)
            self.ledger.leave(len(items))
            buffer.release(len(items))
            if not items and not self.producing and not buffer:
                self.done.set()

    def watch(self) -> None:
        while not self.done.is_set():
            assert 0 <= self.buffer.held <= 16
            assert self.buffer.reconcile(patience=60) == 0

    def check(self) -> None:
        counted = Counter(item for one in self.taken for item in one)
        accepted = Counter(item for one in self.accepted for item in one)
        assert counted == accepted
        assert set(counted.values()) <= {1}
        for one in self.taken:
            last: dict[tuple[int, int], int] = {}
            for producer, priority, index in one:
                assert last.get((producer, priority), -1) < index, "out of order"
                last[producer, priority] = index
        assert (self.buffer.held, len(self.buffer)) == (0, 0)
        assert self.buffer.reconcile(patience=0) == 0


@pytest.mark.parametrize("many", [1, 5])
@pytest.mark.parametrize("batch", [1, 7])
def test_nothing_is_lost_doubled_or_above_the_bound_under_many_threads(
    batch: int, many: int
) -> None:
    race = Race()

    def resize() -> None:
        for capacity in itertools.cycle((3, 16, 1, 12)):
            if race.done.wait(0.001):
                break
            race.buffer.resize(capacity)
        race.buffer.resize(16)

    with interleaved(module, permits, chance=0.005):
        run_threads(
            *(functools.partial(race.produce, n, 1000, many) for n in range(4)),
            *(functools.partial(race.consume, n, batch) for n in range(4)),
            resize,
            race.watch,
        )

    race.check()
    assert sum(map(len, race.taken)) == 4000
    assert race.ledger.highest > 1, "nothing raced"
    assert race.buffer.try_permits(100) == 16


@pytest.mark.parametrize("after", [0, 10, 500])
def test_a_close_in_a_race_loses_nothing_that_was_taken(after: int) -> None:
    race = Race()

    def close() -> None:
        wait_until(lambda: sum(map(len, race.taken)) >= after)
        race.buffer.close()

    with interleaved(module, permits):
        run_threads(
            *(functools.partial(race.produce, n, 10**9) for n in range(4)),
            *(functools.partial(race.consume, n, 3) for n in range(4)),
            close,
        )

    race.check()
    assert race.buffer.capacity == 0
    assert not race.buffer.put((0, 0, 0))


@pytest.mark.usefixtures("undisturbed")
def test_a_race_in_which_permits_are_lost_ends_with_all_of_them(
    interrupts: threading.Event,
) -> None:
    race, hits, index = Race(bound=64), 0, 0
    race.ledger = Unkept(64)
    threads = [
        threading.Thread(target=one, daemon=True)
        for one in (
            *(functools.partial(race.produce, n, 3000) for n in range(1, 4)),
            *(functools.partial(race.consume, n, 5) for n in range(4)),
        )
    ]

    def put_all() -> None:  # a function of its own, as above
        nonlocal index
        while race.producing > 1:
            index += race.buffer.put((0, 0, index))

    with fast_switching():
        for thread in threads:
            thread.start()
        while race.producing > 1:
            try:
                interrupts.set()
                signal.setitimer(signal.ITIMER_VIRTUAL, 1e-6)
                put_all()
                interrupts.clear()
            except Interrupted:  # between any two steps
                hits += 1
                index += 1
        race.producing = 0
        for thread in threads:
            thread.join(LONG)

    assert not any(thread.is_alive() for thread in threads)
    assert hits
    race.accepted[0] = [one for taken in race.taken for one in taken if one[0] == 0]
    lost = race.buffer.held
    assert race.buffer.reconcile(patience=0) == lost
    race.check()
    assert race.buffer.room == 64
