"""Telling a server how deliveries ended: in batches, and again until it listens."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence, Sized
from functools import partial
from typing import Any

import pytest

from django_gomq.bus.backend import Settled, Settlement
from django_gomq.bus.delivery import ACK, Delivery
from django_gomq.bus.message import Message
from django_gomq.bus.worker import settlement_batcher as module
from django_gomq.bus.worker.settlement_batcher import (
    BATCH,
    BATCH_SECONDS,
    FAILURES_OF_A_SERVER,
    SettlementBatcher,
)
from tests.bus.interleaving import interleaved
from tests.bus.waiting import LONG, run_threads, wait_until


class Server:
    """Notes what it is told; may be away, slow, or unable to store some."""

    def __init__(self) -> None:
        self.calls: list[list[Settlement]] = []
        self.bad: set[Settlement] = set()
        self.lost: set[Settlement] = set()
        self.is_away = False
        self.entered, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        self.calls.append(list(settlements))
        self.entered.set()
        assert self.may_go_on.wait(LONG)
        if self.is_away or self.bad.intersection(settlements):
            raise ConnectionError("away")
        return [
            Settled.LOST_LEASE if settled in self.lost else Settled.DONE
            for settled in settlements
        ]

    def hold(self) -> None:
        """Let the next call wait until ``may_go_on`` is set."""
        self.entered.clear()
        self.may_go_on.clear()


class Concluded:
    """What was concluded, and how."""

    def __init__(self) -> None:
        self.answers: dict[Settlement, Settled] = {}
        self.calls: list[list[Settlement]] = []

    def __call__(
        self, settlements: Sequence[Settlement], answers: Sequence[Settled]
    ) -> None:
        assert not self.answers.keys() & set(settlements), "concluded twice"
        self.calls.append(list(settlements))
        self.answers.update(zip(settlements, answers, strict=True))

    def are(self, settlements: Sequence[Settlement]) -> bool:
        return self.answers.keys() == set(settlements)


def settlements(count: int) -> list[Settlement]:
    return [
        Settlement("c", Delivery(Message("a.b"), 0.0, 1, token), ACK)
        for token in range(count)
    ]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def errors() -> list[BaseException]:
    return []


@pytest.fixture
def concluded() -> Concluded:
    return Concluded()


@pytest.fixture
def batcher(server: Server, errors: list[Any]) -> Iterator[SettlementBatcher]:
    made = SettlementBatcher(server.settle, errors.append)
    made.start()
    yield made
    server.is_away = False
    server.bad.clear()
    server.may_go_on.set()
    made.stop(LONG)


def test_what_comes_together_goes_in_one_call_and_comes_back_in_one(
    server: Server, batcher: SettlementBatcher, concluded: Concluded
) -> None:
    told = settlements(5)

    batcher.add(concluded, [])  # which is not told
    batcher.add(concluded, told)

    wait_until(lambda: concluded.are(told))
    assert server.calls == concluded.calls == [told]
    assert set(concluded.answers.values()) == {Settled.DONE}


def test_a_batch_waits_for_more_and_no_longer_than_it_may(
    server: Server, batcher: SettlementBatcher, concluded: Concluded
) -> None:
    began = time.monotonic()

    batcher.add(concluded, settlements(1))
    wait_until(lambda: concluded.answers)

    assert time.monotonic() - began >= BATCH_SECONDS


def test_a_full_batch_goes_at_once_and_none_is_larger(
    server: Server,
    batcher: SettlementBatcher,
    concluded: Concluded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BATCH_SECONDS", 10 * LONG)
    told = settlements(2 * BATCH)

    batcher.add(concluded, told[:3])  # wakes it to wait for more
    batcher.add(concluded, told[3:])

    wait_until(lambda: concluded.are(told))
    assert list(map(len, server.calls)) == [BATCH, BATCH]


def test_each_gets_the_answers_to_its_own_in_their_order(
    server: Server, batcher: SettlementBatcher
) -> None:
    told = settlements(6)
    server.lost.update(told[::3])
    one, other = Concluded(), Concluded()
    server.hold()
    batcher.add(Concluded(), settlements(1))
    assert server.entered.wait(LONG)  # so these go together, mixed:

    for conclude, part in ((one, told[:2]), (other, told[2:4]), (one, told[4:])):
        batcher.add(conclude, part)
    server.may_go_on.set()

    wait_until(lambda: one.are(told[:2] + told[4:]) and other.are(told[2:4]))
    assert server.calls[1] == told
    lost = {
        each
        for each, answer in (one.answers | other.answers).items()
        if answer is Settled.LOST_LEASE
    }
    assert lost == set(told[::3])


def test_while_a_server_is_slow_nobody_who_adds_waits(
    server: Server, batcher: SettlementBatcher, concluded: Concluded
) -> None:
    server.hold()
    told = settlements(3)
    batcher.add(concluded, told[:1])
    assert server.entered.wait(LONG)

    batcher.add(concluded, told[1:])  # returns, though the server does not answer

    assert not concluded.answers
    server.may_go_on.set()
    wait_until(lambda: concluded.are(told))


# ------------------------------------------------------------------ what fails


def test_one_that_cannot_be_stored_keeps_no_other_back(
    server: Server,
    batcher: SettlementBatcher,
    concluded: Concluded,
    errors: list[BaseException],
) -> None:
    told = settlements(9)
    server.bad = {told[4]}
    good = told[:4] + told[5:]

    batcher.add(concluded, told)
    wait_until(lambda: concluded.are(good))
    # However often it fails, what comes later is stored at once.
    wait_until(lambda: server.calls.count([told[4]]) >= 4)
    later = settlements(1)
    batcher.add(concluded, later)
    wait_until(lambda: concluded.are(good + later))

    server.bad.clear()
    wait_until(lambda: concluded.are(told + later))
    assert len(errors) == 1


def test_a_bad_one_that_came_alone_is_told_apart_by_the_next_good_one(
    server: Server, batcher: SettlementBatcher, concluded: Concluded
) -> None:
    bad, *good = settlements(3)
    server.bad = {bad}
    batcher.add(concluded, [bad])
    wait_until(lambda: server.calls.count([bad]) >= 2)

    for each in good:
        batcher.add(concluded, [each])

    wait_until(lambda: concluded.are(good))


def test_bad_ones_in_front_do_not_starve_those_behind_them(
    server: Server, batcher: SettlementBatcher, concluded: Concluded
) -> None:
    told = settlements(3 * FAILURES_OF_A_SERVER)
    server.bad = set(told[: 2 * FAILURES_OF_A_SERVER])

    batcher.add(concluded, told)

    wait_until(lambda: concluded.are(told[2 * FAILURES_OF_A_SERVER :]))


def test_a_server_that_is_away_is_tried_with_few_and_gets_all_when_it_is_back(
    server: Server,
    batcher: SettlementBatcher,
    concluded: Concluded,
    errors: list[BaseException],
) -> None:
    server.is_away = True
    told = settlements(BATCH + 50)
    batcher.add(concluded, told[:100])
    wait_until(lambda: len(server.calls) > 1 + FAILURES_OF_A_SERVER)  # and again
    tried = Counter(len(call) for call in server.calls)
    batcher.add(concluded, told[100:])

    server.is_away = False

    wait_until(lambda: concluded.are(told))
    assert set(concluded.answers.values()) == {Settled.DONE}
    assert tried[1] <= FAILURES_OF_A_SERVER * (tried[100] or 1)
    assert [str(error) for error in errors] == ["away"]  # once for the outage


def test_each_outage_is_reported(
    server: Server,
    batcher: SettlementBatcher,
    concluded: Concluded,
    errors: list[BaseException],
) -> None:
    for _ in range(2):
        reported, answered = len(errors), len(concluded.answers)
        server.is_away = True
        batcher.add(concluded, settlements(1))
        wait_until(partial(grew, errors, reported))
        server.is_away = False
        wait_until(partial(grew, concluded.answers, answered))

    assert len(errors) == 2


def grew(found: Sized, before: int) -> bool:
    return len(found) > before


@pytest.mark.parametrize("answer", [[], [Settled.DONE] * 9], ids=["few", "many"])
def test_answers_that_do_not_fit_are_a_failure(
    answer: list[Settled],
    concluded: Concluded,
    errors: list[BaseException],
) -> None:
    right = threading.Event()

    def settle(told: Sequence[Settlement]) -> list[Settled]:
        return [Settled.DONE] * len(told) if right.is_set() else answer

    batcher, told = SettlementBatcher(settle, errors.append), settlements(2)
    batcher.start()
    batcher.add(concluded, told)
    wait_until(lambda: errors)
    assert "answers to 2 settlements" in str(errors[0])
    right.set()

    wait_until(lambda: concluded.are(told))
    assert batcher.stop(LONG) == 0


def test_what_a_server_says_it_could_not_store_is_offered_again(
    concluded: Concluded, errors: list[BaseException]
) -> None:
    seen: Counter[Any] = Counter()

    def settle(told: Sequence[Settlement]) -> list[Settled]:
        seen.update(each.delivery.token for each in told)
        return [
            Settled.KEPT if each.delivery.token == 1 and seen[1] < 3 else Settled.DONE
            for each in told
        ]

    batcher, told = SettlementBatcher(settle, errors.append), settlements(3)
    batcher.start()

    batcher.add(concluded, told)

    wait_until(lambda: concluded.are(told))
    assert seen == {0: 1, 1: 3, 2: 1}
    assert errors == []
    assert batcher.stop(LONG) == 0


def test_a_bug_of_who_hears_the_answers_ends_no_thread(
    batcher: SettlementBatcher, concluded: Concluded, errors: list[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise SystemExit("injected")

    batcher.add(fail, settlements(1))
    wait_until(lambda: errors)

    batcher.add(concluded, settlements(1))

    wait_until(lambda: concluded.answers)
    assert batcher.is_up


# ------------------------------------------------------------------ start and stop


def test_what_is_added_before_the_start_is_told_after_it(
    server: Server, concluded: Concluded
) -> None:
    batcher = SettlementBatcher(server.settle, print)
    batcher.add(concluded, settlements(1))
    assert not batcher.is_up

    batcher.start()
    batcher.start()  # once

    wait_until(lambda: concluded.answers)
    assert batcher.is_up
    assert batcher.stop(LONG) == 0
    assert not batcher.is_up


def test_a_start_that_fails_may_be_tried_again(
    server: Server, concluded: Concluded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    batcher = SettlementBatcher(server.settle, print)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            batcher.start()
    assert not batcher.is_up

    batcher.start()

    assert batcher.is_up
    assert batcher.stop(LONG) == 0


def test_a_stop_tells_what_is_left_without_waiting_for_more(
    server: Server,
    batcher: SettlementBatcher,
    concluded: Concluded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BATCH_SECONDS", 10 * LONG)
    told = settlements(3)
    batcher.add(concluded, told)

    left = batcher.stop(LONG)

    assert left == 0
    assert concluded.are(told)
    assert set(concluded.answers.values()) == {Settled.DONE}


def test_a_stop_waits_for_a_server_that_comes_back(
    server: Server, batcher: SettlementBatcher, concluded: Concluded
) -> None:
    server.is_away = True
    told = settlements(3)
    batcher.add(concluded, told[:2])
    wait_until(lambda: len(server.calls) > 3)
    batcher.add(concluded, told[2:])
    left: list[int] = []

    def come_back() -> None:
        tries = len(server.calls)
        wait_until(lambda: len(server.calls) > tries + 2)
        server.is_away = False

    run_threads(lambda: left.append(batcher.stop(LONG)), come_back, seconds=2 * LONG)

    assert left == [0]
    assert concluded.are(told)


@pytest.mark.parametrize("how", ["away", "slow", "never started"])
def test_what_is_never_told_counts_as_lost_once_and_is_said(
    server: Server, concluded: Concluded, how: str
) -> None:
    batcher = SettlementBatcher(server.settle, lambda _: None)
    server.is_away = how == "away"
    told = settlements(5)
    if how == "slow":
        server.hold()
    if how != "never started":
        batcher.start()
        batcher.add(concluded, told[:3])
        assert server.entered.wait(LONG)
        batcher.add(concluded, told[3:])
    else:
        batcher.add(concluded, told)

    left = batcher.stop(0.01)

    assert left == 5
    assert concluded.are(told)
    assert set(concluded.answers.values()) == {Settled.LOST_LEASE}
    server.may_go_on.set()  # the answer of a slow one comes too late
    wait_until(lambda: not batcher.is_up)
    assert batcher.stop(LONG) == 0


def test_what_is_added_after_the_stop_counts_as_lost(
    server: Server, batcher: SettlementBatcher, concluded: Concluded
) -> None:
    batcher.stop(LONG)

    batcher.add(concluded, settlements(2))

    assert list(concluded.answers.values()) == [Settled.LOST_LEASE] * 2
    assert server.calls == []


def test_a_conclusion_may_stop_it(server: Server) -> None:
    batcher, left = SettlementBatcher(server.settle, print), list[int]()
    batcher.start()

    batcher.add(lambda *_: left.append(batcher.stop(LONG)), settlements(1))

    wait_until(lambda: left == [0])
    wait_until(lambda: not batcher.is_up)


def test_racing_threads_get_one_answer_to_each(errors: list[BaseException]) -> None:
    is_well, calls = threading.Event(), [0]
    answered = [Concluded() for _ in range(4)]
    told = [settlements(300) for _ in answered]

    def settle(batch: Sequence[Settlement]) -> list[Settled]:
        calls[0] += 1
        if calls[0] % 3 == 0 and not is_well.is_set():
            raise ConnectionError
        return [
            Settled.KEPT
            if each.delivery.token == calls[0] and not is_well.is_set()
            else Settled.DONE
            for each in batch
        ]

    batcher = SettlementBatcher(settle, errors.append)

    def add(number: int) -> None:
        for start in range(0, 300, 7):
            batcher.add(answered[number], told[number][start : start + 7])

    with interleaved(module):
        batcher.start()
        run_threads(*(partial(add, number) for number in range(4)))
        is_well.set()
        left = batcher.stop(LONG)

    assert left == 0
    for conclude, mine in zip(answered, told, strict=True):
        assert conclude.are(mine)
        assert set(conclude.answers.values()) == {Settled.DONE}
