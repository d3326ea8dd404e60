"""The runtime of one process: handler threads that serve all subscriptions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from threading import Lock, Thread
from typing import Final

import msgspec

from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.fork import claim_thread
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.timers import Timers

from .async_loop import AsyncLoop
from .environment import Environment
from .ready_queue import ReadyQueue
from .runner import ConsumerRunner


class HandlerThread(msgspec.Struct, eq=False):
    """The place of one handler thread, which alone writes to it."""

    runner: ConsumerRunner | None = None
    since: float = 0.0
    reported: bool = False


def report_overruns(handler_threads: Iterable[HandlerThread]) -> None:
    """Tell hooks, once, of each slice that takes longer than its consumer's timeout."""
    now = time.monotonic()
    for handler_thread in handler_threads:
        runner = handler_thread.runner
        if runner is None or handler_thread.reported:
            continue
        consumer = runner.subscription.consumer
        ran = now - handler_thread.since
        if consumer.timeout is not None and ran > consumer.timeout:
            handler_thread.reported = True
            broker, name = runner.subscription.broker, consumer.name
            runner.subscription.hooks.notify(
                lambda hook: hook.overran(broker, name, ran)  # noqa: B023
            )


IDLE_SECONDS: Final = 5.0  # how long a thread keeps its connections with nothing to do


Errand = Callable[[], object]
"""Something short that another part of the bus has a handler thread do."""


class Worker:
    """``threads`` handler threads serve all channels that have something to do.

    A subscription is served by at most ``concurrency`` of them. Thread-safe; only
    ``stop`` blocks.
    """

    def __init__(
        self,
        threads: int = 8,
        *,
        environment: Environment | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.threads = threads
        self.environment = environment or Environment()
        self.hooks = hooks or Hooks()
        self.timers = Timers(self._report("timers"))
        self._loop = AsyncLoop(
            self._report("loop"), self._report_block, environment=self.environment
        )
        self._ready: ReadyQueue[ConsumerRunner | Errand] = ReadyQueue()
        self.run_soon: Callable[[Errand], bool] = self._ready.call
        """Has a handler thread that sleeps run something; returns whether one does.

        Wakes it, which costs 5 us, and does not block. What the errand gives to
        subscriptions is served by the same thread, without another wake-up.
        """
        self._runners: dict[Subscription, ConsumerRunner] = {}
        self._handler_threads: list[HandlerThread] = []
        self._pool: list[Thread] = []
        self._lingering: set[Subscription] = set()
        self._lock = Lock()

    def attach(self, runner: ConsumerRunner) -> None:
        """Serve this subscription from now on."""
        subscription = runner.subscription
        with self._lock:
            self._runners[subscription] = runner
            if subscription.consumer.is_async and self._pool:
                self._loop.start()
        subscription.on_work = self._choose_wake(runner)
        subscription.notify_all()

    def detach(self, subscription: Subscription) -> None:
        """Serve this subscription no more; what runs is left to run."""
        with self._lock:
            self._runners.pop(subscription, None)
        subscription.on_work = lambda: None

    def start(self) -> None:
        """Start timers and handler threads; idempotent."""
        with self._lock:
            if self._pool:
                return
            self.timers.start()
            self.timers.every_second(partial(report_overruns, self._handler_threads))
            self.timers.every_second(self._ready.wake)  # an errand may hang in a hook
            self.timers.every_second(self._loop.watch)
            for number in range(1, self.threads + 1):
                handler_thread = HandlerThread()
                thread = Thread(
                    target=self._run,
                    args=(handler_thread,),
                    name=f"gomq-handler-{number}",
                    daemon=True,
                )
                self._handler_threads.append(handler_thread)
                self._pool.append(thread)
                thread.start()
            if any(subscription.consumer.is_async for subscription in self._runners):
                self._loop.start()
        for runner in list(self._runners.values()):
            runner.subscription.notify_all()

    @property
    def busy(self) -> int:
        """How many handler threads are inside a slice."""
        return sum(
            handler_thread.runner is not None
            for handler_thread in self._handler_threads
        )

    @property
    def alive(self) -> int:
        """How many handler threads run."""
        return sum(thread.is_alive() for thread in self._pool)

    @property
    def loop_lag(self) -> float:
        """For how many seconds an async handler has blocked its loop; 0 if none has."""
        return self._loop.lag

    def _choose_wake(self, runner: ConsumerRunner) -> Callable[[], object]:
        consumer = runner.subscription.consumer
        if consumer.is_async:
            return partial(self._loop.pump, runner)
        if consumer.batch is not None and consumer.linger:
            return partial(self._wake_or_linger, runner)
        return partial(self._schedule, runner)

    def _schedule(self, runner: ConsumerRunner) -> None:
        try:
            runner.subscription.free_slots.pop()
        except IndexError:
            return  # all threads that may serve it will look again when they are done
        self._ready.add(runner)

    def _take_turn_again(self, runner: ConsumerRunner) -> None:
        consumer = runner.subscription.consumer
        if consumer.linger:
            runner.subscription.notify()  # a batch that is not full waits for more
            return
        try:
            runner.subscription.free_slots.pop()
        except IndexError:
            return
        self._ready.add_quietly(runner)

    def _wake_or_linger(self, runner: ConsumerRunner) -> None:
        subscription = runner.subscription
        consumer = subscription.consumer
        channel = subscription.channel
        # No room left: what comes now would be dropped while we wait for more.
        is_full = len(channel) >= (consumer.batch or 1) or not channel.has_room
        if subscription.draining or is_full:
            self._schedule(runner)
            return
        with self._lock:
            if subscription in self._lingering:
                return
            self._lingering.add(subscription)
        self.timers.after(consumer.linger, lambda: self._end_linger(runner))

    def _end_linger(self, runner: ConsumerRunner) -> None:
        with self._lock:
            self._lingering.discard(runner.subscription)
        if runner.subscription.has_work:
            self._schedule(runner)

    def _run(self, handler_thread: HandlerThread) -> None:
        claim_thread()
        idle_from: float | None = (
            None  # None: the environment has been told, or need not be
        )
        while not self._ready.closed:
            work = self._ready.next(_seconds_until(idle_from))
            if isinstance(work, ConsumerRunner):
                self._serve(work, handler_thread)
                idle_from = time.monotonic() + IDLE_SECONDS
            elif work is not None:
                self._run_errand(work)  # it uses nothing of the environment's
            elif not self._ready.closed:
                self._tell_host_idle()
                idle_from = None
        self._tell_host_idle()

    def _run_errand(self, errand: Errand) -> None:
        self._ready.expects_caller = True
        try:
            errand()
        except BaseException as error:  # noqa: BLE001 - the thread outlives any bug
            self._report("worker")(error)
        finally:
            self._ready.expects_caller = False

    def _serve(self, runner: ConsumerRunner, handler_thread: HandlerThread) -> None:
        subscription = runner.subscription
        handler_thread.since, handler_thread.reported = time.monotonic(), False
        handler_thread.runner = runner
        try:
            batch = subscription.take(runner.share())
            if batch and subscription.has_work:
                subscription.notify()  # more than our share: wake the next thread
            if batch:
                runner.serve(batch)
        except BaseException as error:  # noqa: BLE001 - the thread outlives any bug
            self._report("worker")(error)
        finally:
            handler_thread.runner = None
            subscription.free_slots.append(None)
        # What came while our turn was taken woke nobody; we come back for it.
        if subscription.can_start():
            self._take_turn_again(runner)

    def _tell_host_idle(self) -> None:
        try:
            self.environment.thread_idle()
        except Exception as error:  # noqa: BLE001 - a environment's bug ends no thread
            self._report("environment")(error)

    def _report_block(self, consumer: str, seconds: float, where: str) -> None:
        self.hooks.notify(lambda hook: hook.loop_blocked(consumer, seconds, where))

    def _report(self, part: str) -> Callable[[BaseException], None]:
        return lambda error: self.hooks.notify(lambda hook: hook.failed(part, error))

    def stop(self, timeout: float) -> int:
        """End all threads; return how many were still inside a handler at the end.

        Blocks up to ``timeout`` seconds, but once: a second call waits for nobody.
        """
        if self._ready.closed:
            return self.alive
        deadline = time.monotonic() + timeout
        self._ready.close()
        self.timers.stop()
        self._loop.stop(max(0.0, deadline - time.monotonic()))
        for thread in self._pool:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return self.alive


def _seconds_until(moment: float | None) -> float:
    """Return how long a thread may sleep; -1: as long as there is nothing to do."""
    return -1 if moment is None else max(0.0, moment - time.monotonic())
