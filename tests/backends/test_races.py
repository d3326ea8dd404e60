"""Two processes' worth of brokers race at a server that loses leases and goes away."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from django_gomq.bus import readers
from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import Reject, RetryLater
from django_gomq.bus.errors import PublishError
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from tests.backends.fakes.lease import LEASE, LeaseBackend
from tests.backends.fakes.lease_server import LeaseServer
from tests.bus.interleaving import HOT, interleaved
from tests.bus.waiting import (
    LONG,
    is_settled,
    run_threads,
    wait_until,
    wait_until_settled,
)

MESSAGES = 200
KEYS = 7


class Bookkeeper:
    """Handlers that fail now and then, and what they saw."""

    def __init__(self) -> None:
        self.dice = random.Random(1)
        self.plain: Counter[int] = Counter()
        self.ordered: Counter[int] = Counter()
        self.batched: Counter[int] = Counter()
        self.awaited: Counter[int] = Counter()
        self.inside: Counter[tuple[int, str | None]] = Counter()
        self.together = 0

    def _stumble(self) -> None:
        match self.dice.randrange(12):
            case 0:
                raise ValueError
            case 1:
                raise RetryLater(0.001)
            case 2:
                raise Reject("no")

    def subscribe(self, broker: Broker) -> None:
        retry = Retry(attempts=50, min_delay=0, max_delay=0.001)
        me = id(broker)

        def plain(message: Message[int]) -> None:
            self.plain[message.data] += 1
            self._stumble()

        def ordered(message: Message[int]) -> None:
            place = me, message.key
            self.inside[place] += 1
            self.together = max(self.together, self.inside[place])
            self.ordered[message.data] += 1
            try:
                self._stumble()
            finally:
                self.inside[place] -= 1

        def batched(messages: list[Message[int]]) -> None:
            for message in messages:
                self.batched[message.data] += 1
            self._stumble()

        async def awaited(message: Message[int]) -> None:
            self.awaited[message.data] += 1
            self._stumble()

        broker.consume("a.b", plain, name="plain", retry=retry, concurrency=3)
        broker.consume(
            "a.b",
            ordered,
            name="ordered",
            retry=retry,
            ordered_by_key=True,
            concurrency=3,
            capacity=30,
        )
        broker.consume("a.b", batched, name="batched", retry=retry, batch=5)
        broker.consume("a.*", awaited, name="awaited", retry=retry, concurrency=4)

    def all_handled(self) -> bool:
        counts = (self.plain, self.ordered, self.batched, self.awaited)
        return all(len(count) == MESSAGES for count in counts)


class Site:
    """A server, two brokers at it, and all that goes wrong there."""

    def __init__(self) -> None:
        self.server, self.book = LeaseServer(LEASE), Bookkeeper()
        self.brokers = [self._make(), self._make()]
        self.brokers[0].setup()
        self.is_over = threading.Event()

    def _make(self) -> Broker:
        broker = Broker(lambda: LeaseBackend(self.server), threads=3)
        self.book.subscribe(broker)
        return broker

    def publish(self) -> None:
        for number in range(MESSAGES):
            message = Message[Any]("a.b", b"%d" % number, key=str(number % KEYS))
            broker = self.brokers[number % 2]
            while True:
                try:
                    broker.publish(message)
                    break
                except PublishError:
                    broker = self.brokers[0]

    def disturb(self) -> None:
        """Let leases end and the server be away, some times, as work goes on."""
        for step in range(12):
            done = self.book.plain.total() + self.book.ordered.total()
            wait_until(partial(self._has_moved_on, done + 20))
            self.server.pass_time(1.01 * LEASE)
            self.server.is_away = step % 3 == 2
            self.is_over.wait(0.01)  # a while away
            self.server.is_away = False

    def _has_moved_on(self, done: int) -> bool:
        handled = self.book.plain.total() + self.book.ordered.total()
        return handled >= done or self.book.all_handled()

    def is_over_with(self) -> bool:
        """Whether nothing is left at the server, nor in the brokers."""
        return not self.server._rows and all(map(is_settled, self.brokers))

    def check(self, broker: Broker) -> None:
        runtime: Any = broker._current_runtime()
        for name, stats in broker.stats().consumers.items():
            numbers = stats.depth, stats.scheduled, stats.in_flight, stats.unaccounted
            assert numbers == (0, 0, 0, 0), name
            subscription = runtime.subscription(name)
            assert subscription.channel.held == 0
            assert subscription.busy_keys == frozenset()
            assert not subscription.has_work
            assert subscription.keys is None or subscription.keys.blocked == 0
        assert runtime.inbox.held.all() == {}
        assert self.book.together == 1, "two of one key were handled at once"


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.is_over.set()
    site.server.is_away = False
    for broker in site.brokers:
        broker.close(timeout=0)


def test_no_permit_key_or_message_is_lost_whatever_a_server_does(site: Site) -> None:
    with interleaved(*HOT, readers, chance=0.002):
        for broker in site.brokers:
            broker.start()
        run_threads(site.publish, site.disturb, seconds=2 * LONG)
        wait_until(site.is_over_with, 2 * LONG)

    assert site.book.all_handled()
    for broker in site.brokers:
        site.check(broker)


def test_what_a_broker_leaves_that_stops_in_the_midst_another_one_handles(
    site: Site,
) -> None:
    first, second = site.brokers

    def stop() -> None:
        wait_until(lambda: len(site.book.plain) > MESSAGES // 4)
        first.close(timeout=0)
        site.server.pass_time(1.01 * LEASE)  # of what it had no time to give back
        site.brokers[0] = second

    with interleaved(*HOT, readers, chance=0.002):
        first.start()
        second.start()
        run_threads(site.publish, site.disturb, stop, seconds=2 * LONG)
        wait_until(site.is_over_with, 2 * LONG)
        wait_until_settled(first)

    assert site.book.all_handled()
    site.check(first)
    site.check(second)
