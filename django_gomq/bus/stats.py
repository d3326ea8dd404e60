"""What broker.stats() returns: frozen numbers of one process at one moment."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .counts import HistogramState
from .delivery import DropReason, Verdict


class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    """One event type at this broker. ``published = dispatched + depth + delayed``."""

    published: int = 0
    dispatched: int = 0
    depth: int = 0
    delayed: int = 0
    capacity: int = 0
    refused: Mapping[str, int] = msgspec.field(default_factory=dict)
    """By reason."""
    unconsumed: int = 0
    rolled_back: int = 0
    unknown: int = 0
    """Published without an answer: the server may have them."""


class ConsumerStats(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer at this broker.

    ``dispatched = succeeded + all dropped + dead_lettered + handed_back + depth +
    scheduled + in_flight``, exact when the bus is quiet.
    """

    dispatched: Mapping[str, int]
    """By event type."""
    processed: Mapping[tuple[str, Verdict], int]
    """Attempts, by event type and verdict."""
    dropped: Mapping[tuple[str, DropReason], int]
    """By event type and reason."""
    succeeded: int
    dead_lettered: int
    retries: int
    depth: int
    scheduled: int
    in_flight: int
    capacity: int
    oldest_age: float
    """Seconds that the oldest waiting message has waited; 0 when none waits."""
    paused: bool
    handed_back: int = 0
    """Deliveries that ended here and go on elsewhere: the server keeps their retry,
    took them back unstarted, or gave them to somebody else. Always 0 in memory."""
    exceptions: Mapping[str, int]
    """By class name of the error."""
    last_success: float | None
    """Seconds since 1970."""
    wait: HistogramState
    duration: HistogramState

    @property
    def unaccounted(self) -> int:
        """How far the law is from holding; 0 when the bus is quiet."""
        ended = self.succeeded + sum(self.dropped.values()) + self.dead_lettered
        ended += self.handed_back
        held = self.depth + self.scheduled + self.in_flight
        return sum(self.dispatched.values()) - ended - held


class ServerStats(msgspec.Struct, frozen=True, kw_only=True):
    """What waits at the server for one consumer; None: the server does not say."""

    ready: int | None = None
    scheduled: int | None = None
    dead: int | None = None
    oldest_age: float | None = None
    """Seconds that the oldest ready message has waited."""


class BrokerStats(msgspec.Struct, frozen=True, kw_only=True):
    """One broker in this process."""

    queues: Mapping[str, QueueStats]
    """By event type."""
    consumers: Mapping[str, ConsumerStats]
    """By consumer name."""
    reader_up: bool
    """Whether the thread that feeds the channels runs."""
    started: bool
    server: Mapping[str, ServerStats] = msgspec.field(default_factory=dict)
    """By consumer, as of some seconds ago; nothing where there is no server."""
    server_up: bool = True
    """Whether the server answered last, as far as this process has asked it."""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits, is scheduled or is in work."""
        return not any(
            queue.depth or queue.delayed for queue in self.queues.values()
        ) and not any(
            consumer.depth or consumer.scheduled or consumer.in_flight
            for consumer in self.consumers.values()
        )


class Remainder(msgspec.Struct, frozen=True, kw_only=True):
    """What a stop left unhandled."""

    dropped: Mapping[str, int]
    """Messages by event type that a consumer will never see."""
    in_flight: int
    """Handlers that were still running at the deadline."""
    unsettled: int = 0
    """Outcomes that the server was never told: it hands these messages out again."""
    seconds: float
    """How long the stop took."""

    @property
    def is_clean(self) -> bool:
        """Whether everything that was accepted was finished."""
        return not (self.dropped or self.in_flight or self.unsettled)
