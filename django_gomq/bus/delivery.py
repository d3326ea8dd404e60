"""The delivery: one attempt to hand a message to a consumer, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain
from typing import Any, ClassVar, Final, Generic, cast

import msgspec
from msgspec.structs import force_setattr
from typing_extensions import TypeVar

from .data.codec import decode_as
from .durations import SECONDS_OR_TIMEDELTA, seconds_of
from .errors import ConfigurationError
from .event import EventMeta
from .message import Message, TraceContext, decode_plain
from .wire import wire_headers


class Reject(Exception):  # noqa: N818 - reads as a statement: raise Reject("why")
    """Raised by a handler: this message is a dead letter, without more attempts."""


MIN_RETRY_LATER: Final = 0.1
"""Seconds: a handler that asks for less at each attempt would keep a thread busy."""


class RetryLater(Exception):  # noqa: N818 - reads as a statement
    """Raised by a handler: try this message again later; not counted as an error.

    ``seconds`` is a number or a timedelta. Less than 0.1 are as many, and there is no
    end to it but the handler's. Raises ConfigurationError for what is no such span.
    """

    def __init__(self, seconds: float | timedelta) -> None:
        super().__init__(seconds)
        read = seconds_of(seconds)
        if read is None:
            raise ConfigurationError(
                f"RetryLater({seconds!r:.120}) takes {SECONDS_OR_TIMEDELTA}."
            )
        self.seconds = read

    def __str__(self) -> str:
        """Say when it is tried again."""
        return f"again in {self.seconds:g} s"


class BatchFailed(Exception):  # noqa: N818 - reads as a statement
    """Raised by a batch handler: only these messages failed, the rest is done.

    ``errors`` maps message ids to the exception of each. Raises ConfigurationError for
    anything else.
    """

    def __init__(self, errors: Mapping[str, BaseException]) -> None:
        super().__init__(errors)
        if not _is_errors_by_id(errors):
            raise ConfigurationError(
                "BatchFailed takes the errors by the ids of their messages: "
                "BatchFailed({message.id: error, ...})."
            )
        self.errors = dict(errors)

    def __str__(self) -> str:
        """Say how many failed."""
        return f"{len(self.errors)} messages of the batch failed"


def _is_errors_by_id(errors: object) -> bool:
    return isinstance(errors, Mapping) and all(
        isinstance(key, str) and isinstance(error, BaseException)
        for key, error in errors.items()
    )


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
    times: int = 0
    """How often the handler has asked for this message again, this time included."""


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
    """When it could have been handled first, in seconds of ``Clock.monotonic()``."""
    attempt: int = 1
    """Counts from 1, for each consumer: what its Retry goes by."""
    token: object = None
    """What the backend settles by; opaque to everybody else."""
    deliveries: int = 1
    """How often the server has handed it out, unstarted ones perhaps included."""
    postponed: int = 0
    """How often its handler has asked for it again by RetryLater, as far as we know."""
    first_failed: float | None = None
    """When its first attempt failed, if that was here; in seconds since 1970."""


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


def _available_of(deliveries: Sequence[Delivery | Message[Any]]) -> Sequence[float]:
    # By its class: isinstance() of a message asks a function of its own.
    return [
        delivery.made_here + delivery.delay
        if type(delivery) is Message and isinstance(delivery.number, int)
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

    __repr__ = Message.__repr__
    __rich_repr__ = Message.__rich_repr__

    def __reduce__(self) -> tuple[Any, ...]:
        # With the Event class, as functions that decode cannot be pickled, and without
        # what it is settled by.
        delivery = self.delivery
        if isinstance(delivery, Delivery):
            delivery = msgspec.structs.replace(delivery, token=None)
        decode = self.decoders.get(self.type)
        event_class = getattr(decode, "event_class", None)
        return _receive_again, (delivery, event_class, self.own_headers)

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
    def causation_id(self) -> str | None:
        """The id of the message in whose handler this was emitted; None outside of one.

        Of the message as it came, whatever its handler wrote into ``headers``.
        """
        return self.delivery.message.causation_id

    @property
    def correlation_id(self) -> str | None:
        """The id that it has in common with all that came of one message."""
        return self.delivery.message.correlation_id

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


def _receive_again(
    delivery: Delivery, event_class: EventMeta | None, own_headers: dict[str, str]
) -> DeliveredMessage[Any]:
    decoders = {}
    if event_class is not None:
        decoders = {delivery.message.type: decode_as(event_class)}
    return DeliveredMessage(delivery, decoders, own_headers=own_headers)


def receive(
    delivery: Delivery, decoders: Mapping[str, Callable[[Message[Any]], Any]]
) -> Message[Any]:
    """Return what a handler of this delivery gets."""
    return cast("Message[Any]", DeliveredMessage(delivery, decoders))
