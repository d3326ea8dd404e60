"""The delivery: one attempt to hand a message to a consumer, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import chain
from typing import Any, ClassVar, Final, Generic, cast

import msgspec
from msgspec.structs import force_setattr
from typing_extensions import TypeVar

from .errors import ConfigurationError
from .message import Message, TraceContext, decode_plain
from .wire import wire_headers


class Reject(Exception):  # noqa: N818 - reads as a statement: raise Reject("why")
    """Raised by a handler: this message is a dead letter, without more attempts."""


class RetryLater(Exception):  # noqa: N818 - reads as a statement
    """Raised by a handler: try this message again later; not counted as an error.

    Raises ConfigurationError if ``seconds`` is negative or not finite.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds} s")
        if not 0 <= seconds < float("inf"):
            raise ConfigurationError(f"RetryLater({seconds!r}): not seconds from now.")
        self.seconds = seconds


class BatchFailed(Exception):  # noqa: N818 - reads as a statement
    """Raised by a batch handler: only these messages failed, the rest is done.

    ``errors`` maps message ids to the exception of each.
    """

    def __init__(self, errors: Mapping[str, BaseException]) -> None:
        super().__init__(f"{len(errors)} messages of the batch failed")
        self.errors = dict(errors)


class HandlerTimeoutError(Exception):
    """An async handler ran longer than its consumer's ``timeout`` and was cancelled."""


class DeliveryLimitError(Exception):
    """A message was handed out too often and never settled: it may kill processes."""


class Verdict(StrEnum):
    """What one attempt came to; the ``outcome`` label of the metrics."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    REJECTED = "rejected"


class DropReason(StrEnum):
    """Why a consumer will never see a message that was taken; a closed list."""

    CHANNEL_FULL = "channel_full"
    EVICTED = "evicted"
    EXPIRED = "expired"
    SHUTDOWN = "shutdown"


class Ack(msgspec.Struct, frozen=True):
    """The handler returned."""


class RetryAfter(msgspec.Struct, frozen=True):
    """The message comes back after ``delay`` seconds.

    ``error`` is None if the handler asked for it by RetryLater.
    """

    delay: float
    error: BaseException | None
    verdict: Verdict = Verdict.ERROR


class DeadLettered(msgspec.Struct, frozen=True):
    """The consumer gave the message up."""

    error: BaseException
    verdict: Verdict = Verdict.ERROR


class Dropped(msgspec.Struct, frozen=True):
    """The message was not handled and will not be."""

    reason: DropReason


Outcome = Ack | RetryAfter | DeadLettered | Dropped

ACK: Final = Ack()
EXPIRED: Final = Dropped(DropReason.EXPIRED)
CUT_OFF: Final = Dropped(DropReason.SHUTDOWN)


class Delivery(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One attempt; as long as it says nothing of one consumer, all may share it."""

    message: Message[Any]
    available: float
    """When it could have been handled first, in seconds of ``time.monotonic()``."""
    attempt: int = 1
    """Counts from 1, for each consumer: what its Retry goes by."""
    token: object = None
    """What the backend settles by; opaque to everybody else."""
    deliveries: int = 1
    """How often the server has handed it out, unstarted ones perhaps included."""


class Chunk(list[Delivery]):
    """Deliveries of one type and priority that go their way together, unchanged.

    All consumers of the type share it, with what one of them found out of its waiting.
    """

    __slots__ = ("_available",)

    # Nothing of the messages is looked at before a handler's thread does: on the way,
    # each look would bring a cache line to another core (100 ns; 1.3 times the work of
    # all three threads together).
    @property
    def available(self) -> Sequence[float]:
        """When each could have been handled first, in monotonic seconds."""
        try:
            return self._available
        except AttributeError:
            # Racing threads find the same.
            self._available: Sequence[float] = _available_of(self)
            return self._available


def join(chunks: Iterable[Sequence[Delivery]]) -> Chunk:
    """Return the deliveries of several chunks as one."""
    return Chunk(chain.from_iterable(chunks))


def _available_of(deliveries: Sequence[Delivery]) -> Sequence[float]:
    since_1970 = time.monotonic() - time.time()
    return [
        delivery.made + since_1970 + delivery.delay
        if isinstance(delivery, Message)
        else delivery.available
        for delivery in deliveries
    ]


E = TypeVar("E", default=Any)


# Made for every delivery, so it holds three references and copies nothing: 44 ns, where
# a copy of the message took 140.
class DeliveredMessage(msgspec.Struct, Generic[E], frozen=True, eq=False, gc=False):
    """What a handler gets: it reads as the ``Message``, and ``data`` is typed.

    Body bytes are shared by all consumers of a message; ``data`` and ``headers`` belong
    to this delivery alone, and are made at the first look.
    """

    delivery: Delivery
    decoders: Mapping[str, Callable[[Message[Any]], Any]]
    """How to decode, by event type; every other type is plain JSON."""
    decoded: Any = msgspec.UNSET
    own_headers: dict[str, str] | None = None

    reads_as_message: ClassVar[bool] = True

    @property
    def data(self) -> E:
        """The decoded event. Raises DecodeError if the body does not fit."""
        if self.decoded is msgspec.UNSET:
            message = self.delivery.message
            decode = self.decoders.get(message.type, decode_plain)
            force_setattr(self, "decoded", decode(message))
        return self.decoded  # type: ignore[no-any-return]

    @property
    def headers(self) -> dict[str, str]:
        """A copy of the message's headers that is this delivery's own.

        With those that name its trace, as another process would read them.
        """
        if self.own_headers is None:
            force_setattr(self, "own_headers", wire_headers(self.delivery.message))
        return cast("dict[str, str]", self.own_headers)

    @property
    def attempt(self) -> int:
        """Which attempt of this consumer this is; counts from 1."""
        return self.delivery.attempt

    @property
    def type(self) -> str:
        """The event type, such as ``health.record.saved``."""
        return self.delivery.message.type

    @property
    def body(self) -> bytes:
        """The event as JSON."""
        return self.delivery.message.body

    @property
    def key(self) -> str | None:
        """What ``ordered_by_key`` consumers order by."""
        return self.delivery.message.key

    @property
    def priority(self) -> int:
        """0 to 9; higher is handled first."""
        return self.delivery.message.priority

    @property
    def delay(self) -> float:
        """Seconds that it had to wait before any consumer saw it."""
        return self.delivery.message.delay

    @property
    def made(self) -> float:
        """When it was made, in seconds since 1970."""
        return self.delivery.message.made

    @property
    def time(self) -> datetime:
        """When it was made, in UTC."""
        return self.delivery.message.time

    @property
    def number(self) -> int | str:
        """What its id is made of."""
        return self.delivery.message.number

    @property
    def id(self) -> str:
        """A UUIDv7, the same for every consumer and every attempt."""
        return self.delivery.message.id

    @property
    def trace_context(self) -> TraceContext | None:
        """What the hook that watches traces has it carry."""
        return self.delivery.message.trace_context


def original(message: Message[Any]) -> Message[Any]:
    """Return the message itself, where a handler passes on what it received.

    With the headers that the handler wrote, if it did.
    """
    if not isinstance(message, DeliveredMessage):
        return message
    sent, own = message.delivery.message, message.own_headers
    if own is None or own == wire_headers(sent):
        return sent
    return msgspec.structs.replace(sent, headers=own, trace_context=None)


def receive(
    delivery: Delivery, decoders: Mapping[str, Callable[[Message[Any]], Any]]
) -> Message[Any]:
    """Return what a handler of this delivery gets."""
    return cast("Message[Any]", DeliveredMessage(delivery, decoders))
