"""The memory backend's reader: from queues to channels."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from threading import RLock, Thread, current_thread
from typing import Any, Final, Generic, TypeVar, cast

from django_gomq.bus.backend import RunSoon
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.counts import OTHER
from django_gomq.bus.delivery import Chunk, Delivery, DropReason
from django_gomq.bus.message import Message
from django_gomq.bus.process.fork import claim_thread
from django_gomq.bus.worker.ready_queue import ReadyQueue

from .queues import EventQueue, QueueRegistry, Recipients

T = TypeVar("T")

MAX_BACKOFF: Final = 5.0  # seconds
STOP_SECONDS: Final = 1.0
MAX_INLINE: Final = 8  # items; what they lead to waits for the same thread


class DispatchLoop(Generic[T]):
    """Has items worked on, one after the other, on threads of the bus.

    A thread of its own does what comes in a flood, and is restarted with a pause
    whenever it dies. While it sleeps, a handler thread that sleeps too stands in for
    it, and goes on to handle what it found: a second wake-up on the way to a handler
    takes 30 us of 70 (measured at 1,000 messages a second, 1 consumer).

    Thread-safe; only ``stop`` blocks.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[T], None],
        *,
        on_error: Callable[[BaseException], None],
    ) -> None:
        """``work`` is called by one thread at a time; ``name`` is that of our own."""
        self._work = work
        self._on_error = on_error
        self._run_soon: RunSoon = _nobody_idle
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._items: ReadyQueue[T] = ReadyQueue()
        self._working = RLock()  # what we work on may stop us
        self._inline = self._dispatch_inline  # one object, which may be taken back
        self._is_expected = False
        """Whether an idle thread was called, or is at work: it looks once more."""
        self._death: BaseException | None = None
        """Of another thread that dispatched; our own thread dies of it in its place."""
        self._failures = 0
        self.is_up = False
        """Whether what is added will be worked on soon."""

    def start(self, run_soon: RunSoon | None = None) -> None:
        """Start the thread; idempotent.

        ``run_soon`` has an idle handler thread run something, if there is one. Raises
        RuntimeError or MemoryError where no thread can be had; the next call tries
        again.
        """
        self._run_soon = run_soon or _nobody_idle
        if not self.is_up and self._thread.ident is None:
            self.is_up = True
            try:
                self._thread.start()
            except BaseException:
                self.is_up = False
                raise

    def stop(self) -> None:
        """Begin nothing new; blocks up to 2 x STOP_SECONDS for what is under way."""
        self._items.close()
        if self._thread.is_alive() and self._thread is not current_thread():
            self._thread.join(STOP_SECONDS)
        if self._working.acquire(timeout=STOP_SECONDS):  # another thread may be at work
            self._working.release()

    def add(self, item: T) -> None:
        """Have somebody work on this: our own thread only if no other is idle."""
        # Whoever is awake, or on the way, looks again before it sleeps.
        if not self._items.add_quietly(item) or self._is_expected:
            return
        self._is_expected = True
        if not self._run_soon(self._inline):
            self._is_expected = False
            self._items.wake()

    def add_rest(self, item: T) -> None:
        """Have our own thread work on this: there is a flood."""
        self._items.add(item)

    def call_again(self) -> None:
        """Have our own thread look; a signal handler may have kept ``add`` from it."""
        self._is_expected = False
        self._items.wake()

    def _run(self) -> None:
        claim_thread()
        while not self._items.closed:
            try:
                self._work_all()
            except BaseException as error:  # noqa: BLE001 - it is restarted, always
                self.is_up = False
                self._failures += 1
                self._on_error(error)
                time.sleep(min(MAX_BACKOFF, 0.01 * 2 ** min(self._failures, 10)))
            self.is_up = not self._items.closed
        self.is_up = False

    def _work_all(self) -> None:
        while not self._items.closed:
            item = self._items.next()
            if item is not None:
                self._work_on(item)
                self._failures = 0

    def _work_on(self, item: T) -> None:
        with self._working:
            if self._items.closed:
                return
            try:
                self._raise_death()
                self._work(item)
            except BaseException:
                self._items.add_quietly(item)  # for after the restart
                raise

    def _raise_death(self) -> None:
        death = self._death
        if death is not None and current_thread() is self._thread:
            self._death = None
            raise death

    def _dispatch_inline(self) -> None:
        for _ in range(MAX_INLINE):
            # In this order: what is added from here on calls somebody, and what was
            # added before is seen.
            self._is_expected = False
            item = self._items.take() if self._items.has_sleepers else None
            if item is None:
                return  # or our own thread is awake
            self._is_expected = True
            try:
                self._work_on(item)
            except BaseException as error:  # noqa: BLE001 - our own thread raises it
                self.is_up = False
                self._death = error
                break
        self.call_again()


BATCH: Final = 256


def _nobody_idle(call: Callable[[], object]) -> bool:
    return False


class Dispatcher:
    """Broadcasts every message to all subscribers of its type, in batches.

    Two stages, as putting straight into the channels costs the emitting request a
    wake-up per consumer: 35 us for five that sleep, against 3 us to wake one thread.
    """

    def __init__(
        self,
        registry: QueueRegistry,
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._queues = registry
        self._lock = RLock()  # a signal handler may publish in the midst of a publish
        self._handing: list[tuple[Subscription, Chunk, bool]] = []
        self._under_way: tuple[EventQueue, int] | None = None
        self.errands: Final[deque[Callable[[], object]]] = deque()
        """For a thread where no signal handler raises; before it looks at queues."""
        self.loop: Final[DispatchLoop[EventQueue]] = DispatchLoop(
            "gomq-memory-dispatcher",
            self._dispatch,
            on_error=on_error,
        )
        """Who dispatches, and whether somebody does."""

    def schedule(self, queue: EventQueue) -> None:
        """Have the dispatcher look into this queue.

        Called after each put that finds it unscheduled, from any thread; takes a lock
        only then.
        """
        with self._lock:
            if queue.scheduled:
                return
            # The list first: an exception of a signal handler between the two steps
            # leaves a second entry, which is harmless, and never none.
            self.loop.add(queue)
            queue.scheduled = True

    def run_errands(self) -> None:
        """Run what was sent; on our thread, or after ``stop``."""
        while self.errands:
            self.errands.popleft()()

    def look_everywhere(self) -> None:
        """Mend what a publisher left half done when a signal handler raised in it."""
        self.loop.call_again()
        for queue in self._queues.all():
            queue.reconcile()
            if (queue or self.errands) and not queue.scheduled:
                self.schedule(queue)

    def _dispatch(self, queue: EventQueue) -> None:
        self._finish()  # what was under way when we died
        with self._lock:
            queue.scheduled = False
        self.run_errands()
        recipients = queue.recipients  # once: somebody may join at any moment
        wanted, holds = BATCH, queue.holds
        if holds:
            recipients = recipients.held_back()
        if recipients.blocking:
            wanted = self._reserve(queue, recipients, min(len(queue), BATCH))
        if wanted:
            # A message is its own first delivery, so this is a chunk already.
            batch = queue.take_into(cast("list[Message[Any]]", Chunk()), wanted)
            if queue.holds and not holds:
                # Who may wait has said so meanwhile, before the put.
                self._put_back(queue, recipients, batch, wanted)
                return
            self._under_way = queue, len(batch)
            self._handing = self._plan(queue, recipients, batch, wanted)
            self._finish()
        if queue.holds and not queue.held:
            self._end_hold(queue)

    def _put_back(
        self,
        queue: EventQueue,
        recipients: Recipients,
        batch: Sequence[Message[Any]],
        reserved: int,
    ) -> None:
        """Begin anew with what was taken, as some of it is not to be dropped."""
        queue.put_back(batch)
        for subscription in recipients.blocking:
            subscription.inlet.return_permits(reserved)
        self.schedule(queue)

    def _end_hold(self, queue: EventQueue) -> None:
        # In this order: who may wait takes a permit first, and then says so.
        queue.holds = False
        if queue.held or self._queues.may_wait():
            queue.holds = True

    def _finish(self) -> None:
        """Hand over what was taken and give its room back; also after a restart."""
        handing = self._handing
        while handing:
            subscription, deliveries, is_reserved = handing[-1]
            if is_reserved:
                subscription.offer_reserved(deliveries)
            else:
                subscription.offer(deliveries)
            handing.pop()
        queue = self._end_under_way()
        if queue:
            self._schedule_rest(queue)

    def _schedule_rest(self, queue: EventQueue) -> None:
        with self._lock:
            if not queue.scheduled:
                self.loop.add_rest(queue)
                queue.scheduled = True

    def _end_under_way(self) -> EventQueue | None:
        if self._under_way is None:
            return None
        queue, count = self._under_way
        self._under_way = None
        queue.end_dispatch(count)
        return queue

    def abandon(self, reason: DropReason) -> None:
        """Drop what was under way when the loop died; after ``stop``."""
        while self._handing:
            subscription, deliveries, is_reserved = self._handing.pop()
            subscription.miss(deliveries, reason)
            if is_reserved:
                subscription.inlet.return_permits(len(deliveries))
        self._end_under_way()

    def _reserve(self, queue: EventQueue, recipients: Recipients, wanted: int) -> int:
        """Take room at blocking subscribers; return how much. A full one calls back."""
        if not wanted:
            # One that called us may have called nobody else.
            for subscription in recipients.blocking:
                subscription.inlet.pass_room_on()
            return 0
        reserved: list[tuple[Subscription, int]] = []
        for subscription in recipients.blocking:
            room = subscription.reserve(wanted)
            reserved.append((subscription, room))
            wanted = min(wanted, room)
            if not room:
                self._wait_for_room(queue, subscription)
                break
        for subscription, room in reserved:
            if room > wanted:
                subscription.inlet.return_permits(room - wanted)
        return wanted

    def _wait_for_room(self, queue: EventQueue, subscription: Subscription) -> None:
        if queue.wake is None:
            queue.wake = partial(self.schedule, queue)
        if not subscription.inlet.call_when_room(queue.wake):
            self.schedule(queue)

    def _plan(
        self,
        queue: EventQueue,
        recipients: Recipients,
        batch: Sequence[Message[Any]],
        reserved: int,
    ) -> list[tuple[Subscription, Chunk, bool]]:
        """Pair every subscriber with its deliveries, by type and priority."""
        if not recipients.blocking and queue.label != OTHER:
            return [  # nearly always; reversed, as it is taken from the end
                (subscription, chunk, False)
                for chunk in reversed(_chunks_of_one_priority(batch) if batch else ())
                for subscription in reversed(recipients.subscribers)
            ]
        plan: list[tuple[Subscription, Chunk, bool]] = []
        used = dict.fromkeys(recipients.blocking, 0)
        for event_type, messages in _by_type(queue, batch):
            chunks = _chunks_of_one_priority(messages)
            for subscription in self._subscribers(queue, recipients, event_type):
                is_blocking = subscription in used
                if is_blocking:
                    used[subscription] += len(messages)
                plan += [(subscription, chunk, is_blocking) for chunk in chunks]
        for subscription, count in used.items():
            if count < reserved:
                subscription.inlet.return_permits(reserved - count)
        plan.reverse()
        return plan

    def _subscribers(
        self, queue: EventQueue, recipients: Recipients, event_type: str
    ) -> Sequence[Subscription]:
        if queue.label != OTHER:
            return recipients.subscribers
        found = self._queues.match(event_type)
        return [
            subscription
            for subscription in found
            if subscription in recipients.subscribers
        ]


def _by_type(
    queue: EventQueue, batch: Sequence[Message[Any]]
) -> Iterable[tuple[str, Sequence[Message[Any]]]]:
    if not batch:
        return ()  # a stop took it
    if queue.label != OTHER:
        return ((queue.label, batch),)
    found: dict[str, list[Message[Any]]] = {}
    for message in batch:
        found.setdefault(message.type, []).append(message)
    return found.items()


def _chunks_of_one_priority(messages: Sequence[Message[Any]]) -> list[Chunk]:
    deliveries = cast("Sequence[Delivery]", messages)
    # A batch comes sorted by priority, so equal ends mean that all are equal.
    if deliveries[0].message.priority != deliveries[-1].message.priority:
        return [Chunk(chunk) for _, chunk in groupby(deliveries, _priority)]
    return [deliveries if isinstance(deliveries, Chunk) else Chunk(deliveries)]


def _priority(delivery: Delivery) -> int:
    return delivery.message.priority
