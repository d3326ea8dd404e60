"""The runtime of one process: handler threads that serve all subscriptions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Final

from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.errors import NotRunningError
from django_gomq.bus.hooks import FLUSH_SECONDS, Hook, Hooks
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.process.fork import claim_thread, is_patched_late
from django_gomq.bus.process.housekeeping import Housekeeping, send_lines_to
from django_gomq.bus.process.timers import Timers

from .async_loop import AsyncLoop
from .environment import Environment
from .pool import HandlerPool, HandlerThread
from .ready_queue import ReadyQueue
from .runner import ConsumerRunner, Observer

THREADS: Final = ("handler", "timers", "event_loop", "housekeeping")
"""What the threads of a worker are for."""
IDLE_SECONDS: Final = 5.0  # how long a thread keeps its connections with nothing to do


Errand = Callable[[], object]
"""Something short that another part of the bus has a handler thread do."""


class Worker:
    """``threads`` handler threads serve all channels that have something to do.

    A subscription is served by at most ``concurrency`` of them. A thread that died, or
    that a handler keeps past its consumer's ``timeout``, is replaced within a second or
    two; at most as many again as there are threads. Thread-safe; only ``stop`` blocks.
    """

    def __init__(
        self,
        threads: int = 8,
        *,
        environment: Environment | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.threads = threads
        self.environment = environment or Environment()
        self.housekeeping = Housekeeping()
        """Runs the observers of all brokers of this process."""
        self.hooks = Hooks(hooks, self.housekeeping)
        self.timers = Timers(self._report("timers"), on_start=self._claim_thread)
        self._loop = AsyncLoop(
            self._report("loop"),
            self._report_block,
            environment=self.environment,
            on_start=self._claim_thread,
            run_elsewhere=self._run_elsewhere,
        )
        self._ready: ReadyQueue[ConsumerRunner | Errand] = ReadyQueue()
        self.run_soon: Callable[[Errand], bool] = self._ready.call
        """Has a handler thread that sleeps run something; returns whether one does.

        Wakes it, which costs 5 us, and does not block. What the errand gives to
        subscriptions is served by the same thread, without another wake-up.
        """
        self._runners: dict[Subscription, ConsumerRunner] = {}
        self._observer: Observer | None = None
        self._pool = HandlerPool(threads, self._run)
        self._lingering: set[Subscription] = set()
        self._lock = Lock()

    def attach(self, runner: ConsumerRunner) -> None:
        """Serve this subscription from now on."""
        subscription = runner.subscription
        with self._lock:
            self._runners[subscription] = runner
            runner.observe(self._observer)
        if self._pool.is_started:
            self._guard(self._start_loop)
        subscription.on_work = self._choose_wake(runner)
        subscription.notify_all()

    def detach(self, subscription: Subscription) -> None:
        """Serve this subscription no more; what runs is left to run."""
        with self._lock:
            self._runners.pop(subscription, None)
        subscription.on_work = lambda: None

    def observe(self, observer: Observer | None) -> None:
        """Show this one what becomes of all slices from now on; None: nobody.

        Thread-safe; one at a time. What is under way may still be shown to the last.
        """
        with self._lock:
            self._observer = observer
            for runner in self._runners.values():
                runner.observe(observer)

    def start(self) -> None:
        """Start timers, handler threads and, for async handlers, the loop; idempotent.

        Raises RuntimeError, MemoryError or OSError where one cannot be had; the next
        call starts what is missing. Raises NotRunningError where none may be.
        """
        if is_patched_late():
            raise NotRunningError(
                "gevent or eventlet has replaced the threads after django_gomq was "
                "imported, and the locks from before would stop all greenlets: call "
                "monkey.patch_all() first, with gunicorn --preload at the top of its "
                "configuration file."
            )
        with self._lock:
            if self._ready.closed:
                return
            self.timers.start()
            self.timers.every_second(self._supervise)
            self._pool.start_missing()
        self.housekeeping.start()
        self._start_loop()
        for subscription in list(self._runners):
            subscription.notify_all()

    def _start_loop(self) -> None:
        if self._needs_loop:
            self._loop.start()

    @property
    def _needs_loop(self) -> bool:
        return any(each.consumer.is_async for each in list(self._runners))

    def _supervise(self) -> None:
        """Mend what stands still; once a second, on the timers' thread."""
        for step in (
            self._replace_hung,
            self._pool.start_missing,
            self._start_loop,
            self._loop.watch,
            self.housekeeping.revive,
            self._wake_again,
        ):
            self._guard(step)

    def _guard(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - tried again in a second
            self._report("worker")(error)

    def _replace_hung(self) -> None:
        """Tell of each slice past its consumer's timeout, once; replace its thread."""
        now = Clock.monotonic()
        for handler_thread in self._pool.serving():
            runner = handler_thread.runner
            if runner is None:
                continue
            subscription, ran = runner.subscription, now - handler_thread.since
            limit = subscription.consumer.timeout
            if limit is None or ran <= limit:
                continue
            if not handler_thread.has_overrun:
                handler_thread.has_overrun = True
                _report_overrun(subscription, ran)
            if self._pool.give_up(handler_thread):
                _put_back_unstarted(subscription, handler_thread)

    def _wake_again(self) -> None:
        """Wake whoever has work and stands still, whatever became of the first call."""
        self._ready.wake()  # an errand may hang in a handler
        for subscription in list(self._runners):
            if subscription.has_work:
                subscription.notify()

    @property
    def busy(self) -> int:
        """How many handler threads are inside a slice."""
        return self._pool.busy

    @property
    def busy_ratio(self) -> float:
        """Which part of the threads that may take work is inside a slice.

        A thread that was replaced takes none any more.
        """
        return self._pool.busy_ratio

    def oldest_starts(self) -> dict[Subscription, float]:
        """Return when the oldest attempt in work began, in monotonic seconds.

        Only of subscriptions that have one. A thread's attempts begin with its slice,
        which ends after some milliseconds unless one of them does not.
        """
        found: dict[Subscription, float] = {}
        for runner, since in [*self._pool.starts(), *self._loop.starts()]:
            subscription = runner.subscription
            found[subscription] = min(since, found.get(subscription, since))
        return found

    def missing_threads(self) -> Counter[str]:
        """Return how many threads should run now and do not, by ``THREADS``."""
        if not self._pool.is_started or self._ready.closed:
            return Counter()
        kinds = (part.partition(" thread ")[0] for part in self.dead_parts())
        return Counter(kind.replace(" ", "_") for kind in kinds)

    @property
    def alive(self) -> int:
        """How many handler threads live, those included that were replaced."""
        return self._pool.alive

    @property
    def has_timers(self) -> bool:
        """Whether the timers run, or nobody has needed them yet."""
        return self.timers.is_alive or not self._pool.is_started or self._ready.closed

    def dead_parts(self) -> list[str]:
        """Name the threads that should run in a started worker and do not."""
        dead = [f"handler thread {number}" for number in self._pool.dead()]
        if not self.timers.is_alive:
            dead.append("timers")
        if self._needs_loop and not self._loop.is_alive:
            dead.append("event loop")
        if self.housekeeping.is_dead:
            dead.append("housekeeping")
        return dead

    @property
    def has_background(self) -> bool:
        """Whether tasks run on the loop that async handlers have started."""
        return bool(self._loop.background)

    def give_up_background(self) -> list[str]:
        """Name the coroutines of such tasks, each once; nobody waits for them then."""
        return self._loop.give_up_background()

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

    def _take_slot_again(self, runner: ConsumerRunner) -> None:
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
        self._claim_thread()
        idle_from: float | None = (
            None  # None: the environment has been told, or need not be
        )
        while not (self._ready.closed or handler_thread.is_given_up):
            work = self._ready.next(_seconds_until(idle_from))
            if self.timers.is_lost:
                self._guard(self.timers.start)
            if isinstance(work, ConsumerRunner):
                self._serve(work, handler_thread)
                idle_from = Clock.monotonic() + IDLE_SECONDS
            elif work is not None:
                self._run_errand(work)  # it uses nothing of the environment's
            elif not self._ready.closed:
                self._tell_idle()
                idle_from = None
        self._tell_idle()
        self._ready.wake()  # who was given up does not come back for its turn

    def _claim_thread(self) -> None:
        claim_thread()
        send_lines_to(self.hooks.hand_over)

    def _run_elsewhere(self, errand: Errand) -> None:
        """Have a handler thread run what the loop should not wait for."""
        if self._ready.closed:
            self._run_errand(errand)
        else:
            self._ready.add(errand)

    def _run_errands_left(self) -> None:
        """Run what was handed over while the handler threads ended: it settles."""
        while (work := self._ready.take()) is not None:
            if not isinstance(work, ConsumerRunner):
                self._run_errand(work)

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
        handler_thread.since, handler_thread.has_overrun = Clock.monotonic(), False
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
            self._take_slot_again(runner)

    def _tell_idle(self) -> None:
        try:
            self.environment.thread_idle()
        except Exception as error:  # noqa: BLE001 - an environment's bug ends no thread
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
        deadline = Clock.monotonic() + timeout
        self._ready.close()
        self._pool.close()
        self.timers.stop()
        self._loop.stop(max(0.0, deadline - Clock.monotonic()))
        self._pool.join(deadline)
        self._run_errands_left()
        self.housekeeping.stop(FLUSH_SECONDS)
        return self.alive


def _report_overrun(subscription: Subscription, seconds: float) -> None:
    broker, name = subscription.broker, subscription.consumer.name
    subscription.hooks.notify(lambda hook: hook.overran(broker, name, seconds))


def _put_back_unstarted(
    subscription: Subscription, handler_thread: HandlerThread
) -> None:
    """Let others have what a thread took and has not started."""
    left = list(subscription.unstarted.get(handler_thread.thread.ident or 0, ()))
    if left:
        subscription.put_back(left)
        subscription.notify()


def _seconds_until(moment: float | None) -> float:
    """Return how long a thread may sleep; -1: as long as there is nothing to do."""
    return -1 if moment is None else max(0.0, moment - Clock.monotonic())
