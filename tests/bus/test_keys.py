from __future__ import annotations

from collections import Counter

import pytest

from django_gomq.bus.channels.channel import Channel
from django_gomq.bus.channels.key_order import KeyOrder
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.message import Message
from tests.bus.waiting import LONG, fast_switching, run_threads, wait_until


def make(key: str | None, name: str = "") -> Delivery:
    return Delivery(Message("a.b", key=key, number=f"{key}{name}"), 0)


def gate_of(*keys: str | None) -> tuple[KeyOrder, list[Delivery]]:
    """Return a gate, and the deliveries that wait in its channel."""
    channel: Channel[Delivery] = Channel(1000)
    deliveries = [make(key, str(index)) for index, key in enumerate(keys)]
    for delivery in deliveries:
        channel.put(delivery)
    return KeyOrder(channel), deliveries


def test_deliveries_of_different_keys_go_out_together() -> None:
    gate, (a, b, c) = gate_of("a", "b", "c")

    assert gate.take(2) == [a, b]
    assert gate.take(9) == [c]


def test_a_delivery_waits_for_the_one_of_its_key_before_it() -> None:
    gate, (first, _, b) = gate_of("a", "a", "b")

    assert gate.take(9) == [first, b]
    assert gate.take(9) == []


def test_a_settled_delivery_lets_the_next_of_its_key_out() -> None:
    gate, (first, second, third) = gate_of("a", "a", "a")
    gate.take(9)

    assert gate.finish(first)
    assert gate.take(9) == [second]
    assert gate.finish(second)
    assert gate.take(9) == [third]


def test_the_last_of_a_key_lets_nobody_out() -> None:
    gate, (first, second) = gate_of("a", "a")
    gate.take(9)
    gate.finish(first)
    gate.take(9)

    assert not gate.finish(second)
    assert not gate


def test_a_key_that_was_freed_can_be_held_again() -> None:
    gate, (first,) = gate_of("a")
    gate.take(9)
    gate.finish(first)
    later = make("a", "later")

    gate._channel.put(later)

    assert gate.take(9) == [later]


def test_deliveries_without_a_key_wait_for_nobody() -> None:
    gate, deliveries = gate_of(None, None, None)

    assert gate.take(9) == deliveries
    assert not gate.finish(deliveries[0])


def test_a_retry_keeps_its_place_before_later_ones_of_its_key() -> None:
    gate, (first, second) = gate_of("a", "a")
    gate.take(9)

    while_it_waits = gate.take(9)
    gate.admit_again(first)

    assert while_it_waits == []
    assert gate.take(9) == [first]
    gate.finish(first)
    assert gate.take(9) == [second]


def test_what_was_not_started_is_taken_next() -> None:
    gate, (a, b, c) = gate_of("a", "b", "c")
    gate.put_back(gate.take(2))

    assert gate.take(9) == [a, b, c]


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_no_more_is_taken_than_was_asked_for(most: int) -> None:
    gate, _ = gate_of("a", "b", "a", "c", "d")
    gate.put_back(gate.take(1))

    assert len(gate.take(most)) == most


def test_a_gate_is_true_while_it_could_give_without_its_channel() -> None:
    gate, (first, _) = gate_of("a", "a")
    before = bool(gate)
    gate.take(9)
    held = bool(gate)

    gate.finish(first)

    assert (before, held, bool(gate)) == (False, False, True)


def test_what_is_wanted_is_taken_from_all_that_waits() -> None:
    gate, (_, a2, a3, b) = gate_of("a", "a", "a", "b")
    gate.take(9)
    gate.put_back([b])

    taken = gate.take_where(lambda one: one in {a2, b})

    assert taken == [b, a2]
    assert gate.firsts() == [a3]


def test_what_is_taken_away_frees_its_key() -> None:
    gate, (first, second) = gate_of("a", "a")
    gate.take(9)
    gate.put_back([first])

    gate.take_where(lambda one: one is first)

    assert gate.take(9) == [second]


def test_deliveries_without_a_key_can_be_taken_away() -> None:
    gate, (one, other) = gate_of(None, None)
    gate.put_back(gate.take(9))

    assert gate.take_where(lambda each: each is one) == [one]
    assert gate.take(9) == [other]


def test_a_key_is_busy_from_its_first_delivery_until_its_last_one_ended() -> None:
    gate, (first, second, _) = gate_of("a", "a", None)
    before = gate.busy()
    gate.take(9)
    in_work = gate.busy()

    gate.finish(first)
    gate.put_back(gate.take(9))  # not started
    waiting = gate.busy()
    gate.take(9)
    gate.admit_again(second)
    retried = gate.busy()
    gate.take(9)
    gate.finish(second)

    assert before == gate.busy() == frozenset()
    assert in_work == waiting == retried == {"a"}


def test_the_oldest_of_each_kind_can_be_seen() -> None:
    gate, (_, a2, _, b) = gate_of("a", "a", "a", "b")
    gate.take(9)
    gate.put_back([b])

    assert gate.firsts() == [b, a2]


def test_racing_threads_never_have_two_of_one_key() -> None:
    gate, deliveries = gate_of(*"abcabcaab" * 60)
    out: Counter[str | None] = Counter()
    done: list[Delivery] = []
    most: list[int] = []

    def work() -> None:
        while len(done) < len(deliveries):
            for delivery in gate.take(3):
                key = delivery.message.key
                out[key] += 1
                most.append(out[key])
                out[key] -= 1
                done.append(delivery)
                gate.finish(delivery)

    with fast_switching():
        run_threads(work, work, work, work, seconds=LONG)
    wait_until(lambda: len(done) == len(deliveries))

    assert max(most) == 1
    for key in "abc":
        expected = [one for one in deliveries if one.message.key == key]
        assert [one for one in done if one.message.key == key] == expected
