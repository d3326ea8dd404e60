"""The publishers' side of the memory backend: room, delays and refusals."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from django_gomq.bus.backend import BackendContext
from django_gomq.bus.delivery import Delivery, DropReason
from django_gomq.bus.errors import (
    BrokerClosedError,
    NotRunningError,
    PublishError,
    PublishTimeoutError,
    QueueFullError,
)
from django_gomq.bus.message import Message
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.process.fork import is_hurried, works_for_bus
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.bus.process.timers import Deadline, DelayQueue

from .dispatcher import Dispatcher
from .queues import EventQueue, QueueRegistry

logger = logging.getLogger("gomq.publish")


def not_running(event: str, broker: str, *, is_closed: bool) -> PublishError:
    """Return the error for a queue that nobody empties."""
    if is_closed:
        text = f"Broker {broker!r} is closed."
        return BrokerClosedError(text, event=event, broker=broker)
    text = "The dispatcher is down; it restarts."
    return NotRunningError(text, event=event, broker=broker)


def no_room(
    event: str, broker: str, capacity: int, timeout: float | None
) -> PublishError:
    """Return the error for a queue that is full, also after that many seconds."""
    if timeout:
        text = f"The queue of {event!r} had no room for {timeout} s."
        return PublishTimeoutError(text, event=event, broker=broker)
    text = f"The queue of {event!r} is full ({capacity})."
    return QueueFullError(text, event=event, broker=broker)


_HAND_OVER_SECONDS = 0.1  # ample for a publisher that has its permit already
_TELL_SECONDS = 10.0  # who waits longer is told for whom, and again after twice that
_WAITS = (
    "Publishing %s has waited %d s for room in the channel of %s: make its handler "
    "faster, raise its concurrency or capacity, or give emit a timeout"
)
_NAP_SECONDS = 1.0  # a wake-up that a signal handler's exception swallowed costs this


class MemoryPublisher:
    """Puts messages on the queue of their type; thread-safe."""

    def __init__(
        self,
        registry: QueueRegistry,
        dispatcher: Dispatcher,
        context: BackendContext,
    ) -> None:
        self._broker = context.broker
        self._hooks = context.hooks
        self._registry = registry
        self._by_type = registry.by_type
        self._dispatcher = dispatcher
        self._loop = dispatcher.loop
        self._closed = False
        self._delayed: DelayQueue[tuple[EventQueue, Message[Any]]] = DelayQueue(
            context.timers, self._end_delay
        )

    def publish(self, message: Message[Any], timeout: float | None) -> None:
        """Put one message on its type's queue: one put, whatever the consumers.

        Raises the PublishError that says why not.
        """
        # The hot path of every publish: the two steps of PublishBuffer.put stand here,
        # as a call costs as much as both (45 ns of 350).
        try:
            queue = self._by_type[message.type]
            if message.delay or not self._loop.is_up:
                self._publish_slowly(message, timeout)
                return
            queue.pop_permit()
        except LookupError:
            self._publish_slowly(message, timeout)
            return
        if timeout:
            self._hold(queue)
        queue.levels[message.priority].append(message)
        if not queue.scheduled:
            self._dispatcher.schedule(queue)

    def try_put(
        self, message: Message[Any], timeout: float | None, left: float | None
    ) -> PublishError | None:
        """Publish one message; return None, or the error that says why not.

        ``left`` is what is left of the ``timeout``.
        """
        try:
            self._publish_slowly(message, left)
        except QueueFullError as error:
            if not timeout or works_for_bus():
                return error
            return no_room(message.type, self._broker, 0, timeout)
        except PublishError as error:
            return error
        return None

    def _publish_slowly(self, message: Message[Any], timeout: float | None) -> None:
        queue = self._by_type.get(message.type) or self._registry.open(message.type)
        self._wait_for_permit(queue, message, timeout)
        if timeout:
            self._hold(queue)
        if message.delay:
            self._delay(queue, message)
            return
        queue.put_permitted(message, message.priority)
        self._dispatcher.schedule(queue)

    def put_run(
        self, messages: Sequence[Message[Any]], start: int, timeout: float | None
    ) -> int:
        """Put messages of one type and priority, from ``start``, as far as room goes.

        Does not wait; with a ``timeout`` nothing of them is dropped. Returns how many:
        none, where each has to be looked at (delays, a new type).
        """
        first = messages[start]
        queue = self._by_type.get(first.type)
        if queue is None or first.delay or not self._loop.is_up:
            return 0
        room = queue.try_permits(len(messages) - start)
        if room:
            if timeout:
                self._hold(queue)
            taken = messages[start : start + room]
            queue.put_many_permitted(taken, first.priority)
            self._dispatcher.schedule(queue)
        return room

    def _hold(self, queue: EventQueue) -> None:
        """Have nothing of this queue dropped; between taking a permit and the put."""
        if not queue.holds and not is_hurried():
            queue.holds = True

    def _wait_for_permit(
        self, queue: EventQueue, message: Message[Any], timeout: float | None
    ) -> None:
        began, told_at = Clock.monotonic(), _TELL_SECONDS
        if works_for_bus():
            timeout = None
        elif timeout is None and not is_hurried() and self._registry.may_wait():
            timeout = math.inf
        deadline = Deadline.after(timeout or 0.0)
        while True:
            has_room = queue.try_permit()
            if queue.closed or not self._loop.is_up:
                queue.return_permits(has_room)
                # What was seen is passed on: a dispatcher that is down may be up again
                # a moment later, and the reason must be the one that was found.
                is_closed = queue.closed or self._closed
                raise not_running(message.type, self._broker, is_closed=is_closed)
            if has_room:
                return
            left = deadline.left()
            if not left:
                raise no_room(message.type, self._broker, queue.capacity, timeout)
            queue.wait_for_room(min(left, _NAP_SECONDS))
            if Clock.monotonic() - began >= told_at:
                self._tell_waiting(queue, message.type, told_at)
                told_at *= 2

    def _tell_waiting(self, queue: EventQueue, event: str, seconds: float) -> None:
        full = [
            subscription.consumer.name
            for subscription in queue.recipients.subscribers
            if not subscription.inlet.has_room
        ]
        names = ", ".join(full) or "a consumer"
        fields = {"gomq_event": event, "gomq_broker": self._broker}
        line = partial(
            write_log, logger, logging.WARNING, _WAITS, event, seconds, names
        )
        self._hooks.hand_over(partial(line, fields=fields))

    def _delay(self, queue: EventQueue, message: Message[Any]) -> None:
        due = Clock.monotonic() + message.delay
        errand = partial(self._delay_until, due, queue, message)
        # Exceptions of signal handlers come up at calls: here after the last step. A
        # queue of delays takes more of them: that is for a thread where none come up.
        with queue._lock:  # noqa: SLF001
            queue._out += 1  # noqa: SLF001
            queue.delayed += 1
            self._dispatcher.errands.append(errand)
        self._dispatcher.schedule(queue)

    def _delay_until(
        self, due: float, queue: EventQueue, message: Message[Any]
    ) -> None:
        self._delayed.put((queue, message), max(0.0, due - Clock.monotonic()))

    def _end_delay(self, delayed: tuple[EventQueue, Message[Any]]) -> None:
        queue, message = delayed
        queue.put_again(message, message.priority)
        queue.hold_delayed(-1)
        self._dispatcher.schedule(queue)

    def close(self) -> None:
        """Refuse what comes now; what is queued still goes to its consumers."""
        self._closed = True
        self._registry.close()

    def pending(self, before: float) -> int:
        """Return how many messages would still be dispatched within that time."""
        queues = self._registry.all()
        held = sum(queue.held for queue in queues)
        stuck = sum(len(queue) for queue in queues if queue.is_stuck)
        return held - stuck - self._delayed.due_after(before)

    def drop_all(self, reason: DropReason) -> None:
        """Drop, for each consumer that misses it, what is queued or delayed."""
        until = Clock.monotonic() + _HAND_OVER_SECONDS
        self._dispatcher.run_errands()
        for queue, message in self._delayed.take_all():
            queue.put_again(message, message.priority)
            queue.hold_delayed(-1)
        for queue in self._registry.all():
            self._drop(queue, reason)
            while queue.held and Clock.monotonic() < until:
                time.sleep(0.001)  # a publisher is between its two steps
                self._drop(queue, reason)

    def _drop(self, queue: EventQueue, reason: DropReason) -> None:
        left = queue.take(queue.held)
        by_type: dict[str, list[Message[Any]]] = {}
        for message in left:
            by_type.setdefault(message.type, []).append(message)
        for event_type, messages in by_type.items():
            for subscription in self._registry.match(event_type):
                subscription.miss(cast("list[Delivery]", messages), reason)
        queue.end_dispatch(len(left))
