"""What the live page shows: what is now, and of the last five minutes; all frozen."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from django_gomq.operations.viewing import Desired

SPAN_SECONDS: Final = 300.0
"""What is not "now" is of so many seconds."""
BARS: Final = 60
BAR_SECONDS: Final = SPAN_SECONDS / BARS


class Source(StrEnum):
    """Whose numbers these are."""

    TABLE = "table"
    """Of all processes of the site, by the table of them."""
    DIRECTORY = "directory"
    """Of the processes of this machine that share PROMETHEUS_MULTIPROC_DIR."""
    PROCESS = "process"
    """Of the process that answers, and of no other."""


class State(StrEnum):
    """How a consumer is; the worst first."""

    PAUSED_LOSING = "paused_losing"
    """It is paused, and its overflow has dropped messages."""
    LOSING = "losing"
    STUCK = "stuck"
    """A handler has been at one message for minutes, and no other ends."""
    FAILING = "failing"
    """More than a fifth of its attempts of the last minute failed."""
    FILLING = "filling"
    """Half of its places are taken, or more."""
    PAUSING = "pausing"
    """It is to be paused, and is not yet in all processes."""
    RESUMING = "resuming"
    PAUSED = "paused"
    ABSENT = "absent"
    """No process that is known runs it."""
    RUNNING = "running"
    IDLE = "idle"
    """It has handled nothing in the last minute, and nothing waits."""


BAD: Final = frozenset({State.PAUSED_LOSING, State.LOSING, State.STUCK, State.FAILING})
"""What somebody has to see to."""
DOUBTFUL: Final = frozenset({State.FILLING})
"""What may become bad."""


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a consumer's messages in five seconds."""

    handled: int = 0
    failed: int = 0
    """Attempts that failed, those that are tried again included."""
    dropped: int = 0
    dispatched: int = 0
    """Messages that were meant for it."""
    dead_lettered: int = 0


class ConsumerReading(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer at one broker, in all processes of the reading."""

    broker: str
    consumer: str
    types: tuple[str, ...]
    """What it subscribes to; none where this process does not have it in its code."""
    severity: str
    state: State
    processes: int
    """How many run it."""
    paused_in: int
    """In how many of them it is paused: "Pausing · 1 of 2"."""
    desired: Desired
    depth: int
    scheduled: int
    in_flight: int
    spilled: int
    capacity: int
    """Of all processes together."""
    oldest_age: float
    """Seconds that the oldest message has waited."""
    running_seconds: float
    """For how long the oldest attempt in work has been running."""
    full_in: float | None
    """Seconds until its channel is full, if it goes on like this; None: it does not
    fill, or nothing is lost by that, as its broker keeps what finds no room."""
    bars: tuple[Bar, ...]
    """BARS of them, the oldest first."""
    in_rate: float
    """Messages a second, of the last ten seconds, that were meant for it."""
    out_rate: float
    """Messages a second that it has handled."""
    wait_p95: float | None
    """Seconds, of the last five minutes; None where nothing was handled."""
    handler_p95: float | None
    handled: int
    """Of the last five minutes, as all below."""
    failed: int
    failed_share: float
    """Which part of the attempts of the last minute failed, from 0 to 1."""
    retried: int
    dead_lettered: int
    dropped: Mapping[str, int]
    """What it has lost, by reason."""

    @property
    def taken(self) -> int:
        """How many places are taken."""
        return self.depth + self.scheduled + self.in_flight

    @property
    def fill(self) -> float:
        """Which part of its places is taken, from 0 to 1."""
        return min(1.0, self.taken / self.capacity) if self.capacity else 0.0

    @property
    def lost(self) -> int:
        """How many messages it has lost."""
        return sum(self.dropped.values())


class EventReading(msgspec.Struct, frozen=True, kw_only=True):
    """One event type at one broker, in all processes of the reading."""

    broker: str
    event: str
    goes_to: tuple[str, ...]
    """The consumers that subscribe to it."""
    rate: float
    """Published a second, of the last ten seconds."""
    bars: tuple[int, ...]
    """Published in each five seconds, the oldest first."""
    published: int
    """Of the last five minutes, as all below but ``depth``."""
    refused: Mapping[str, int]
    """By reason."""
    unconsumed: int
    rolled_back: int
    depth: int
    """What waits in the queue, and for its delay, now."""
    capacity: int


class ProcessReading(msgspec.Struct, frozen=True, kw_only=True):
    """One process that runs the bus."""

    host: str
    pid: int
    role: str
    """"web", "worker", or the management command."""
    up_seconds: float
    seen_seconds: float
    """How long ago it last told its numbers."""
    threads: int
    threads_busy: int


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, or may become so."""

    is_bad: bool
    broker: str
    consumer: str
    """Empty where it is about an event type."""
    event: str = ""
    text: str
    """A predicate: "dropped 101 messages (channel full)"."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What the bus does now, in all processes of ``source``."""

    source: Source
    at: float
    """When it was read, in seconds since 1970."""
    processes: tuple[ProcessReading, ...]
    """Oldest first; of a shared directory it is not known which these are."""
    process_count: int
    consumers: tuple[ConsumerReading, ...]
    """Worst first."""
    events: tuple[EventReading, ...]
    """Busiest first."""
    findings: tuple[Finding, ...]
    """Worst first; none: nothing is wrong."""
    emitted_rate: float
    """A second, of the last ten seconds."""
    handled_rate: float
    failed_share: float
    """Which part of the attempts of the last five minutes failed, from 0 to 1."""
    waiting: int
    """Messages that wait in queues and channels, scheduled and spilled ones included,
    in work not."""
    lost: int
    """Messages that were dropped or refused in the last five minutes."""
    lost_by_reason: Mapping[str, int]
