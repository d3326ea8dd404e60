"""What messages occupy: while they wait, and after a million of them has passed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import django

from benchmarks.cases.bus import Bus, with_room
from benchmarks.memory import resident
from benchmarks.project import STOCK_APPS, configure
from benchmarks.sink import NS, PATIENCE, TYPE, now
from django_gomq import Message, get_broker

Run = Callable[[], Mapping[str, float]]
BURST = 900
FEWEST = 1000  # messages below which the pages of the allocator hide them
NAME = "bench.consumer_0"


def waiting(count: int) -> Run:
    """Keep so many messages waiting for a paused consumer."""

    def run() -> Mapping[str, float]:
        room = count + BURST
        bus = Bus(gomq=with_room(room), capacity=room)
        bus.broker.pause(NAME)
        before = resident()
        _publish(bus, count)
        grown = resident() - before
        began = now()
        _publish_burst(bus)
        each = (now() - began) * NS / BURST
        held = {"bytes_each": grown / count} if count >= FEWEST else {}
        return {"grown": grown, "publish": each, **held}

    return run


def _publish(bus: Bus, count: int) -> None:
    """Publish messages with bodies of their own, and wait until all are dispatched."""
    for number in range(count):
        body = b'{"order_id":%d,"status":"paid","total":"99.90"}' % number
        bus.broker.publish(Message(TYPE, body), timeout=PATIENCE)
    while bus.broker.stats().consumers[NAME].depth < count:
        time.sleep(0.001)


def _publish_burst(bus: Bus) -> None:
    for _ in range(BURST):
        bus.broker.publish(Message(TYPE, b"{}"))


def passing(messages: int) -> Run:
    """Have so many messages handled, and look at the memory before and after."""

    def run() -> Mapping[str, float]:
        bus = Bus(overflow="backpressure")
        bus.broker.publish(Message(TYPE))
        bus.settle(1)
        before = resident()
        for _ in range(messages):
            bus.broker.publish(Message(TYPE, b"{}"), timeout=PATIENCE)
        bus.settle(messages)
        return {"before": before, "after": resident()}

    return run


def at_rest(apps: list[str], consumers: int) -> Run:
    """Set up a new project with these apps, and wait until nothing happens."""

    def run() -> Mapping[str, float]:
        configure([*STOCK_APPS, *apps])
        django.setup()
        if consumers:
            start_consumers(consumers)
        return {"resident": resident()}

    return run


def start_consumers(consumers: int) -> None:
    """Start so many consumers, and have each handle one message."""
    broker = get_broker()
    for number in range(consumers):
        name = f"bench.event_{number}"
        broker.consume([name], lambda message: None, name=name)
        broker.publish(Message(name))
    while not broker.stats().is_quiet:
        time.sleep(0.001)
