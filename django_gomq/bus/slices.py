"""One slice of work: takes deliveries, processes and settles; it knows no thread.

A slice is what one thread takes from a channel at a time: a fair share, and at most
what its handler does in about a millisecond, so that an urgent message never waits
long behind slow ones (measured: 0.49 s behind 256 prefetched ones).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from threading import get_ident
from typing import Final

from .backend import Backend
from .delivery import Delivery
from .outcome import Outcome
from .processor import Processor
from .settling import Results, Settler
from .subscription import Subscription, take_hand

SLICE_NS: Final = 1_000_000
MAX_SLICE: Final = 256


class Server:
    """Serves one subscription; thread-safe, blocks as long as its handler does."""

    def __init__(
        self,
        subscription: Subscription,
        backend: Backend,
        processor: Processor,
        threads: int,
    ) -> None:
        self.subscription = subscription
        self.processor = processor
        self.settle = Settler(subscription, backend).settle
        self._sharers = min(threads, subscription.consumer.concurrency)

    def share(self) -> int:
        """Return how many deliveries a thread may take now."""
        consumer = self.subscription.consumer
        if consumer.batch is not None:
            return consumer.batch
        pace_ns = self.subscription.pace_ns
        if not pace_ns:
            return 1  # nothing is known of this handler yet
        fair = -(-len(self.subscription.channel) // self._sharers)
        return max(1, min(fair, SLICE_NS // pace_ns, MAX_SLICE))

    def serve(self, batch: list[Delivery]) -> None:
        """Process and settle what was taken."""
        if self.subscription.consumer.batch is not None:
            self._serve_batch(batch)
        else:
            self._serve_each(batch)

    def _serve_each(self, batch: list[Delivery]) -> None:
        # What is not started stays where a stop finds it.
        hand = deque(batch)
        me = get_ident()
        self.subscription.hands[me] = hand
        results = Results()
        with count_in_flight(self.subscription, 1):
            spent_ns = self._work_off(hand, results)
        del self.subscription.hands[me]
        if results.durations:  # a stop may have taken all
            self._learn_pace(spent_ns // len(results.durations))
            self.settle(results)

    def _work_off(self, hand: deque[Delivery], results: Results) -> int:
        """Process until the hand is empty; return the nanoseconds that it took."""
        clock = time.perf_counter_ns
        before = began = clock()
        # One clock read per message: the wall clock is the monotonic one, shifted.
        to_wall = time.time_ns() - before
        while True:
            try:
                delivery = hand.popleft()
            except IndexError:
                return before - began
            outcome, trace_id = self._process_safely(delivery)
            after = clock()
            results.add(delivery, outcome)
            waited = before + to_wall - delivery.available_ns
            results.time(waited, after - before, trace_id)
            before = after
            if hand and after - began > 2 * SLICE_NS:
                self.subscription.put_back(take_hand(hand))

    def _process_safely(self, delivery: Delivery) -> tuple[Outcome, str | None]:
        try:
            return self.processor.process(delivery)
        except BaseException as failure:  # noqa: BLE001 - a bug of ours or of the host's
            error = failure
            self.subscription.hooks.tell(lambda hook: hook.failed("processor", error))
            return self.processor.decide(delivery, error), None

    def _process_batch_safely(self, batch: Sequence[Delivery]) -> list[Outcome]:
        try:
            return self.processor.process_batch(batch)
        except BaseException as failure:  # noqa: BLE001 - as for a single one
            error = failure
            self.subscription.hooks.tell(lambda hook: hook.failed("processor", error))
            return [self.processor.decide(one, error) for one in batch]

    def _serve_batch(self, batch: list[Delivery]) -> None:
        began = time.perf_counter_ns()
        now = time.time_ns()
        with count_in_flight(self.subscription, len(batch)):
            outcomes = self._process_batch_safely(batch)
        spent = time.perf_counter_ns() - began
        results = Results(durations=[spent])
        for delivery, outcome in zip(batch, outcomes, strict=True):
            results.add(delivery, outcome)
            results.waits.append(max(0, now - delivery.available_ns))
        self.settle(results)

    def _learn_pace(self, mean_ns: int) -> None:
        # A handler that turns slow is believed at once, one that turns fast slowly.
        known = self.subscription.pace_ns
        grown = mean_ns if mean_ns > known else (7 * known + mean_ns) // 8
        self.subscription.pace_ns = max(1, grown)


class count_in_flight:  # noqa: N801 - used as a function
    """Counts deliveries as inside the handler for as long as the block lasts."""

    __slots__ = ("_count", "_subscription")

    def __init__(self, subscription: Subscription, count: int) -> None:
        self._subscription = subscription
        self._count = count

    def __enter__(self) -> None:
        with self._subscription.counts.lock:
            self._subscription.in_flight += self._count

    def __exit__(self, *error: object) -> None:
        with self._subscription.counts.lock:
            self._subscription.in_flight -= self._count
