"""A reading of many consumers, as busy as a poll may meet."""

from __future__ import annotations

import random
import time

from django_gomq.live.reading import (
    BARS,
    Bar,
    ConsumerReading,
    EventReading,
    Finding,
    ProcessReading,
    Reading,
    Source,
    State,
)
from django_gomq.operations.viewing import Desired

CONSUMERS = 40
EVENTS = 30
PROCESSES = 8


def crowd() -> Reading:
    """Return a reading with 40 consumers, whose numbers differ in each bar."""
    chance = random.Random(7)
    states = list(State)
    return Reading(
        source=Source.TABLE,
        at=time.time(),
        processes=tuple(_process(number) for number in range(PROCESSES)),
        process_count=PROCESSES,
        consumers=tuple(
            _consumer(chance, number, states[number % len(states)])
            for number in range(CONSUMERS)
        ),
        events=tuple(_event(chance, number) for number in range(EVENTS)),
        findings=tuple(
            Finding(
                is_bad=True,
                broker="default",
                consumer=f"app{number}.consumer",
                text="dropped 101 messages (channel full)",
            )
            for number in range(4)
        ),
        emitted_rate=812.4,
        handled_rate=1_604.0,
        failed_share=0.01,
        waiting=5_120,
        lost=404,
        lost_by_reason={"channel_full": 404},
    )


def _process(number: int) -> ProcessReading:
    return ProcessReading(
        host="web-1",
        pid=4_000 + number,
        role="web",
        up_seconds=3_600.0,
        seen_seconds=1.2,
        threads=8,
        threads_busy=2,
    )


def _consumer(chance: random.Random, number: int, state: State) -> ConsumerReading:
    mean = chance.uniform(10, 300)
    bars = tuple(
        Bar(
            handled=max(0, round(chance.gauss(mean, mean / 4))),
            failed=chance.randrange(3) if number % 5 == 0 else 0,
            dropped=chance.randrange(2) if number % 9 == 0 else 0,
        )
        for _ in range(BARS)
    )
    return ConsumerReading(
        broker="default",
        consumer=f"app{number}.consumer",
        types=(f"app{number}.thing.saved",),
        severity="warning",
        state=state,
        processes=PROCESSES,
        paused_in=3,
        desired=Desired(changed_by="anna"),
        depth=chance.randrange(8_000),
        scheduled=0,
        in_flight=1,
        spilled=0,
        capacity=8_000,
        oldest_age=2.5,
        running_seconds=0.1,
        full_in=39.0 if number % 7 == 0 else None,
        bars=bars,
        in_rate=mean / 5,
        out_rate=mean / 5,
        wait_p95=chance.uniform(0.001, 20),
        handler_p95=chance.uniform(0.001, 2),
        handled=sum(bar.handled for bar in bars),
        failed=sum(bar.failed for bar in bars),
        failed_share=0.01,
        retried=0,
        dead_lettered=3,
        dropped={"channel_full": 101} if number % 9 == 0 else {},
    )


def _event(chance: random.Random, number: int) -> EventReading:
    bars = tuple(max(0, round(chance.gauss(40, 10))) for _ in range(BARS))
    return EventReading(
        broker="default",
        event=f"app{number}.thing.saved",
        goes_to=(f"app{number}.consumer", "search.index"),
        rate=bars[-1] / 5,
        bars=bars,
        published=sum(bars),
        refused={"queue_full": 3} if number % 10 == 0 else {},
        unconsumed=0,
        rolled_back=0,
        depth=chance.randrange(5),
        capacity=1_000,
    )
