"""The event loop of async handlers, on one thread of its own."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock, Thread
from types import FrameType
from typing import Any, Final
from weakref import WeakSet

from django_gomq.bus.delivery import ACK, DeadLettered, Delivery, Outcome
from django_gomq.bus.errors import class_name, printable
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.process.fork import (
    claim_thread,
    handler_context,
    has_green_threads,
)

from .environment import Environment
from .runner import ConsumerRunner
from .settler import Results

BLOCKED_SECONDS: Final = 1.0
"""A loop that has not come round for so long is blocked."""


class LoopWatchdog:
    """Calls into a loop now and then, and knows how long the answer is due.

    ``lag`` may be read from any thread; ``beat`` is for one, and does not block.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: Thread) -> None:
        self._loop = loop
        self._thread = thread
        self._asked: float | None = None
        self._is_told = False

    @property
    def lag(self) -> float:
        """For how many seconds the loop has not come round, as far as is known."""
        asked = self._asked
        return 0.0 if asked is None else Clock.monotonic() - asked

    def beat(self) -> bool:
        """Ask for the next answer; return, once, whether the last one is overdue."""
        if self._asked is None:
            self._asked = Clock.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:
                self._asked = None  # the loop has ended
            return False
        is_overdue = self.lag >= BLOCKED_SECONDS and not self._is_told
        self._is_told = self._is_told or is_overdue
        return is_overdue

    def _answer(self) -> None:
        self._asked = None
        self._is_told = False

    def where(self) -> str:
        """Return what the loop runs now: its innermost calls, the last one first."""
        ident = self._thread.ident
        frame = sys._current_frames().get(ident) if ident is not None else None  # noqa: SLF001 - documented
        return " < ".join(_describe(frame)) if frame is not None else "no longer known"

    def task(self) -> str | None:
        """Return the name of the task that the loop is in now."""
        task = asyncio.current_task(self._loop)
        return None if task is None else task.get_name()


def _describe(frame: FrameType, most: int = 3) -> list[str]:
    calls = traceback.extract_stack(frame)[: -most - 1 : -1]
    return [f"{call.name} ({call.filename}:{call.lineno})" for call in calls]


class GreenletTracer:
    """Hears of each switch of greenlets, and hides a loop from all but its own.

    Under gevent and eventlet all "threads" are greenlets of one thread, and asyncio
    knows one running loop for a thread: so Django and ``emit`` would refuse to work in
    requests. Greenlets change places in the loop's wait, and wherever a handler waits.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        greenlet: object,
        before: Callable[[str, Any], object] | None,
    ) -> None:
        """``before`` is who was told of switches until then."""
        self._loop = loop
        self._greenlet = greenlet
        self._before = before
        self._of_others: asyncio.AbstractEventLoop | None = None

    def __call__(self, event: str, switch: tuple[object, object]) -> None:
        """Show who comes next the loop that is its own."""
        origin, target = switch
        if origin is self._greenlet:
            asyncio._set_running_loop(self._of_others)  # noqa: SLF001 - what asyncio itself calls
        elif target is self._greenlet:
            self._of_others = running_loop()
            asyncio._set_running_loop(self._loop)  # noqa: SLF001 - as above
        if self._before is not None:
            self._before(event, switch)


running_loop = asyncio._get_running_loop  # noqa: SLF001 - get_running_loop() raises


@contextmanager
def _kept_from_greenlets(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have asyncio show this loop to the greenlet that runs it, if one does."""
    greenlets: Any = sys.modules.get("greenlet")
    if greenlets is None or not has_green_threads():
        yield
        return
    before = greenlets.gettrace()
    tracer = GreenletTracer(loop, greenlets.getcurrent(), before)
    greenlets.settrace(tracer)
    try:
        yield
    finally:
        if greenlets.gettrace() is tracer:
            greenlets.settrace(before)


def _coroutine_of(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    name = getattr(coroutine, "__qualname__", None)
    return printable(name) if isinstance(name, str) else class_name(coroutine)


class AsyncLoop:
    """Runs async handlers on one loop, each in a task with a context of its own.

    ``start`` and ``pump`` may be called from any thread and do not block.
    """

    def __init__(
        self,
        on_error: Callable[[BaseException], None],
        on_block: Callable[[str, float, str], None] = lambda *_: None,
        *,
        environment: Environment | None = None,
        on_start: Callable[[], None] = claim_thread,
        run_elsewhere: Callable[[Callable[[], None]], object] = lambda call: call(),
    ) -> None:
        """``on_block`` hears of a blocked loop: by whom, for how long, where.

        ``on_start`` runs first on its thread. ``run_elsewhere`` has something run
        that may block.
        """
        self._run_elsewhere = run_elsewhere
        self._on_start = on_start
        self._on_error = on_error
        self._environment = environment or Environment()
        self._on_block = on_block
        self._watchdog: LoopWatchdog | None = None
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._tasks: dict[asyncio.Task[Any], tuple[ConsumerRunner, float]] = {}
        """Whom each one serves, and since when (monotonic seconds)."""
        self._given_up: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._called: set[ConsumerRunner] = set()
        self._ending: asyncio.Task[None] | None = None  # the loop keeps no reference
        self._stopped = self._has_ended = False

    def start(self) -> None:
        """Start the loop's thread if none runs; idempotent.

        Raises RuntimeError, MemoryError or OSError where thread or loop cannot be had;
        the next call tries again.
        """
        with self._lock:
            if self._stopped or self.is_alive:
                return
            loop = asyncio.new_event_loop()
            # A loop of Python asks ``time``, where a test may have stopped the clock.
            getattr(loop, "__dict__", {})["time"] = Clock.monotonic
            thread = Thread(
                target=self._run, args=(loop,), name="gomq-loop", daemon=True
            )
            try:
                thread.start()
            except BaseException:
                loop.close()
                raise
            self._watchdog = LoopWatchdog(loop, thread)
            self._loop, self._thread = loop, thread

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def lag(self) -> float:
        """For how many seconds the loop has been blocked; 0 if it is not."""
        return self._watchdog.lag if self._watchdog is not None else 0.0

    def starts(self) -> list[tuple[ConsumerRunner, float]]:
        """Return whom each task serves, and since when (monotonic seconds)."""
        return list(self._tasks.copy().values())

    @property
    def background(self) -> list[asyncio.Task[Any]]:
        """Tasks that handlers have started, and that may outlive them.

        Any thread may ask. Those that were given up are not among them.
        """
        loop = self._loop
        if loop is None:
            return []
        own = {method.__code__ for method in (AsyncLoop._handle, AsyncLoop._end_all)}
        return [
            task
            for task in asyncio.all_tasks(loop)
            if getattr(task.get_coro(), "cr_code", None) not in own
            and task not in self._given_up
        ]

    def give_up_background(self) -> list[str]:
        """Return what those tasks run, and wait for these no more."""
        left = self.background
        self._given_up.update(left)
        return sorted(map(_coroutine_of, left))

    def watch(self) -> None:
        """Look whether a handler blocks the loop, and tell; to be called regularly."""
        watchdog = self._watchdog
        # A loop without tasks sleeps, and is left to sleep.
        if watchdog is not None and (self._tasks or watchdog.lag) and watchdog.beat():
            self._on_block(watchdog.task() or "", watchdog.lag, watchdog.where())

    def pump(self, runner: ConsumerRunner) -> None:
        """Have the loop start what waits for this runner, up to its concurrency."""
        # One call in flight for each runner: waking the loop costs 4 us each time.
        if self._loop is None or runner in self._called:
            return
        self._called.add(runner)
        try:
            self._loop.call_soon_threadsafe(self._pump, runner)
        except RuntimeError:
            self._called.discard(runner)  # the loop has ended

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._on_start()
        asyncio.set_event_loop(loop)
        try:
            with _kept_from_greenlets(loop):
                while not self._has_ended:  # a handler may have stopped it
                    self._run_guarded(loop)
        finally:
            loop.close()

    def _run_guarded(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        except BaseException as error:  # noqa: BLE001 - SystemExit leaves a loop, by design
            self._on_error(error)

    def _pump(self, runner: ConsumerRunner) -> None:
        self._called.discard(runner)
        subscription = runner.subscription
        while not self._stopped and subscription.can_start():
            try:
                subscription.free_slots.pop()
            except IndexError:
                return  # a task that ends pumps again
            batch = subscription.take(1)
            if batch:
                self._start_task(runner, batch[0])
            else:  # all wait for their keys; look again, what came now woke nobody
                subscription.free_slots.append(None)

    def _start_task(self, runner: ConsumerRunner, delivery: Delivery) -> None:
        assert self._loop is not None  # noqa: S101 - _pump runs on it
        task = self._loop.create_task(
            self._handle(runner, delivery),
            name=runner.subscription.consumer.name,
            context=handler_context(),
        )
        self._tasks[task] = runner, Clock.monotonic()
        task.add_done_callback(partial(self._end_task, runner, delivery))

    # A callback, as a task that is cancelled before its first step never runs.
    def _end_task(
        self, runner: ConsumerRunner, delivery: Delivery, task: asyncio.Task[None]
    ) -> None:
        del self._tasks[task]
        if task.cancelled():
            runner.subscription.put_back([delivery])  # left over at the stop
        else:
            error = task.exception()
            if error is not None:
                self._on_error(error)
        runner.subscription.free_slots.append(None)
        if not self._stopped:
            self._pump(runner)

    async def _handle(self, runner: ConsumerRunner, delivery: Delivery) -> None:
        began = Clock.monotonic()
        runner.subscription.begin(1)
        try:
            outcome, trace_id = await self._process_safely(runner, delivery)
        except BaseException:
            runner.subscription.end(1)
            raise
        spent = Clock.monotonic() - began
        runner.learn_mean(spent)
        results = Results(
            done=[delivery] if outcome is ACK else (),
            ended=[] if outcome is ACK else [(delivery, outcome)],
            waits=[began - delivery.available],
            durations=[spent],
            exemplars=[] if trace_id is None else [(spent, trace_id)],
            in_flight=1,
        )
        if isinstance(outcome, DeadLettered):
            # It keeps the text of the error, which is anybody's code.
            self._run_elsewhere(partial(runner.settle, results))
        else:
            runner.settle(results)

    async def _process_safely(
        self, runner: ConsumerRunner, delivery: Delivery
    ) -> tuple[Outcome, str | None]:
        try:
            return await runner.processor.process_async(delivery)
        except asyncio.CancelledError as error:
            if self._stopped:
                raise
            return runner.processor.decide(delivery, error), None  # it cancelled itself
        # A bug of ours or of the environment's. Not GeneratorExit: the task is no more.
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001
            self._on_error(error)
            return runner.processor.decide(delivery, error), None

    def stop(self, timeout: float) -> None:
        """Cancel what runs and end the loop; blocks up to ``timeout`` seconds."""
        with self._lock:
            self._stopped = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None or not thread.is_alive():
            return
        try:
            loop.call_soon_threadsafe(self._cancel_all, timeout)
        except RuntimeError:
            return  # it has ended
        if thread is not threading.current_thread():
            thread.join(timeout)

    def _cancel_all(self, timeout: float) -> None:
        assert self._loop is not None  # noqa: S101 - runs on it
        self._ending = self._loop.create_task(self._end_all(self._loop, timeout))

    async def _end_all(self, loop: asyncio.AbstractEventLoop, limit: float) -> None:
        tasks = asyncio.all_tasks() - {self._ending}
        for task in tasks:
            task.cancel()
        if tasks:  # they clean up; one that does not listen is left behind
            await asyncio.wait(tasks, timeout=limit / 2)
        farewell = loop.create_task(self._tell_host())
        _, late = await asyncio.wait([farewell], timeout=limit / 4)
        if late:  # asyncio would say that it was destroyed
            farewell.cancel()
            await asyncio.wait(late, timeout=limit / 4)
        self._has_ended = True
        loop.stop()

    async def _tell_host(self) -> None:
        try:
            await self._environment.loop_ending()
        except Exception as error:  # noqa: BLE001 - an environment's bug holds no loop
            self._on_error(error)
