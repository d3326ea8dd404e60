"""What an operator does to a broker and reads from it; it knows no publisher."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .backend import Capabilities, DeadLetter
from .hooks import Hooks
from .life import Life
from .stats import BrokerStats
from .whole import run_whole


class Controls(ABC):
    """The operator's half of a broker; all of it is about this process."""

    @abstractmethod
    def _living(self) -> Life:
        """Return the broker's life in this process, begun now if need be."""

    @property
    def hooks(self) -> Hooks:
        """The observers of this process."""
        return self._living().hooks

    @property
    def capabilities(self) -> Capabilities:
        """What the backend promises."""
        return self._living().backend.capabilities

    @property
    def backend_name(self) -> str:
        """The backend's short name."""
        return self._living().backend.name

    def resize(self, consumer: str, capacity: int) -> None:
        """Give a consumer's channel another capacity, in this process."""
        self._living().subscription(consumer).channel.resize(capacity)

    def pause(self, consumer: str) -> None:
        """Start no more deliveries of this consumer in this process.

        Its channel fills, and then its overflow option decides.
        """
        self._living().subscription(consumer).paused = True

    def resume(self, consumer: str) -> None:
        """End a pause, or leave it as it was where a signal handler raises."""
        subscription = self._living().subscription(consumer)
        was_paused = subscription.paused
        try:
            subscription.paused = False
            run_whole(subscription.notify_all)
        except BaseException:
            subscription.paused = was_paused  # perhaps nobody was told
            raise

    def stats(self) -> BrokerStats:
        """Return the numbers of this process; exact when the bus is quiet."""
        return self._living().stats()

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters that are kept, oldest first."""
        return self._living().backend.dead_letters()
