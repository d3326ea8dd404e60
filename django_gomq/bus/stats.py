"""What broker.stats() returns: frozen numbers of one process at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    oldest_age: float = 0.0
    """Seconds that the oldest message has waited for the dispatcher; 0 without one."""
    refused: Mapping[str, int] = msgspec.field(default_factory=dict)
    """By reason."""
    unconsumed: int = 0
    rolled_back: int = 0
    unknown: int = 0
    """Published without an answer: the server may have them."""


class ConsumerStats(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer at this broker.

    ``dispatched = succeeded + all dropped + dead_lettered + handed_back + depth +
    scheduled + in_flight + spilled``, exact when the bus is quiet.
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
    spilled: int = 0
    """Behind the channel: in the table of spilled messages, or on the way into it.
    After a stop: what it left there."""
    capacity: int
    oldest_age: float
    """Seconds that the oldest waiting message has waited; 0 when none waits."""
    paused: bool
    running_seconds: float = 0.0
    """For how long the oldest attempt in work has been running; 0 when none is."""
    handed_back: int = 0
    """Deliveries that ended here and go on elsewhere: the server keeps their retry,
    took them back unstarted, or gave them to somebody else. Always 0 in memory."""
    lost_leases: int = 0
    """Those of them that were handled here after they had been given to others."""
    exceptions: Mapping[str, int]
    """By class name of the error."""
    last_success: float | None
    """Seconds since 1970."""
    wait: HistogramState
    duration: HistogramState

    @property
    def fill(self) -> float:
        """Which part of the channel's places is taken."""
        held = self.depth + self.scheduled + self.in_flight
        return held / self.capacity

    @property
    def unaccounted(self) -> int:
        """How far the law is from holding; 0 when the bus is quiet."""
        ended = self.succeeded + sum(self.dropped.values()) + self.dead_lettered
        ended += self.handed_back
        held = self.depth + self.scheduled + self.in_flight + self.spilled
        return sum(self.dispatched.values()) - ended - held


class ServerStats(msgspec.Struct, frozen=True, kw_only=True):
    """What waits at the server for one consumer; None: the server does not say.

    A server that counts for long may stop at a number: so many wait, or more.
    """

    ready: int | None = None
    held: int | None = None
    """Handed out to processes, and not settled."""
    trimmed: int | None = None
    """How many that it was to read somebody has deleted; 0 again once it read on."""
    scheduled: int | None = None
    dead: int | None = None
    oldest_age: float | None = None
    """Seconds that the oldest ready message has waited."""
    workers: int | None = None
    """How many living processes run it."""


class ServerProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that has not said that it ends."""

    host: str
    pid: int
    beat_age: float
    """Seconds since it last said that it lives."""
    is_late: bool
    """Whether that is so long ago that others may take over from it."""


class ServerSample(msgspec.Struct, frozen=True, kw_only=True):
    """What a server was found to hold at one moment; None: it does not say."""

    consumers: Mapping[str, ServerStats] = msgspec.field(default_factory=dict)
    """Of each consumer that it knows, by name."""
    outbox_depth: int | None = None
    """Messages that were published and not yet handed on to their consumers, or not
    yet forwarded to the server."""
    outbox_oldest_age: float | None = None
    """Seconds that the oldest of them has waited; 0 without one."""
    outbox_refused: int | None = None
    """Dead letters of what the server will never take."""
    is_relayed: bool | None = None
    """Whether a process forwards what stands in the outbox."""
    processes: Sequence[ServerProcess] | None = None
    found_dead: int | None = None
    """How many processes this one has found dead that did not say that they end."""


class BrokerStats(msgspec.Struct, frozen=True, kw_only=True):
    """One broker in this process."""

    queues: Mapping[str, QueueStats]
    """By event type."""
    consumers: Mapping[str, ConsumerStats]
    """By consumer name."""
    reader_up: bool
    """Whether the thread that feeds the channels runs."""
    started: bool
    server: ServerSample = ServerSample()
    """As of some seconds ago; empty where there is no server, or none was asked."""
    server_up: bool = True
    """Whether the server answered last, as far as this process has asked it."""
    reconnects: int = 0
    """How often it answered again after it had not, by reader and by publisher."""
    operations: Mapping[str, HistogramState] = msgspec.field(default_factory=dict)
    """How long it took: ``publish``, ``fetch``, ``settle``, and where leases have to be
    kept ``extend``."""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits, is scheduled or is in work."""
        return not any(
            queue.depth or queue.delayed for queue in self.queues.values()
        ) and not any(
            consumer.depth
            or consumer.scheduled
            or consumer.in_flight
            or consumer.spilled
            for consumer in self.consumers.values()
        )


class Remainder(msgspec.Struct, frozen=True, kw_only=True):
    """What a stop left unhandled."""

    dropped: Mapping[str, int]
    """Messages by event type that a consumer will never see."""
    in_flight: int
    """Handlers that were still running at the deadline."""
    background: Sequence[str] = ()
    """The coroutines of tasks that async handlers had started, and that still ran."""
    unsettled: int = 0
    """Outcomes that the server was never told: it hands these messages out again."""
    spilled: int = 0
    """Messages that wait in the table of spilled ones: other processes handle them."""
    seconds: float
    """How long the stop took."""

    @property
    def is_clean(self) -> bool:
        """Whether everything that was accepted was finished."""
        return not (self.left or self.unsettled)

    @property
    def left(self) -> int:
        """How many messages, handlers and tasks of handlers did not come to an end."""
        return sum(self.dropped.values()) + self.in_flight + len(self.background)
