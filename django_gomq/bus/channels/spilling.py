"""A consumer that misses nothing: what finds no room waits in a store of the site."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from threading import Lock
from typing import Any, Final, Protocol

import msgspec

from django_gomq.bus.delivery import Chunk, Delivery, DropReason
from django_gomq.bus.process.clock import Clock

from .permits import PermitPool
from .subscription import Subscription

MIN_BUFFER: Final = 1000
"""How many messages may wait to be stored, at least; else as many as the capacity."""
MAX_STEP: Final = 500
"""Messages of one call of the store."""
MAX_ADOPTED: Final = 1000
"""What one process takes over at a time, so that others have a part of it too."""
ADOPT_SECONDS: Final = 5.0
"""How often a process with room looks for what others have left."""


class Spilled(msgspec.Struct, frozen=True, gc=False):
    """A delivery on its way into a store."""

    place: int
    """Orders those of one consumer that one process has stored; no two are equal."""
    delivery: Delivery
    """``available`` may be to come: a retry that is not due."""


class SpillStore(Protocol):
    """Keeps the messages that find no room in a process; used by one thread.

    What was written belongs to this process until it is taken, or the process leaves,
    or ends without a word: then another one may adopt it. Each method blocks, and may
    raise whatever the server raises: then it is called again with the same.
    """

    def check(self) -> None:
        """Raise ConfigurationError if nothing can be kept; a server may be away."""

    def write(self, consumer: str, spilled: Sequence[Spilled]) -> Sequence[Spilled]:
        """Keep these, as long as it takes; return those that cannot be kept, ever."""

    def take(self, consumer: str, most: int) -> Sequence[Delivery]:
        """Forget and return up to so many of ours, the next first.

        By priority, then by their places, which are their tokens. None: no more is
        ours.
        """

    def adopt(self, consumer: str, most: int | None) -> Mapping[str, int]:
        """Make ours up to so many that are nobody's; return them by event type.

        All of them, or none where another process is faster, if ``most`` is None.
        """

    def beat(self) -> None:
        """Say that this process lives; called more often than every ten seconds."""

    def leave(self) -> None:
        """Let others have what is ours, as this process ends, and close."""


class SpillingSubscription(Subscription):
    """Keeps what the channel has no room for: in a buffer, and then in a store.

    While anything of it is out there, all that comes goes behind it, so the order of a
    key holds. The reader takes a permit of the buffer for each message, so it holds the
    type back while the buffer is full: nothing that was accepted is dropped.

    ``exchange`` and ``write_all`` are for one thread; all else is thread-safe.
    """

    def __init__(
        self, *arguments: Any, on_spill: Callable[[], object], **options: Any
    ) -> None:
        """``on_spill`` has ``exchange`` called soon; it must not block."""
        super().__init__(*arguments, **options)
        self.inlet = PermitPool(max(MIN_BUFFER, self.consumer.capacity))
        self._on_spill = on_spill
        self._lock = Lock()
        self._buffer: deque[Spilled] = deque()
        self._unanswered: list[Spilled] = []
        """What is being stored, or perhaps is: the store did not answer."""
        self._stored = 0
        # What an earlier process has left comes first, so we look before all else.
        self._is_behind = True
        self._has_looked = False
        self._adopt_at = 0.0
        self._is_over = False
        # Later processes go on behind: their clocks are later, but for their errors.
        self._first_place = self._next_place = int(time.time() * 1e6)

    @property
    def spilled(self) -> int:
        """How many wait in the buffer and, as far as we know, in the store."""
        return len(self._buffer) + len(self._unanswered) + self._stored

    @property
    def has_stored(self) -> bool:
        """Whether something of ours is in the store."""
        return self._stored > 0

    # ------------------------------------------------------------ what comes in

    def offer_reserved(self, deliveries: Sequence[Delivery]) -> None:
        """Take in such deliveries: to the channel, or behind what waits for it."""
        first = deliveries[0].message
        self.counts.count_dispatched(first.type, len(deliveries))
        with self._lock:
            fits = 0
            if not self._is_behind:
                fits = self.channel.put_chunk(deliveries, first.priority)
            if fits < len(deliveries):
                self._line_up(deliveries[fits:])
        if fits:
            self.inlet.return_permits(fits)
            self.notify()
        if fits < len(deliveries):
            self._on_spill()

    def miss(self, deliveries: Sequence[Delivery], reason: DropReason) -> None:
        """Store, last, what a stop kept from coming in; drop it after our end."""
        self.counts.count_dispatched(deliveries[0].message.type, len(deliveries))
        with self._lock:
            is_over = self._is_over
            if not is_over:
                self._line_up(deliveries)
        if is_over:
            self.count_drops([delivery.message for delivery in deliveries], reason)

    def _line_up(self, deliveries: Iterable[Delivery]) -> None:
        """Put these at the end of the buffer. The caller holds the lock."""
        for delivery in deliveries:
            self._buffer.append(Spilled(self._next_place, delivery))
            self._next_place += 1
        self._is_behind = True

    # ------------------------------------------------------------ what makes room

    def retry(self, delivery: Delivery, seconds: float) -> None:
        """Have a delivery come again; others may start meanwhile."""
        super().retry(delivery, seconds)
        self._ask_for_more()

    def finish(self, deliveries: Iterable[Delivery], count: int) -> None:
        """Give back permits and keys, and see that others follow."""
        super().finish(deliveries, count)
        self._ask_for_more()

    def _ask_for_more(self) -> None:
        if self._is_behind and self._room():
            self._on_spill()

    def _room(self) -> int:
        """How many may come from behind: none while over half of the channel waits.

        Nor in a stop, which takes out what is in the channel.
        """
        if 2 * len(self.channel) > self.channel.capacity or self.on_late is not None:
            return 0
        return self.channel.room

    # ------------------------------------------------------------ to the store and back

    def exchange(self, store: SpillStore) -> None:
        """Fill the channel with what waits behind it, and store what is left.

        Blocks; raises what the store raises, and then goes on from there.
        """
        try:
            self._adopt(store)
            if self._unanswered:
                self._write(store)
            while self._stored and self._take_back(store):
                pass
        except BaseException:
            # Where the store does not answer, only a promised order is worth the wait.
            if self.keys is None or not (self._stored or self._unanswered):
                self._refill()
            raise
        if not self._stored:
            self._refill()
        self.write_all(store)

    def write_all(self, store: SpillStore) -> None:
        """Store all that is left. Blocks; raises what the store raises."""
        while self._write(store):
            pass

    def _adopt(self, store: SpillStore) -> None:
        is_wanted = not (self._has_looked and self.spilled) and not self.draining
        if not is_wanted or Clock.monotonic() < self._adopt_at:
            return
        self._has_looked = True
        most = MAX_ADOPTED if self.keys is None else None
        found = store.adopt(self.consumer.name, most)
        for event_type, count in found.items():
            self.counts.count_dispatched(event_type, count)
        if found:
            with self._lock:
                self._stored += sum(found.values())
                self._is_behind = True
        else:
            self._adopt_at = Clock.monotonic() + ADOPT_SECONDS

    def _take_back(self, store: SpillStore) -> bool:
        """Take what the channel has room for; return whether there may be more."""
        wanted = self.channel.try_permits(min(self._room(), MAX_STEP))
        if not wanted:
            return False
        found: Sequence[Delivery] = ()
        try:
            found = store.take(self.consumer.name, wanted)
        finally:
            self.channel.return_permits(wanted - len(found))
        self._let_in(found)
        with self._lock:
            self._stored = max(0, self._stored - len(found))
            missing = 0 if found else self._stored
            self._stored -= missing
        if missing:  # others took them over, to whom we were dead
            self.counts.count_handed_back(missing)
        return True

    def _refill(self) -> None:
        """Let in what was not stored yet, as far as there is room."""
        while True:
            with self._lock:
                self._is_behind = self.spilled > 0
                most = min(self._room(), MAX_STEP, len(self._buffer))
                count = self.channel.try_permits(most)
                found = [self._buffer.popleft().delivery for _ in range(count)]
            if not found:
                return
            self._let_in(found)  # meanwhile all that comes goes behind
            self.inlet.return_permits(count)

    def _let_in(self, deliveries: Sequence[Delivery]) -> None:
        """Put into the channel what has room there, once it is due."""
        now = Clock.monotonic()
        ready = []
        for delivery in deliveries:
            seconds = delivery.available - now
            if seconds <= 0:
                ready.append(delivery)
            elif self.keys is None or self.keys.hold(delivery):
                self.retries.put(delivery, seconds)
        for priority, group in groupby(ready, _PRIORITY):
            self.channel.put_permitted(Chunk(group), priority)
        if ready:
            self.notify()
        self._note_late()

    def _write(self, store: SpillStore) -> bool:
        """Store the next part of the buffer; return whether there was any."""
        with self._lock:
            if not self._unanswered:
                most = min(MAX_STEP, len(self._buffer))
                self._unanswered = [self._buffer.popleft() for _ in range(most)]
            batch = self._unanswered
        if not batch:
            return False
        refused = store.write(self.consumer.name, batch)
        with self._lock:
            if self._is_over:  # somebody lost patience, and counted them as dropped
                return False
            self._unanswered = []
            self._stored += len(batch) - len(refused)
        self.inlet.return_permits(len(batch))
        if refused:
            messages = [spilled.delivery.message for spilled in refused]
            self.count_drops(messages, DropReason.CHANNEL_FULL)
        return True

    # ------------------------------------------------------------ a stop

    def abandon(self, left: Sequence[Delivery]) -> None:
        """Store, first, what ``take_all`` has taken; drop it after our end."""
        with self._lock:
            is_over = self._is_over
            if not is_over:
                self._line_up_first(left)
        if is_over:
            super().abandon(left)
        else:
            self.channel.release(len(left))

    def _line_up_first(self, left: Sequence[Delivery]) -> None:
        """Put what had been let in before all that was not. The caller has the lock."""
        places: list[int] = []
        for delivery in reversed(left):
            if isinstance(delivery.token, int):  # it was stored before
                places.append(delivery.token)
            else:
                self._first_place -= 1
                places.append(self._first_place)
        spilled = map(Spilled, places, reversed(left))
        self._buffer.extendleft(spilled)

    def end_spilling(self) -> None:
        """Drop what could not be stored, and store nothing from now on."""
        with self._lock:
            self._is_over = True
            left = [*self._unanswered, *self._buffer]
            self._unanswered = []
            self._buffer.clear()
        if left:
            messages = [spilled.delivery.message for spilled in left]
            self.count_drops(messages, DropReason.SHUTDOWN)


_PRIORITY: Final = attrgetter("message.priority")
