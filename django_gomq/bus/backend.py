"""The contract of a backend: what it stores, hands out and settles; no policy here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, ClassVar

import msgspec

from django_gomq.bus.channels.subscription import Subscription

from .consumer import Consumer
from .delivery import ACK, Delivery, Outcome
from .errors import ConfigurationError, PublishError
from .hooks import Hooks
from .message import Message
from .stats import QueueStats
from .timers import Deadline, Timers


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend promises; the checks, the docs and the suite all read this."""

    durable: bool = False
    """Messages survive a crash of the process."""
    ordered_by_key: bool = False
    priority: bool = False
    max_delay: float | None = None
    """The longest delay in seconds; None: any."""
    replay: bool = False
    """A new consumer may start at kept history."""

    def check(self, consumer: Consumer) -> None:
        """Raise ConfigurationError if the consumer asks for what is not promised."""
        if consumer.ordered_by_key and not self.ordered_by_key:
            raise ConfigurationError(
                f"Consumer {consumer.name!r}: this backend has no order by key.",
                consumer=consumer.name,
            )


class Settled(Enum):
    """A backend's answer to one settlement."""

    DONE = "done"
    """It is settled; its permit may be given back."""
    KEPT = "kept"
    """It stays with this process, permit and all, and will be offered again."""
    LOST_LEASE = "lost_lease"
    """It had been given to somebody else: this outcome counts for nothing."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that a consumer gave up on."""

    message: Message[Any]
    consumer: str
    attempt: int
    error: str
    """Class and text of the last error; never the payload."""
    time: float
    """Seconds since 1970."""


class BackendContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend is given of the process it runs in."""

    broker: str
    hooks: Hooks
    timers: Timers
    is_bus_thread: Callable[[], bool]
    """Whether the current thread belongs to the bus, and so must never wait."""
    run_soon: Callable[[Callable[[], object]], bool]
    """Has a handler thread that sleeps run something short, if there is one."""


class Backend(ABC):
    """The adapter under a broker; one for each broker and process.

    Its life is ``open``, ``subscribe`` (also while it reads), ``start_reading``,
    ``stop_reading``, ``close``. Publishing and settling are thread-safe.
    """

    name: ClassVar[str]
    """Short, for metrics and spans."""
    capabilities: ClassVar[Capabilities]

    @abstractmethod
    def open(self, context: BackendContext) -> None:
        """Take in what the process offers. No thread starts and no socket opens."""

    @abstractmethod
    def subscribe(self, subscription: Subscription) -> None:
        """Read for this subscription too. Does not block."""

    @abstractmethod
    def start_reading(self) -> None:
        """Start the reader: it fills channels, never beyond their free room."""

    @abstractmethod
    def publish(self, message: Message[Any], timeout: float | None) -> None:
        """Take one message, or raise the PublishError that says why not.

        Waits for room, or for the server's word, up to ``timeout`` seconds; None
        does not wait for room. Never waits on a thread of the bus.
        """

    def check(self, message: Message[Any]) -> None:  # noqa: B027 - nothing to check
        """Raise what ``publish`` would raise for such a message at any time.

        That is a MessageError or a ConfigurationError.
        """

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        """Take what can be taken; answer None or the error for each message.

        ``timeout`` bounds the call, not each message.
        """
        deadline = Deadline.after(timeout)
        return [self._try_publish(message, deadline.left()) for message in messages]

    def publish_into(
        self,
        answers: list[PublishError | None],
        messages: Sequence[Message[Any]],
        timeout: float | None,
    ) -> None:
        """Do as ``publish_many``, and add to ``answers`` what is known, as it is.

        So its caller knows what was taken if a signal handler's exception ends it.
        """
        answers += self.publish_many(messages, timeout)

    def _try_publish(
        self, message: Message[Any], timeout: float | None
    ) -> PublishError | None:
        try:
            self.publish(message, timeout)
        except PublishError as error:
            return error
        return None

    @abstractmethod
    def settle(
        self,
        subscription: Subscription,
        settlements: Sequence[tuple[Delivery, Outcome]],
    ) -> list[Settled]:
        """End deliveries of one subscription; one answer each. From any thread."""

    def ack(
        self, subscription: Subscription, deliveries: Sequence[Delivery]
    ) -> list[Delivery]:
        """End deliveries that succeeded; return those whose lease was lost."""
        answers = self.settle(
            subscription, [(delivery, ACK) for delivery in deliveries]
        )
        pairs = zip(deliveries, answers, strict=True)
        return [delivery for delivery, answer in pairs if answer is Settled.LOST_LEASE]

    def extend(
        self, subscription: Subscription, deliveries: Sequence[Delivery]
    ) -> list[Settled]:
        """Keep the leases of deliveries in work; for the backend's own reader to call.

        A backend without leases has nothing to keep.
        """
        return [Settled.DONE] * len(deliveries)

    @abstractmethod
    def release(
        self, subscription: Subscription, deliveries: Sequence[Delivery]
    ) -> None:
        """Take deliveries back that were not started; no attempt is counted.

        It also counts them, as dropped or as handed back, and releases their permits.
        """

    @abstractmethod
    def stop_publishing(self) -> None:
        """Refuse what comes now; messages taken before still go their way.

        A backend whose messages outlive the process stops fetching here.
        """

    @abstractmethod
    def stop_reading(self) -> None:
        """End the reader; idempotent, returns within a second."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; idempotent."""

    @property
    def is_reading(self) -> bool:
        """Whether the reader runs."""
        return False

    def pending(self, before: float) -> int:
        """Return how many messages are on their way to a channel of this process.

        Messages that become due within ``before`` seconds count too. Retries that
        wait in this process do not: they hold a permit of their channel.
        """
        return 0

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters that are kept, oldest first."""
        return []

    def queue_stats(self) -> dict[str, QueueStats]:
        """Return the numbers of each event type that it holds queues for."""
        return {}
