"""Reading many streams with little room: none holds the others up."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from django_gomq.backends.redis import reading
from django_gomq.bus.hooks import Hook
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.testing.conformance.site import LONG, Notes, Process, Site, wait_until

AGAIN = Retry(attempts=2, min_delay=600, max_delay=600)
LATER = "{gomq}:later:r:suite.counter"
TYPES = [f"suite.happened_{number}" for number in range(12)]


def reads(client: Any) -> int:
    """Return how often the server was asked for news."""
    stats = client.info("commandstats").get("cmdstat_xreadgroup", {"calls": 0})
    return int(stats["calls"])


def send_to_all(process: Process, numbers: range) -> None:
    for number in numbers:
        process.send(number, type=TYPES[number % len(TYPES)])


@pytest.mark.parametrize("capacity", [1, 2, 5, 100])
def test_streams_that_have_nothing_hold_no_others_up(
    redis_site: Site, monkeypatch: pytest.MonkeyPatch, capacity: int
) -> None:
    monkeypatch.setattr(reading, "BLOCK_SECONDS", 4 * LONG)
    process, notes = redis_site.process(), Notes()
    process.consume(notes, *TYPES, capacity=capacity, starts=False)
    send_to_all(process, range(100))
    process.broker.start()

    wait_until(lambda: len(notes.handled) == 100)

    assert sorted(notes.numbers) == list(range(100))


def test_an_idle_consumer_with_less_room_than_streams_asks_each_once_a_second(
    redis_site: Site, redis_client: Any
) -> None:
    process, notes = redis_site.process(), Notes()
    process.consume(notes, *TYPES, capacity=1)
    send_to_all(process, range(12))
    wait_until(lambda: len(notes.handled) == 12)
    streams = len(TYPES) + 1  # and that of what comes again
    began, before = time.monotonic(), reads(redis_client)

    wait_until(lambda: reads(redis_client) > before + 3 * streams)

    # A cycle in which each was asked in vain has no waits. The count comes first.
    asked = reads(redis_client) - before
    assert asked <= streams * (time.monotonic() - began + 3)


class Failures(Hook):
    """Notes what failed that goes on."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def failed(self, part: str, error: BaseException) -> None:
        self.texts.append(str(error))


def test_a_server_without_memory_is_told_of_once_and_what_it_has_is_handled(
    redis_site: Site, redis_client: Any
) -> None:
    failures, done, go_on = Failures(), Notes(), threading.Event()

    def fail_once(message: Message[Any]) -> None:
        assert go_on.wait(LONG)
        if message.attempt == 1:
            raise ValueError

    process, notes = redis_site.process(hooks=[failures]), Notes(fail_once)
    process.consume(notes, TYPES[0], retry=AGAIN)
    other = redis_site.process(may_start=lambda: False)
    other.consume(done, TYPES[1], name="suite.other", starts=False)
    process.send(*range(5), type=TYPES[0])
    other.send(*range(5), type=TYPES[1])
    wait_until(lambda: notes.handled)
    go_on.set()
    wait_until(lambda: redis_client.zcard(LATER) == 5)
    # At once, so that none comes again before.
    with redis_client.pipeline(transaction=True) as together:
        together.zadd(LATER, dict.fromkeys(redis_client.zrange(LATER, 0, -1), 0))
        together.config_set("maxmemory", 1)
        together.execute()
    try:
        wait_until(lambda: failures.texts)
        looks = process.calls.done("fetch")
        wait_until(lambda: process.calls.done("fetch") > looks + 30)
        other.broker.start()
        wait_until(lambda: len(done.handled) == 5)
    finally:
        redis_client.config_set("maxmemory", 0)

    assert len([text for text in failures.texts if "OOM" in text]) == 1
    wait_until(lambda: len(notes.handled) == 10)
    assert process.stats().unaccounted == 0
