from __future__ import annotations

from typing import Any

import pytest

from django_gomq.bus.counts import Histogram
from django_gomq.bus.delivery import DropReason, Verdict
from django_gomq.bus.stats import BrokerStats, ConsumerStats, QueueStats, Remainder

NOTHING = Histogram([1.0]).state()


def consumer(**numbers: Any) -> ConsumerStats:
    defaults: dict[str, Any] = {
        "dispatched": {},
        "processed": {},
        "dropped": {},
        "succeeded": 0,
        "dead_lettered": 0,
        "retries": 0,
        "depth": 0,
        "scheduled": 0,
        "in_flight": 0,
        "capacity": 1000,
        "oldest_age": 0.0,
        "paused": False,
        "exceptions": {},
        "last_success": None,
        "wait": NOTHING,
        "duration": NOTHING,
    }
    return ConsumerStats(**defaults | numbers)


def broker(queue: QueueStats, numbers: ConsumerStats) -> BrokerStats:
    return BrokerStats(
        queues={"x.y": QueueStats(), "a.b": queue},
        consumers={"idle": consumer(), "c": numbers},
        reader_up=True,
        started=True,
    )


def test_what_became_of_every_message_adds_up() -> None:
    stats = consumer(
        dispatched={"a.b": 100, "x.y": 11},
        dropped={("a.b", DropReason.EXPIRED): 1, ("x.y", DropReason.SHUTDOWN): 2},
        succeeded=50,
        dead_lettered=4,
        handed_back=8,
        depth=30,
        scheduled=10,
        in_flight=6,
    )

    assert stats.unaccounted == 0


def test_a_channel_is_as_full_as_what_waits_is_scheduled_or_in_work() -> None:
    assert consumer(depth=3, scheduled=1, in_flight=1, capacity=10).fill == 0.5


@pytest.mark.parametrize(
    "name",
    ["succeeded", "dead_lettered", "handed_back", "depth", "scheduled", "in_flight"],
)
def test_a_message_that_is_counted_nowhere_is_missed(name: str) -> None:
    assert consumer(dispatched={"a.b": 3}, **{name: 2}).unaccounted == 1


def test_attempts_are_no_ends() -> None:
    stats = consumer(
        dispatched={"a.b": 1}, processed={("a.b", Verdict.ERROR): 5}, retries=5
    )

    assert stats.unaccounted == 1


def test_a_bus_that_holds_nothing_is_quiet() -> None:
    done = QueueStats(published=5, dispatched=5, capacity=9)

    assert broker(done, consumer(succeeded=5, dead_lettered=1)).is_quiet


@pytest.mark.parametrize("name", ["depth", "delayed"])
def test_a_bus_is_not_quiet_while_a_queue_holds_something(name: str) -> None:
    held: dict[str, Any] = {name: 1}

    assert not broker(QueueStats(**held), consumer()).is_quiet


@pytest.mark.parametrize("name", ["depth", "scheduled", "in_flight"])
def test_a_bus_is_not_quiet_while_a_consumer_holds_something(name: str) -> None:
    assert not broker(QueueStats(), consumer(**{name: 1})).is_quiet


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        ({}, True),
        ({"dropped": {"a.b": 1}}, False),
        ({"in_flight": 1}, False),
        ({"background": ["later"]}, False),
        ({"unsettled": 1}, False),
    ],
)
def test_a_stop_is_clean_when_it_left_nothing(
    left: dict[str, Any], expected: bool
) -> None:
    nothing: dict[str, Any] = {"dropped": {}, "in_flight": 0, "seconds": 0.1}

    remainder = Remainder(**nothing | left)

    assert remainder.is_clean is expected


def test_numbers_of_one_moment_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        QueueStats().depth = 1  # type: ignore[misc]
