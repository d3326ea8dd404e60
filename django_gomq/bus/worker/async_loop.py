"""The event loop of async handlers, on one thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from threading import Lock, Thread
from types import FrameType
from typing import Any, Final

from django_gomq.bus.delivery import ACK, Delivery, Outcome
from django_gomq.bus.process.fork import claim_thread

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
        return 0.0 if asked is None else time.monotonic() - asked

    def beat(self) -> bool:
        """Ask for the next answer; return, once, whether the last one is overdue."""
        if self._asked is None:
            self._asked = time.monotonic()
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
    ) -> None:
        """``on_block`` hears of a blocked loop: by whom, for how long, where.

        ``on_start`` runs first on its thread.
        """
        self._on_start = on_start
        self._on_error = on_error
        self._environment = environment or Environment()
        self._on_block = on_block
        self._watchdog: LoopWatchdog | None = None
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
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
            context=contextvars.Context(),
        )
        self._tasks.add(task)
        task.add_done_callback(partial(self._end_task, runner, delivery))

    # A callback, as a task that is cancelled before its first step never runs.
    def _end_task(
        self, runner: ConsumerRunner, delivery: Delivery, task: asyncio.Task[None]
    ) -> None:
        self._tasks.discard(task)
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
        began = time.monotonic()
        runner.subscription.begin(1)
        try:
            outcome, trace_id = await self._process_safely(runner, delivery)
        except BaseException:
            runner.subscription.end(1)
            raise
        spent = time.monotonic() - began
        runner.learn_mean(spent)
        runner.settle(
            Results(
                done=[delivery] if outcome is ACK else (),
                ended=[] if outcome is ACK else [(delivery, outcome)],
                waits=[began - delivery.available],
                durations=[spent],
                exemplars=[] if trace_id is None else [(spent, trace_id)],
                in_flight=1,
            )
        )

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
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:  # they clean up; one that does not listen is left behind
            await asyncio.wait(tasks, timeout=limit / 2)
        farewell = loop.create_task(self._tell_host())
        await asyncio.wait([farewell], timeout=limit / 4)
        self._has_ended = True
        loop.stop()

    async def _tell_host(self) -> None:
        try:
            await self._environment.loop_ending()
        except Exception as error:  # noqa: BLE001 - an environment's bug holds no loop
            self._on_error(error)
