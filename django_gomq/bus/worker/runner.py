"""One slice of work: takes deliveries, processes and settles.

A slice is what one thread takes from a channel at a time: a fair share, and at most
what its handler does in about a millisecond, so that an urgent message never waits
long behind slow ones (measured: 0.49 s behind 256 prefetched ones).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from threading import get_ident
from typing import Final

from django_gomq.bus.channels.subscription import Subscription, shared_iterator
from django_gomq.bus.delivery import ACK, Delivery, Outcome
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.process.fork import current, end_if_forked

from .processor import Processor, SliceResult
from .settler import Results, Settler

SLICE_SECONDS: Final = 0.001
MAX_SLICE: Final = 256

Observer = Callable[[Subscription, Results], object]
"""Is shown what became of each slice, on the thread that settled it: it must not wait,
and keeps nothing of the results themselves."""

_taken = threading.local()  # what the current thread has taken and not yet started


def _let_go() -> None:
    """Have a child that a handler forks handle nothing of what its parent took."""
    for _ in getattr(_taken, "unstarted", ()):
        pass


getattr(os, "register_at_fork", dict)(after_in_child=_let_go)


class ConsumerRunner:
    """Serves one subscription; thread-safe, blocks as long as its handler does."""

    def __init__(
        self,
        subscription: Subscription,
        settler: Settler,
        processor: Processor,
        threads: int,
    ) -> None:
        self.subscription = subscription
        self.processor = processor
        self._settler = settler
        self.settle = settler.settle
        """Ends deliveries; does not wait for a server."""
        self._sharers = min(threads, subscription.consumer.concurrency)
        consumer = subscription.consumer
        self.serve = self._serve_each if consumer.batch is None else self._serve_batch
        """Processes and settles what was taken."""

    def observe(self, observer: Observer | None) -> None:
        """Show this one what becomes of slices from now on; None: nobody.

        Where nobody is shown anything, that costs nothing. Thread-safe, idempotent.
        """
        if observer is None:
            self.settle = self._settler.settle
        else:
            self.settle = partial(self._settle_shown, observer)

    def _settle_shown(self, observer: Observer, results: Results) -> None:
        self._settler.settle(results)
        try:
            observer(self.subscription, results)
        except Exception as failure:  # noqa: BLE001 - what was settled stays settled
            error = failure
            self.subscription.hooks.notify(lambda hook: hook.failed("observer", error))

    def share(self) -> int:
        """Return how many deliveries a thread may take now."""
        consumer = self.subscription.consumer
        if consumer.batch is not None:
            return consumer.batch
        mean_seconds = self.subscription.mean_seconds
        if not mean_seconds:
            return 1  # nothing is known of this handler yet
        most = min(int(SLICE_SECONDS / mean_seconds), MAX_SLICE)
        if self._sharers > 1:
            most = min(most, -(-len(self.subscription.channel) // self._sharers))
        return max(1, most)

    def _serve_each(self, batch: Sequence[Delivery]) -> None:
        # What is not started stays where a stop finds it.
        unstarted = shared_iterator(batch)
        subscription, me, process = self.subscription, get_ident(), current()
        subscription.unstarted[me] = _taken.unstarted = unstarted
        subscription.begin(1)
        found = self._work_off(unstarted)
        end_if_forked(process, found.last_error)
        del subscription.unstarted[me]
        left = list(unstarted)
        if left:
            subscription.put_back(left)
        times = found.times
        served = len(times) - 1
        if served:
            self.learn_mean((times[-1] - times[0]) / served)
            self.settle(_results_of(batch, found))
        else:
            subscription.end(1)  # a stop has taken all

    def _work_off(self, unstarted: Iterator[Delivery]) -> SliceResult:
        until = Clock.monotonic() + 2 * SLICE_SECONDS
        if self.processor.is_plain:
            return self.processor.process_many(unstarted, until)
        found = SliceResult(times=[Clock.monotonic()])
        for delivery in unstarted:
            outcome, trace_id = self._process_safely(delivery)
            now = Clock.monotonic()
            if trace_id is not None:
                found.exemplars.append((now - found.times[-1], trace_id))
            if outcome is not ACK:
                found.end(delivery, outcome)
            found.times.append(now)
            if now > until:
                break
        return found

    def _process_safely(self, delivery: Delivery) -> tuple[Outcome, str | None]:
        try:
            return self.processor.process(delivery)
        except BaseException as failure:  # noqa: BLE001 - a bug of ours or of the environment's
            error = failure
            self.subscription.hooks.notify(lambda hook: hook.failed("processor", error))
            return self.processor.decide(delivery, error), None

    def _process_batch_safely(self, batch: Sequence[Delivery]) -> list[Outcome]:
        try:
            return self.processor.process_batch(batch)
        except BaseException as failure:  # noqa: BLE001 - as for a single one
            error = failure
            self.subscription.hooks.notify(lambda hook: hook.failed("processor", error))
            return [self.processor.decide(delivery, error) for delivery in batch]

    def _serve_batch(self, batch: Sequence[Delivery]) -> None:
        began = Clock.monotonic()
        self.subscription.begin(len(batch))
        outcomes = self._process_batch_safely(batch)
        spent = Clock.monotonic() - began
        self.learn_mean(spent / len(batch))
        pairs = list(zip(batch, outcomes, strict=True))
        self.settle(
            Results(
                done=[delivery for delivery, outcome in pairs if outcome is ACK],
                ended=[pair for pair in pairs if pair[1] is not ACK],
                waits=[began - delivery.available for delivery in batch],
                durations=[spent],
                in_flight=len(batch),
            )
        )

    def learn_mean(self, mean: float) -> None:
        """Note how many seconds a delivery takes now."""
        # A handler that turns slow is believed at once, one that turns fast slowly.
        known = self.subscription.mean_seconds
        grown = mean if mean > known else (7 * known + mean) / 8
        self.subscription.mean_seconds = max(1e-9, grown)


def _results_of(batch: Sequence[Delivery], found: SliceResult) -> Results:
    """Return what became of the first deliveries of a batch, as many as were served."""
    times, ended = found.times, found.ended
    count = len(times) - 1
    served = batch if count == len(batch) else batch[:count]
    done = served
    if ended:
        failed = set(found.ended_at)
        done = [delivery for at, delivery in enumerate(served) if at not in failed]
    return Results(
        done=done,
        ended=ended,
        served=served,
        times=times,
        exemplars=found.exemplars,
        in_flight=1,
    )
