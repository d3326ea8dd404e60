"""Dead letters that a store keeps for all processes, and a process while it cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import count
from threading import Event, Lock
from typing import Any

import msgspec
import pytest

from django_gomq.bus import dead_letters
from django_gomq.bus.broker import Broker
from django_gomq.bus.dead_letters import (
    DeadLetter,
    DeadLetterKeeper,
    HandOn,
    Keeping,
    NoStoreError,
    make_dead_letter,
)
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.message import Message
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder
from tests.bus.waiting import LONG, wait_until, wait_until_settled


class FakeStore:
    """A store in memory, which other processes may read too, or which is away."""

    def __init__(self) -> None:
        self.letters: dict[str, DeadLetter] = {}
        self.asked: set[str] = set()
        self.error: Exception | None = None
        self.refused: set[bytes] = set()
        self.calls = 0
        self.open = Event()
        self.open.set()
        self._lock = Lock()
        self._next = count(1).__next__

    def keep(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        self._reach()
        refused = [one for one in letters if one.message.body in self.refused]
        for one in letters:
            if one not in refused:
                name = f"{self._next():019d}"
                self.letters[name] = msgspec.structs.replace(one, id=name)
        return refused

    def _reach(self) -> None:
        self.calls += 1
        self.open.wait()
        if self.error is not None:
            raise self.error

    def list(self, broker: str, limit: int) -> list[DeadLetter]:
        self._reach()
        return [one for one in self.letters.values() if one.broker == broker][:limit]

    def page(self, broker: str, after: str, limit: int) -> Sequence[DeadLetter]:
        letters = self.list(broker, len(self.letters))
        return [one for one in letters if one.id > after][:limit]

    def wanted(self, broker: str) -> Sequence[str] | None:
        letters = self.list(broker, 1000)
        asked = [one.consumer for one in letters if one.id in self.asked]
        return sorted(set(asked)) if letters else None

    def take_wanted(
        self, broker: str, consumer: str, most: int
    ) -> Sequence[DeadLetter]:
        letters = self.list(broker, 1000)
        asked = [one.id for one in letters if one.id in self.asked]
        return self.take(broker, asked[:most])

    def find(self, broker: str, ids: Sequence[str]) -> Sequence[tuple[str, str]]:
        letters = self.list(broker, 1000)
        return [(one.id, one.consumer) for one in letters if one.id in ids]

    def take(self, broker: str, ids: Sequence[str]) -> Sequence[DeadLetter]:
        self._reach()
        with self._lock:
            found = [self.letters.pop(name, None) for name in ids]
        return [one for one in found if one is not None]

    def hand_on(self, broker: str, ids: Sequence[str], hand: HandOn) -> int:
        self._reach()
        taken = hand([self.letters[name] for name in ids if name in self.letters])
        return len(self.take(broker, [one.id for one in taken]))


class Mended:
    """A handler that fails until it is mended."""

    def __init__(self) -> None:
        self.is_mended = False
        self.handled: list[int] = []

    def __call__(self, message: Message[Any]) -> None:
        if not self.is_mended:
            raise ValueError
        self.handled.append(message.data)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def handler() -> Mended:
    return Mended()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def broker(
    make_broker: MakeBroker, store: FakeStore, handler: Mended, recorder: Recorder
) -> Broker:
    made = make_broker(dead_letters=10, hooks=[recorder], keeping=Keeping(store=store))
    made.consume("a.b", handler, name="c")
    return made


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHORTEST_PAUSE", "LONGEST_PAUSE", "LOOK_SECONDS"):
        monkeypatch.setattr(dead_letters, name, 0.01)


def bury(broker: Broker, number: int, first: int = 0) -> None:
    for nth in range(first, first + number):
        broker.publish(Message("a.b", b"%d" % nth))
    wait_until_settled(broker)


def bury_in(store: FakeStore, broker: Broker, number: int) -> list[DeadLetter]:
    """Return so many that the store has."""
    bury(broker, number)
    wait_until(lambda: len(store.letters) == number)
    return broker.dead_letters()


def bodies(letters: Sequence[DeadLetter]) -> list[bytes]:
    return [one.message.body for one in letters]


def test_they_go_to_the_store_and_are_listed_from_there(
    broker: Broker, store: FakeStore
) -> None:
    listed = bury_in(store, broker, 3)

    assert bodies(listed) == [b"0", b"1", b"2"]
    assert listed == list(store.letters.values())


def test_they_are_in_the_order_of_the_store_whatever_its_clock_says(
    broker: Broker, store: FakeStore
) -> None:
    bury(broker, 3)
    wait_until(lambda: len(store.letters) == 3)
    for name, time in zip(sorted(store.letters), (30.0, 10.0, 20.0), strict=True):
        store.letters[name] = msgspec.structs.replace(store.letters[name], time=time)

    assert bodies(broker.dead_letters()) == [b"0", b"1", b"2"]


def test_all_are_read_a_page_at_a_time_and_then_what_is_only_here(
    broker: Broker, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "PAGE", 2)
    store.refused = {b"1"}
    bury(broker, 6)
    wait_until(lambda: len(store.letters) == 5)
    wait_until(lambda: len(broker.dead_letters()) == 6)
    calls = store.calls

    found = bodies(list(broker.iter_dead_letters()))

    assert found == [b"0", b"2", b"3", b"4", b"5", b"1"]
    assert store.calls >= calls + 3


def test_without_a_store_all_are_those_of_the_process(
    broker: Broker, store: FakeStore
) -> None:
    store.error = NoStoreError()
    bury(broker, 2)

    # While a write is tried they are in no list.
    wait_until(lambda: bodies(list(broker.iter_dead_letters())) == [b"0", b"1"])


def test_a_store_that_blocks_holds_up_no_handler(
    broker: Broker, store: FakeStore
) -> None:
    store.open.clear()
    try:
        bury(broker, 20)
        assert broker.stats().consumers["c"].dead_lettered == 20
    finally:
        store.open.set()


def test_what_comes_while_some_are_written_is_written_next(
    broker: Broker, store: FakeStore
) -> None:
    store.open.clear()
    try:
        bury(broker, 1)
        wait_until(lambda: store.calls == 1)
        bury(broker, 2, first=1)
    finally:
        store.open.set()

    wait_until(lambda: len(store.letters) == 3)
    assert bodies(broker.dead_letters()) == [b"0", b"1", b"2"]


def test_a_process_keeps_them_while_the_store_is_away_and_it_is_told_once(
    broker: Broker, store: FakeStore, recorder: Recorder
) -> None:
    store.error = OSError("away")
    bury(broker, 2)
    wait_until(lambda: store.calls > 3)
    bury(broker, 1, first=2)
    told = [part for part, _ in recorder.named("failed")]

    store.error = None
    wait_until(lambda: len(store.letters) == 3)

    assert told == ["store of dead letters"]
    assert bodies(broker.dead_letters()) == [b"0", b"1", b"2"]


def test_one_that_is_not_there_yet_is_no_failure(
    broker: Broker, store: FakeStore, recorder: Recorder
) -> None:
    store.error = NoStoreError()
    bury(broker, 2)
    wait_until(lambda: store.calls > 3)

    wait_until(lambda: bodies(broker.dead_letters()) == [b"0", b"1"])
    assert [part for part, _ in recorder.named("failed")] == []

    store.error = None
    wait_until(lambda: len(store.letters) == 2)


def test_what_there_is_no_room_for_meanwhile_is_forgotten_and_told(
    broker: Broker, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.error = OSError("away")
    bury(broker, 14)
    waiting = broker._current_runtime().letters._waiting
    wait_until(lambda: waiting.forgotten == 4)

    store.error = None
    wait_until(lambda: len(store.letters) == 10)
    wait_until(lambda: broker.hooks.flush(LONG))

    (line,) = [one for one in caplog.records if one.name == "gomq.dead_letters"]
    assert line.levelno == logging.WARNING
    assert "forgot its 4 oldest dead letters" in line.getMessage()
    assert bodies(broker.dead_letters()) == [b"%d" % nth for nth in range(4, 14)]


def test_what_the_store_refuses_stays_and_keeps_no_other_from_it(
    broker: Broker, store: FakeStore, handler: Mended
) -> None:
    store.refused = {b"1"}
    bury(broker, 3)
    wait_until(lambda: len(store.letters) == 2)
    wait_until(lambda: len(broker.dead_letters()) == 3)

    (kept,) = [one for one in broker.dead_letters() if one.id not in store.letters]
    handler.is_mended = True
    assert broker.replay([kept.id]) == 1
    wait_until_settled(broker)

    assert handler.handled == [1]
    assert bodies(broker.dead_letters()) == [b"0", b"2"]


def test_stored_ones_are_replayed_and_the_law_holds(
    broker: Broker, store: FakeStore, handler: Mended
) -> None:
    letters = bury_in(store, broker, 3)
    handler.is_mended = True

    replayed = broker.replay([letters[0].id, letters[2].id, "unknown"])
    wait_until_settled(broker)

    stats = broker.stats().consumers["c"]
    assert (replayed, handler.handled) == (2, [0, 2])
    assert broker.dead_letters() == [letters[1]]
    assert (stats.dispatched, stats.unaccounted) == ({"a.b": 5}, 0)


def test_what_finds_no_room_stays_in_the_store_as_it_is(
    broker: Broker, store: FakeStore
) -> None:
    letters = bury_in(store, broker, 3)
    broker.pause("c")
    broker.resize("c", 1)

    replayed = broker.replay([one.id for one in letters])

    assert replayed == 1
    assert broker.dead_letters() == letters[1:]


def test_stored_ones_are_discarded(broker: Broker, store: FakeStore) -> None:
    letters = bury_in(store, broker, 2)

    assert broker.discard([letters[0].id, "unknown"]) == 1
    assert list(store.letters) == [letters[1].id]


def test_what_another_process_wants_replayed_is_taken(
    broker: Broker, store: FakeStore, handler: Mended
) -> None:
    names = [letter.id for letter in bury_in(store, broker, 3)]
    handler.is_mended = True

    store.asked = {names[1]}
    wait_until(lambda: handler.handled == [1])

    assert list(store.letters) == [names[0], names[2]]


def test_what_is_wanted_waits_for_room(
    broker: Broker, store: FakeStore, handler: Mended
) -> None:
    names = [letter.id for letter in bury_in(store, broker, 3)]
    handler.is_mended = True
    broker.pause("c")
    broker.resize("c", 1)

    store.asked = set(names)
    wait_until(lambda: len(store.letters) == 2)
    broker.resume("c")

    wait_until(lambda: handler.handled == [0, 1, 2])
    wait_until_settled(broker)
    assert broker.stats().consumers["c"].unaccounted == 0


def test_a_process_that_starts_finds_what_was_wanted_before(
    make_broker: MakeBroker, broker: Broker, store: FakeStore, handler: Mended
) -> None:
    bury_in(store, broker, 1)
    broker.close()
    store.asked = set(store.letters)
    handler.is_mended = True

    other = make_broker(keeping=Keeping(store=store))
    other.consume("a.b", handler, name="c")
    other.start()

    wait_until(lambda: handler.handled == [0])


def test_two_processes_take_what_is_wanted_once(
    make_broker: MakeBroker, broker: Broker, store: FakeStore, handler: Mended
) -> None:
    other = make_broker(keeping=Keeping(store=store))
    other.consume("a.b", handler, name="c")
    other.start()
    for first in range(0, 100, 10):
        bury(broker, 10, first)
        wait_until(lambda: len(store.letters) == first + 10)  # noqa: B023 - at once
    handler.is_mended = True

    store.asked = set(store.letters)
    for one in (broker, other):
        one.look_for_replays()
    # What was taken from the store is published a moment later.
    wait_until(lambda: len(handler.handled) >= 100)
    wait_until_settled(broker)
    wait_until_settled(other)

    assert sorted(handler.handled) == list(range(100))


def test_a_process_asks_nothing_where_nothing_is_kept(
    broker: Broker, store: FakeStore
) -> None:
    broker.start()
    wait_until(lambda: store.calls == 1)
    ticked = Event()
    ticks = count(1).__next__
    runtime = broker._current_runtime()
    runtime._worker.timers.every_second(lambda: ticks() == 3 and ticked.set())

    assert ticked.wait(60)
    assert store.calls == 1


def test_what_waits_is_written_at_the_end(
    broker: Broker, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.process.timers.TICK_SECONDS", 10 * LONG)
    store.error = OSError("away")
    bury(broker, 3)
    wait_until(lambda: broker.hooks.flush(LONG))
    assert not store.letters

    store.error = None
    broker.close()

    # A close waits a second for it, at most.
    wait_until(lambda: len(store.letters) == 3)
    assert bodies(list(store.letters.values())) == [b"0", b"1", b"2"]


def test_what_is_being_written_at_the_end_is_written_again_where_that_fails(
    broker: Broker, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.process.timers.TICK_SECONDS", 10 * LONG)
    keep, entered, may_fail = store.keep, Event(), Event()

    def fail_once(letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        monkeypatch.setattr(store, "keep", keep)
        entered.set()
        may_fail.wait(LONG)
        raise OSError("away")

    monkeypatch.setattr(store, "keep", fail_once)
    bury(broker, 1)
    assert entered.wait(LONG)

    broker.close()
    may_fail.set()

    wait_until(lambda: len(store.letters) == 1)


def test_a_store_that_is_not_there_replays_and_discards_nothing(
    broker: Broker, store: FakeStore
) -> None:
    store.error = NoStoreError()
    bury(broker, 1)

    assert broker.replay(["unknown"]) == 0
    assert broker.discard(["unknown"]) == 0
    wait_until(lambda: bodies(broker.dead_letters()) == [b"0"])


def test_without_a_store_there_are_no_replays_to_look_for(
    make_broker: MakeBroker, handler: Mended
) -> None:
    broker = make_broker()
    broker.consume("a.b", handler, name="c")
    bury(broker, 1)

    broker.look_for_replays()

    assert bodies(broker.dead_letters()) == [b"0"]


class Housekeeper:
    """Takes over what is to be done, or has no room for it."""

    def __init__(self) -> None:
        self.has_room = True

    def take(self, work: Callable[[], object]) -> bool:
        if self.has_room:
            work()
        return self.has_room


def make_keeper(store: FakeStore, hand_over: Callable[..., bool]) -> DeadLetterKeeper:
    return DeadLetterKeeper(
        "default",
        10,
        admit=lambda consumer, most, take: 0,
        store=store,
        hand_over=hand_over,
        flush=lambda: None,
        on_failure=lambda error: None,
    )


def letter(number: int) -> DeadLetter:
    delivery = Delivery(Message("a.b", b"%d" % number), 0.0)
    return make_dead_letter("default", "c", delivery, ValueError())


def test_what_housekeeping_has_no_room_for_is_written_at_the_next_tick(
    store: FakeStore,
) -> None:
    housekeeper = Housekeeper()
    keeper = make_keeper(store, housekeeper.take)
    housekeeper.has_room = False
    keeper.keep(letter(1))
    assert not store.letters

    housekeeper.has_room = True
    keeper.tick()

    assert bodies(list(store.letters.values())) == [b"1"]


def test_what_was_about_to_be_written_at_an_interrupt_is_not_lost(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        raise KeyboardInterrupt

    keeper = make_keeper(store, Housekeeper().take)
    with monkeypatch.context() as patch:
        patch.setattr(store, "keep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            keeper.keep(letter(1))

    keeper.tick()

    assert bodies(list(store.letters.values())) == [b"1"]
