"""What the live page shows, from what processes hold and have counted."""

from __future__ import annotations

from typing import Any

import pytest

from django_gomq.bus.consumer import make_consumer
from django_gomq.live.assembling import Known, assemble
from django_gomq.live.reading import (
    BARS,
    Bar,
    ConsumerReading,
    Reading,
    Source,
    State,
)
from django_gomq.live.sources import Facts
from django_gomq.live.window import Window
from django_gomq.operations.moments import (
    ConsumerCounted,
    ConsumerHolds,
    Counted,
    EventCounted,
    EventHolds,
    Holds,
    Tick,
)
from django_gomq.operations.viewing import Desired

NOW = 1_000_000.0
KEY = "default", "lab.analysis"
CONSUMER = make_consumer(
    ["lab.*"], lambda message: None, name="lab.analysis", options={}
)


def tick(ended: float, seconds: float = 2.0, slot: int = 1, **counts: Any) -> Tick:
    consumers = {"default": {"lab.analysis": ConsumerCounted(**counts)}}
    counted = Counted(consumers=consumers)
    return Tick(slot=slot, ended=ended, seconds=seconds, counted=counted)


def published(ended: float, **counts: Any) -> Tick:
    events = {"default": {"lab.asked": EventCounted(**counts)}}
    return Tick(slot=1, ended=ended, seconds=2.0, counted=Counted(events=events))


def holds(**held: Any) -> Holds:
    return Holds(consumers={"default": {"lab.analysis": ConsumerHolds(**held)}})


def reading(
    *ticks: Tick,
    held: list[Holds] | None = None,
    desired: Desired | None = None,
    keeps_all: bool = False,
) -> Reading:
    window = Window()
    for one in ticks:
        window.add(one)
    window.advance(NOW)
    rows = [holds(capacity=100)] if held is None else held
    facts = Facts(
        source=Source.TABLE,
        at=NOW,
        holds=rows,
        process_count=len(rows),
        desired={} if desired is None else {KEY: desired},
    )
    return assemble(facts, window, [Known("default", CONSUMER, keeps_all)])


def row(*ticks: Tick, **more: Any) -> ConsumerReading:
    (found,) = reading(*ticks, **more).consumers
    return found


def every_two_seconds(since: float, **counts: Any) -> list[Tick]:
    return [
        tick(NOW - age, **counts) for age in range(int(since), 0, -2) if age < since
    ]


def test_counts_are_of_the_last_five_minutes() -> None:
    found = row(tick(NOW - 301, handled=7), tick(NOW - 299, handled=5, failed=2))

    assert (found.handled, found.failed) == (5, 2)


def test_what_is_old_goes_as_it_came() -> None:
    window = Window()
    counts: dict[str, Any] = {
        "handled": 3,
        "dropped": {"channel_full": 2},
        "wait": {4: 3},
    }
    window.add(tick(NOW, **counts))
    window.advance(NOW + 10)
    assert window.consumers.by_key[KEY].dropped == {"channel_full": 2}

    window.advance(NOW + 340)

    assert window.consumers.by_key == {}


def test_a_bar_has_what_became_of_messages_in_five_seconds() -> None:
    found = row(
        tick(NOW - 28, handled=4),
        tick(NOW - 26, handled=1, failed=2, dropped={"channel_full": 3}),
    )

    assert len(found.bars) == BARS
    assert [bar for bar in found.bars if bar != Bar()] == [
        Bar(handled=5, failed=2, dropped=3)
    ]


def test_a_long_tick_is_spread_over_its_bars() -> None:
    found = row(tick(NOW - 20, seconds=10.0, handled=11))

    assert [bar.handled for bar in found.bars if bar.handled] == [6, 5]


def test_rates_are_of_the_processes_together() -> None:
    ticks = [
        tick(NOW - age, slot=slot, dispatched=4, handled=2)
        for age in range(60, -2, -2)
        for slot in (1, 2)
    ]

    found = row(*ticks)

    assert (found.in_rate, found.out_rate) == pytest.approx((4.0, 2.0))


def test_places_are_those_of_all_processes() -> None:
    found = row(
        held=[
            holds(capacity=100, depth=10, in_flight=1, oldest_age=3.0),
            holds(capacity=50, scheduled=4, oldest_age=1.0, running_seconds=2.0),
        ]
    )

    assert (found.taken, found.capacity, found.processes) == (15, 150, 2)
    assert (found.oldest_age, found.running_seconds) == (3.0, 2.0)
    assert found.fill == pytest.approx(0.1)


def test_it_says_when_a_channel_will_be_full() -> None:
    found = row(
        *every_two_seconds(80, dispatched=4, handled=2),
        held=[holds(capacity=100, depth=40)],
    )

    assert found.full_in == pytest.approx(60, rel=0.1)


@pytest.mark.parametrize(
    "more",
    [
        {"keeps_all": True, "held": [holds(capacity=100, depth=40)]},
        {"held": [holds(capacity=1_000_000, depth=40)]},
    ],
)
def test_it_says_nothing_of_that_where_nothing_would_be_lost_soon(more: Any) -> None:
    assert row(*every_two_seconds(80, dispatched=4, handled=2), **more).full_in is None


def test_quantiles_are_of_the_fine_histogram() -> None:
    found = row(tick(NOW - 10, handled=100, wait={4: 100}, duration={9: 95, 30: 5}))

    assert found.wait_p95 == pytest.approx(0.001, rel=0.3)
    assert found.handler_p95 == pytest.approx(0.004, rel=0.3)
    assert row().wait_p95 is None


PAUSED = Desired(paused=True, changed_by="anna")
LOST: dict[str, Any] = {"dropped": {"channel_full": 1}}


@pytest.mark.parametrize(
    ("state", "ticks", "held", "desired"),
    [
        (State.IDLE, [], [holds(capacity=9)], None),
        (State.RUNNING, [tick(NOW - 10, handled=1)], [holds(capacity=9)], None),
        (State.ABSENT, [], [], None),
        (State.PAUSED, [], [holds(capacity=9, paused=1)], PAUSED),
        (State.PAUSING, [], [holds(capacity=9), holds(paused=1)], PAUSED),
        (State.RESUMING, [], [holds(paused=1)], Desired(paused=False)),
        (State.FILLING, [], [holds(capacity=9, depth=5)], None),
        (State.FAILING, [tick(NOW - 15, handled=3, failed=1)], [holds()], None),
        (State.STUCK, [], [holds(capacity=9, running_seconds=130.0)], None),
        (State.LOSING, [tick(NOW - 200, **LOST)], [holds()], None),
        (State.PAUSED_LOSING, [tick(NOW - 9, **LOST)], [holds(paused=1)], PAUSED),
    ],
)
def test_a_state_says_how_a_consumer_is(
    state: State, ticks: list[Tick], held: list[Holds], desired: Desired | None
) -> None:
    assert row(*ticks, held=held, desired=desired).state is state


def test_a_process_that_pauses_is_one_of_two() -> None:
    found = row(held=[holds(), holds(paused=1)], desired=PAUSED)

    assert (found.paused_in, found.processes) == (1, 2)
    assert found.desired.changed_by == "anna"


def test_a_finding_says_what_is_wrong_and_with_what() -> None:
    found = reading(tick(NOW - 9, dropped={"channel_full": 101}))

    (finding,) = found.findings
    assert (finding.is_bad, finding.consumer) == (True, "lab.analysis")
    assert finding.text == "dropped 101 messages (channel full)"
    assert (found.lost, found.lost_by_reason) == (101, {"channel_full": 101})


def test_refused_messages_are_lost_and_found() -> None:
    found = reading(published(NOW - 9, published=3, refused={"queue_full": 1}))

    (finding,) = found.findings
    assert (finding.event, finding.text) == (
        "lab.asked",
        "1 message refused (queue full)",
    )
    assert found.lost == 1


def test_an_event_goes_to_those_that_subscribe_to_it() -> None:
    held = Holds(events={"default": {"lab.asked": EventHolds(depth=2, capacity=9)}})

    found = reading(published(NOW - 30, published=10), held=[held])

    (event,) = found.events
    assert (event.event, event.goes_to) == ("lab.asked", ("lab.analysis",))
    assert (event.published, event.depth, sum(event.bars)) == (10, 2, 10)


def test_nothing_is_wrong_where_all_is_well() -> None:
    found = reading(*every_two_seconds(60, dispatched=2, handled=2))

    assert found.findings == ()
    assert found.lost == 0
