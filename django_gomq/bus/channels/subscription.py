"""One consumer at one broker: its channel, its overflow policy, its numbers."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, repeat
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

from django_gomq.bus.consumer import Consumer
from django_gomq.bus.counts import ConsumerCounts
from django_gomq.bus.delivery import Chunk, Delivery, DropReason, join
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.process.timers import DelayQueue, Timers
from django_gomq.bus.stats import ConsumerStats

from .channel import Channel
from .key_order import KeyOrder
from .permits import PermitPool

T = TypeVar("T")

PREFETCH_SECONDS: Final = 1.0
"""How much work a reader fetches ahead: the least that hides its own way."""


class _Pops(Iterator[T], Generic[T]):
    """An iterator that threads may share where no interpreter lock guards them."""

    def __init__(self, items: Sequence[T]) -> None:
        self._pop = deque(items).popleft

    def __next__(self) -> T:
        try:
            return self._pop()
        except IndexError:
            raise StopIteration from None


def choose_shared_iterator(has_lock: bool) -> Callable[[Sequence[T]], Iterator[T]]:
    """Return how to make an iterator of which each item goes to one thread only.

    Under the interpreter lock that is the list's own: a step of it is one C call, and
    takes 6 ns where a shared deque takes 25.
    """
    return iter if has_lock else _Pops


shared_iterator = choose_shared_iterator(
    getattr(sys, "_is_gil_enabled", lambda: True)()
)
"""Begins to work off a list of which another thread may take the rest: ``list()``."""


class Subscription:
    """What a reader reads for: it takes deliveries in, and the worker takes them out.

    All methods are thread-safe; only ``withdraw`` blocks.
    """

    leased_until: float | None = None
    """Until when what waits here is ours, in monotonic seconds; None: for ever."""

    def __init__(
        self,
        broker: str,
        consumer: Consumer,
        *,
        hooks: Hooks,
        counts: ConsumerCounts | None = None,
        timers: Timers | None = None,
    ) -> None:
        self.broker = broker
        self.consumer = consumer
        self.hooks = hooks
        self.counts = counts or ConsumerCounts()
        self.channel: Channel[Delivery] = Channel(consumer.capacity, join)
        self.inlet: PermitPool = self.channel
        """Where a reader that ``reserve``d takes the permits."""
        self.keys = KeyOrder(self.channel) if consumer.ordered_by_key else None
        self.retries = DelayQueue(timers or Timers(_ignore), self._come_again)
        """Deliveries that wait here for their next attempt, and keep their permits."""
        self.free_slots: deque[None] = deque(repeat(None, consumer.concurrency))
        """One for each thread (or task) that may still serve this subscription."""
        self.on_work: Callable[[], object] = _nobody
        """Set by the worker: called when there may be work."""
        self.on_wanted: Callable[[], object] | None = None
        """Set by a reader that waits: called, once, when it may fetch again."""
        self.on_late: Callable[[], object] | None = None
        """Set by a stop: called after a delivery has come in, or back, too late."""
        self.paused = False
        self.draining = False
        """Nothing lingers any more: the broker drains."""
        self.in_flight = 0
        """Deliveries inside the handler; written under the lock of the counts."""
        self.unsettled = 0
        """Deliveries whose outcome waits to be settled; under the same lock."""
        self.unstarted: dict[int, Iterator[Delivery]] = {}
        """What threads took and did not start yet, by thread."""
        self.mean_seconds = 0.0
        """Seconds that a delivery takes, as a moving average; 0 as long as unknown."""

    # ------------------------------------------------------------ what comes in

    def offer(self, deliveries: Sequence[Delivery]) -> None:
        """Take in deliveries of one type and priority; policy drops what has no room.

        Other subscriptions may hold the same sequence: nobody changes it.
        """
        first = deliveries[0].message
        self.counts.count_dispatched(first.type, len(deliveries))
        room = self.channel.put_chunk(deliveries, first.priority)
        if room:
            self.notify()
        if room < len(deliveries):
            self._overflow(deliveries[room:])

    def offer_reserved(self, deliveries: Sequence[Delivery]) -> None:
        """Take in such deliveries, for which ``reserve`` found room."""
        first = deliveries[0].message
        self.counts.count_dispatched(first.type, len(deliveries))
        self.channel.put_permitted(deliveries, first.priority)
        self.notify()

    def accept(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Take in what a server handed out; return what found no room after all."""
        room = self.channel.try_permits(len(deliveries))
        self.accept_permitted(deliveries[:room])
        return deliveries[room:]

    def accept_permitted(self, deliveries: Sequence[Delivery]) -> None:
        """Take in such deliveries, for which the caller has permits of the channel."""
        # Neighbours of one type and priority are put at once: 0.04 us each, not 1.
        for (event_type, priority), group in groupby(deliveries, _KIND):
            chunk = Chunk(group)
            self.counts.count_dispatched(event_type, len(chunk))
            self.channel.put_permitted(chunk, priority)
        if deliveries:
            self.notify()
            self._note_late()

    def reserve(self, wanted: int) -> int:
        """Take room for up to that many deliveries; return how much there was."""
        return self.inlet.try_permits(wanted)

    def miss(self, deliveries: Sequence[Delivery], reason: DropReason) -> None:
        """Count and drop deliveries of one type that a stop kept from coming in."""
        self.counts.count_dispatched(deliveries[0].message.type, len(deliveries))
        self.count_drops([delivery.message for delivery in deliveries], reason)

    def wanted(self) -> int:
        """Return how many deliveries a reader should fetch now.

        Nothing while more than half of what is aimed at waits here, else up to that:
        about a second of work, within the room there is. A reader that fetched for
        each free place would be awake all the time, at the cost of the handlers; one
        that filled all the room would leave nothing to a process that joins.
        """
        waiting, target = self._count_waiting(), self._prefetch()
        if 2 * waiting > target or not self.may_start_now():
            return 0
        return min(self.channel.room, target - waiting)

    def _count_waiting(self) -> int:
        ended = self.in_flight + self.unsettled
        # One key that waits for its retry must not keep the others at the server.
        blocked = self.keys.blocked if self.keys is not None else 0
        return self.channel.held - len(self.retries) - ended - blocked

    @property
    def busy_keys(self) -> frozenset[str]:
        """Keys of which deliveries are held here; none where nothing is ordered."""
        return self.keys.busy() if self.keys is not None else frozenset()

    def _prefetch(self) -> int:
        least = max(self.consumer.concurrency, self.consumer.batch or 1)
        if not self.mean_seconds:
            return min(2 * least, self.consumer.capacity)
        in_a_second = int(PREFETCH_SECONDS * least / self.mean_seconds)
        return min(max(2 * least, in_a_second), self.channel.capacity)

    def tell_reader(self) -> None:
        """Call a reader that waits, if it may fetch again."""
        on_wanted = self.on_wanted
        if on_wanted is not None and self.wanted():
            self.on_wanted = None
            on_wanted()

    def _overflow(self, arriving: Sequence[Delivery]) -> None:
        if self.consumer.overflow == "drop_oldest":
            arriving = self._evict_for(arriving)
        if arriving:
            messages = [delivery.message for delivery in arriving]
            self.count_drops(messages, DropReason.CHANNEL_FULL)

    def _evict_for(self, arriving: Sequence[Delivery]) -> Sequence[Delivery]:
        evicted: list[Message[Any]] = []
        for delivery in arriving:
            priority = delivery.message.priority
            victim = self.channel.evict_oldest(up_to=priority)
            if victim is None:
                break
            self.channel.put_permitted((delivery,), priority)
            evicted.append(victim.message)
        if evicted:
            self.notify()
            self.count_drops(evicted, DropReason.EVICTED)
        return arriving[len(evicted) :]

    def count_drops(self, messages: Sequence[Message[Any]], reason: DropReason) -> None:
        """Count and report messages that this consumer will never see."""
        self.counts.count_dropped((message.type for message in messages), reason)
        self.hooks.notify(
            lambda hook: hook.dropped(self.broker, self.consumer.name, messages, reason)
        )

    # ------------------------------------------------------------ what may start

    def may_start_now(self) -> bool:
        """Whether this consumer may start a delivery now, if one waits.

        The one place that decides. Whoever makes it true again calls ``notify_all``.
        """
        until = self.leased_until
        return not self.paused and (until is None or Clock.monotonic() < until)

    def set_lease(self, until: float) -> None:
        """Start what waits here up to that time; what was held up goes on."""
        before, self.leased_until = self.leased_until, until
        if before is not None and Clock.monotonic() >= before:
            self.notify_all()

    def set_paused(self, paused: bool) -> None:
        """Start no more deliveries, or go on."""
        self.paused = paused
        if not paused:
            self.notify_all()

    def become(self, *, paused: bool | None, capacity: int | None) -> None:
        """Be as an operator wants it; what is None stays as it is.

        Raises ConfigurationError for what no capacity is.
        """
        if capacity is not None and capacity != self.channel.capacity:
            self.channel.resize(capacity)
        if paused is not None and paused != self.paused:
            self.set_paused(paused)

    @property
    def has_work(self) -> bool:
        """Whether a delivery waits that could be started, as soon as one may."""
        return bool(self.channel) or bool(self.keys)

    def can_start(self) -> bool:
        """Whether a delivery waits that may be started now."""
        return self.has_work and self.may_start_now()

    def notify(self) -> None:
        """Tell the worker that there may be work."""
        if self.free_slots and self.may_start_now():
            self.on_work()

    def notify_all(self) -> None:
        """Tell the worker once for each free slot, as after a pause."""
        for _ in range(len(self.free_slots)):
            self.notify()
        self.tell_reader()

    def take(self, most: int) -> Sequence[Delivery]:
        """Return up to ``most`` deliveries to start now; they keep their permits."""
        if not self.may_start_now():
            return ()
        source = self.channel if self.keys is None else self.keys
        taken = source.take(most)
        if self.on_wanted is not None:
            self.tell_reader()
        return taken

    def put_back(self, deliveries: list[Delivery]) -> None:
        """Return deliveries that were taken and not started, to be the next."""
        self._put_back(deliveries)
        self._note_late()

    def _put_back(self, deliveries: list[Delivery]) -> None:
        if self.keys is not None:
            self.keys.put_back(deliveries)
        else:
            self.channel.put_back(
                [(delivery, delivery.message.priority) for delivery in deliveries]
            )

    def begin(self, count: int) -> None:
        """Note that deliveries go into the handler; their end is noted by ``end``."""
        with self.counts.lock:
            self.in_flight += count

    def end(self, count: int) -> None:
        """Note that deliveries left the handler without an outcome."""
        self.begin(-count)

    # ------------------------------------------------------------ what ends

    def retry(self, delivery: Delivery, seconds: float) -> None:
        """Have a delivery come again here after that time; it keeps permit and key."""
        self.retries.put(delivery, seconds)
        self._note_late()

    def _come_again(self, delivery: Delivery) -> None:
        if self.keys is not None:
            self.keys.admit_again(delivery)
        else:
            self.channel.put_again(delivery, delivery.message.priority)
        self.notify()
        self._note_late()

    def _note_late(self) -> None:
        if self.on_late is not None:
            self.on_late()

    def finish(self, deliveries: Iterable[Delivery], count: int) -> None:
        """Give back the permits, and the keys, of deliveries that are settled."""
        if self.keys is not None:
            for delivery in deliveries:
                if self.keys.finish(delivery):
                    self.notify()
        if count:
            self.channel.release(count)
            if self.on_wanted is not None:
                self.tell_reader()

    def hand_back(self, deliveries: Sequence[Delivery]) -> None:
        """Note that deliveries went elsewhere that ``take_where`` took out."""
        self.counts.count_handed_back(len(deliveries))
        self.channel.release(len(deliveries))

    def take_where(self, is_wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Remove and return what was not started and is wanted; it keeps its permits.

        What a thread took and did not start goes back to be found here, or started.
        """
        for iterator in list(self.unstarted.values()):
            self._put_back(list(iterator))
        # In this order: a key that is freed admits only what nobody wants.
        taken = self.channel.take_where(is_wanted)
        if self.keys is not None:
            taken = self.keys.take_where(is_wanted) + taken
        scheduled = self.retries.take_where(is_wanted)
        if self.keys is not None:
            for delivery in scheduled:
                self.keys.finish(delivery)
        # What holds a key comes before what waits behind it.
        return scheduled + taken

    def take_all(self) -> list[Delivery]:
        """Remove and return everything that was not started; for a stop."""
        return self.take_where(lambda _: True)

    def abandon(self, left: Sequence[Delivery]) -> None:
        """Drop what ``take_all`` has taken and nobody will start."""
        messages = [delivery.message for delivery in left]
        self.count_drops(messages, DropReason.SHUTDOWN)
        self.channel.release(len(left))

    def withdraw(self, is_lost: Callable[[Delivery], bool]) -> list[Delivery]:
        """Forget what waits and was given to somebody else; return it."""
        lost = self.take_where(is_lost)
        self.hand_back(lost)
        if self.has_work:
            self.notify()
        return lost

    # ------------------------------------------------------------ numbers

    @property
    def spilled(self) -> int:
        """How many messages wait behind the channel."""
        return 0

    def scheduled(self, after: float = -math.inf) -> int:
        """Return how many retries wait here; those due only after so many seconds."""
        return self.retries.due_after(after)

    def _oldest_age(self) -> float:
        firsts = self.channel.firsts()
        if self.keys is not None:
            firsts += self.keys.firsts()
        if not firsts:
            return 0.0
        oldest = min(first.available for first in firsts)
        return max(0.0, Clock.monotonic() - oldest)

    def stats(self, running_since: float | None = None) -> ConsumerStats:
        """Return the numbers as they are now.

        ``running_since`` is when the oldest attempt in work began (monotonic seconds).
        """
        running = 0.0 if running_since is None else Clock.monotonic() - running_since
        counts = self.counts
        with counts.lock:
            scheduled, in_flight = self.scheduled(), self.in_flight + self.unsettled
            depth = self.channel.held - scheduled - in_flight
            return ConsumerStats(
                dispatched=dict(counts.dispatched),
                processed=dict(counts.processed),
                dropped=dict(counts.dropped),
                succeeded=counts.succeeded,
                dead_lettered=counts.dead_lettered,
                retries=counts.retries,
                depth=depth,
                scheduled=scheduled,
                in_flight=in_flight,
                spilled=self.spilled,
                capacity=self.channel.capacity,
                oldest_age=self._oldest_age(),
                paused=self.paused,
                running_seconds=running,
                handed_back=counts.handed_back,
                lost_leases=counts.lost_leases.total(),
                exceptions=dict(counts.exceptions),
                last_success=counts.last_success,
                wait=counts.wait.state(),
                duration=counts.duration.state(),
            )


_KIND: Final = attrgetter("message.type", "message.priority")


def _nobody() -> None:
    """Before a worker serves it, work waits."""


def _ignore(error: BaseException) -> None:
    """Timers that never run have no errors."""
