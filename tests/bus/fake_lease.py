"""A backend with leases, on a store that brokers share as processes would."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from threading import Lock, Thread
from typing import Any, ClassVar

from django_gomq.bus.backend import (
    Backend,
    BackendContext,
    Capabilities,
    DeadLetter,
    Settled,
)
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.delivery import Delivery, Outcome
from django_gomq.bus.errors import (
    BackendUnavailableError,
    BrokerClosedError,
    NoConsumerError,
)
from django_gomq.bus.fork import claim_thread
from django_gomq.bus.message import Message
from django_gomq.bus.stats import QueueStats
from tests.bus.fake_lease_store import LeaseStore

POLL_SECONDS = 0.002


class LeaseBackend(Backend):
    """One process at the store: one thread fetches and keeps the leases."""

    name: ClassVar[str] = "lease"
    capabilities: ClassVar[Capabilities] = Capabilities(durable=True, priority=True)

    def __init__(self, store: LeaseStore) -> None:
        self.store = store
        self.owner = uuid.uuid4().hex
        self.keeps_leases = True
        self.calls: list[str] = []
        self._subscriptions: tuple[Subscription, ...] = ()
        self._held: dict[Delivery, Subscription] = {}
        self._lock = Lock()
        self._published: Counter[str] = Counter()
        self._is_closing = False
        self._has_ended = False
        self._stop = threading.Event()
        self._thread: Thread | None = None

    def open(self, surroundings: BackendContext) -> None:
        self._around = surroundings

    def subscribe(self, subscription: Subscription) -> None:
        self.store.register(subscription.consumer)
        self._subscriptions = (*self._subscriptions, subscription)

    def start_reading(self) -> None:
        self._thread = Thread(target=self._run, name="gomq-lease-reader", daemon=True)
        self._thread.start()

    def publish(self, message: Message[Any], timeout: float | None) -> None:
        about: Any = {"event": message.type, "broker": self._around.broker}
        if self._is_closing:
            raise BrokerClosedError("closed", **about)
        try:
            copies = self.store.insert(message)
        except ConnectionError as error:
            raise BackendUnavailableError(str(error), **about) from error
        if not copies:
            raise NoConsumerError("nobody subscribes", **about)
        with self._lock:
            self._published[message.type] += 1

    def _run(self) -> None:
        claim_thread()
        while not self._stop.wait(POLL_SECONDS):
            try:
                if not self._is_closing:
                    for subscription in self._subscriptions:
                        self._fetch(subscription)
                self._keep_leases()
            except Exception as error:  # noqa: BLE001 - the reader outlives its runner
                self._report(error)

    def _report(self, error: Exception) -> None:
        self._around.hooks.notify(lambda hook: hook.failed("reader", error))

    def _fetch(self, subscription: Subscription) -> None:
        room = subscription.channel.room
        if subscription.paused or not room:
            return
        claimed = self.store.claim(subscription.consumer.name, self.owner, room)
        with self._lock:
            self._held.update(dict.fromkeys(claimed, subscription))
        rest = subscription.accept(claimed)
        self._let_go(rest)
        self.store.release(self.owner, rest)

    def _keep_leases(self) -> None:
        if not self.keeps_leases:
            return
        with self._lock:
            held = dict(self._held)
        for subscription in self._subscriptions:
            mine = [one for one, owner in held.items() if owner is subscription]
            answers = self.extend(subscription, mine) if mine else []
            pairs = zip(mine, answers, strict=True)
            lost = {one for one, answer in pairs if answer is Settled.LOST_LEASE}
            if lost:
                self._let_go(lost)
                subscription.revoke(lost.__contains__)

    def _let_go(self, deliveries: Iterable[Delivery]) -> None:
        with self._lock:
            for delivery in deliveries:
                self._held.pop(delivery, None)

    def settle(
        self,
        subscription: Subscription,
        settlements: Sequence[tuple[Delivery, Outcome]],
    ) -> list[Settled]:
        # First: what the store is never told of must not be kept for ever.
        self._let_go(delivery for delivery, _ in settlements)
        if self._has_ended:
            return [Settled.LOST_LEASE] * len(settlements)
        return [self.store.settle(self.owner, *pair) for pair in settlements]

    def extend(
        self, subscription: Subscription, deliveries: Sequence[Delivery]
    ) -> list[Settled]:
        self.calls.append("extend")
        return self.store.extend(self.owner, deliveries)

    def release(
        self, subscription: Subscription, deliveries: Sequence[Delivery]
    ) -> None:
        self.calls.append("release")
        self._let_go(deliveries)
        subscription.counts.count_handed_back(len(deliveries))
        subscription.channel.release(len(deliveries))
        self.store.release(self.owner, deliveries)

    def stop_publishing(self) -> None:
        self.calls.append("stop_publishing")
        self._is_closing = True

    def stop_reading(self) -> None:
        self.calls.append("stop_reading")
        self._stop.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def close(self) -> None:
        self.calls.append("close")
        self._has_ended = True

    @property
    def is_reading(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def dead_letters(self) -> list[DeadLetter]:
        return list(self.store.dead)

    def queue_stats(self) -> dict[str, QueueStats]:
        return {
            event: QueueStats(published=count, dispatched=count)
            for event, count in self._published.items()
        }
