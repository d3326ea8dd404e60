"""Order per key: one delivery of a key at a time, later ones wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock

from django_gomq.bus.delivery import Delivery

from .channel import Channel


class KeyOrder:
    """Lets the deliveries of a key out of a channel one by one, through retries too.

    Thread-safe. Taking from the channel and admitting are one step, so two threads
    cannot swap two deliveries of a key.
    """

    def __init__(self, channel: Channel[Delivery]) -> None:
        self._channel = channel
        self._lock = Lock()
        self._waiting: dict[str, deque[Delivery]] = {}  # by key; a key here is held
        self._admitted: deque[Delivery] = deque()
        self.blocked = 0
        """How many wait here behind another one of their key."""

    def take(self, most: int) -> list[Delivery]:
        """Return up to ``most`` deliveries whose keys are free, and now theirs."""
        with self._lock:
            batch = [
                self._admitted.popleft() for _ in range(min(most, len(self._admitted)))
            ]
            while len(batch) < most:
                taken = self._channel.take(most - len(batch))
                if not taken:
                    break
                batch += [delivery for delivery in taken if self._admit(delivery)]
            return batch

    def _admit(self, delivery: Delivery) -> bool:
        key = delivery.message.key
        if key is None:
            return True
        if key in self._waiting:
            self._waiting[key].append(delivery)
            self.blocked += 1
            return False
        self._waiting[key] = deque()
        return True

    def hold(self, delivery: Delivery) -> bool:
        """Give a retry that waits elsewhere its key; else it waits here for that."""
        with self._lock:
            return self._admit(delivery)

    def admit_again(self, delivery: Delivery) -> None:
        """Let a retry out: it holds its key since its first attempt."""
        with self._lock:
            self._admitted.append(delivery)

    def put_back(self, deliveries: list[Delivery]) -> None:
        """Return deliveries that were not started; they are the next to be taken."""
        with self._lock:
            self._admitted.extendleft(reversed(deliveries))

    def finish(self, delivery: Delivery) -> bool:
        """Free the key of a settled delivery; return whether another one can go now."""
        key = delivery.message.key
        if key is None:
            return False
        with self._lock:
            return self._pass_on(key)

    def _pass_on(self, key: str) -> bool:
        if self._waiting[key]:
            self._admitted.append(self._waiting[key].popleft())
            self.blocked -= 1
            return True
        del self._waiting[key]
        return False

    def take_where(self, is_wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Remove and return what waits here and is wanted, and free its keys."""
        with self._lock:
            taken: list[Delivery] = []
            for waiting in self._waiting.values():
                taken += _pick(waiting, is_wanted)
            self.blocked -= len(taken)
            admitted = _pick(self._admitted, is_wanted)
            for delivery in admitted:
                if delivery.message.key is not None:
                    self._pass_on(delivery.message.key)
            return admitted + taken

    def busy(self) -> frozenset[str]:
        """Return the keys that are held: others of them wait until these end."""
        with self._lock:
            return frozenset(self._waiting)

    def firsts(self) -> list[Delivery]:
        """Return the oldest delivery of each kind that waits here."""
        with self._lock:
            queues = [self._admitted, *self._waiting.values()]
            return [queue[0] for queue in queues if queue]

    def __bool__(self) -> bool:
        """Whether a delivery could be taken without the channel."""
        return bool(self._admitted)


def _pick(
    queue: deque[Delivery], is_wanted: Callable[[Delivery], bool]
) -> list[Delivery]:
    picked: list[Delivery] = []
    for _ in range(len(queue)):  # once around
        delivery = queue.popleft()
        (picked if is_wanted(delivery) else queue).append(delivery)
    return picked
