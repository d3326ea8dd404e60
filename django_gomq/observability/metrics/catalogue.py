"""Every metric by name, help, labels and how it adds up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from django_gomq.bus.counts import HistogramState

PREFIX: Final = "gomq_"

Kind = Literal["counter", "gauge", "histogram"]
Mode = Literal["", "fine", "livesum", "livemax", "livemin", "max"]


class About(msgspec.Struct, frozen=True):
    """What one metric is."""

    kind: Kind
    name: str
    """As the client library calls the family: that of a counter lacks ``_total``."""
    text: str
    labels: tuple[str, ...]
    mode: Mode = ""
    """How gauges of several processes become one; "live": of those alive alone.
    Counters and histograms always add up, also those of processes that ended.
    "fine": of a histogram, by the buckets that are not for Prometheus."""


class Numbers(Protocol):
    """Takes the values of a counter or a gauge."""

    def add_metric(self, labels: Sequence[str], value: float) -> None:
        """Take the value of one series."""


class Distributions(Protocol):
    """Takes the values of a histogram."""

    def add_state(
        self, labels: Sequence[str], state: HistogramState, bounds: tuple[float, ...]
    ) -> None:
        """Take one histogram, of which these bounds are for Prometheus."""


class Catalogue:
    """Has one attribute for each metric; names and labels are public API.

    What the attributes are is for ``make`` to say.
    """

    def __init__(self, make: Callable[[About], Any]) -> None:
        self._make = make
        self._make_event_families("broker", "event")
        self._make_pair_families("broker", "event", "consumer")
        self._make_channel_families("broker", "consumer")
        self._make_consumer_families("broker", "consumer")
        self._make_claim_families("broker", "consumer")
        self._make_server_families("broker", "consumer")
        self._make_process_families()

    def _counter(self, name: str, text: str, *labels: str) -> Numbers:
        name = PREFIX + name.removesuffix("_total")
        made: Numbers = self._make(About("counter", name, text, labels))
        return made

    def _gauge(self, mode: Mode, name: str, text: str, *labels: str) -> Numbers:
        made: Numbers = self._make(About("gauge", PREFIX + name, text, labels, mode))
        return made

    def _histogram(self, name: str, text: str, *labels: str) -> Distributions:
        about = About("histogram", PREFIX + name, text, labels)
        made: Distributions = self._make(about)
        return made

    def _make_event_families(self, *by: str) -> None:
        self.published = self._counter(
            "messages_published_total", "Messages that a broker took.", *by
        )
        self.unconsumed = self._counter(
            "messages_unconsumed_total", "Events that no consumer subscribes to.", *by
        )
        self.refused = self._counter(
            "messages_refused_total",
            "Messages that a broker did not take, and told the caller why.",
            *by,
            "reason",
        )
        self.unknown = self._counter(
            "messages_unknown_total",
            "Messages that a server did not answer for: it may have them, or not.",
            *by,
        )
        self.rolled_back = self._counter(
            "messages_rolled_back_total",
            "Events that went with a transaction that was rolled back.",
            *by,
        )
        self.queue_depth = self._gauge(
            "livesum", "queue_depth", "Messages that wait for the dispatcher.", *by
        )
        self.queue_capacity = self._gauge(
            "livesum",
            "queue_capacity",
            "How many messages the queue of an event holds.",
            *by,
        )
        self.queue_oldest_age = self._gauge(
            "livemax",
            "queue_oldest_age_seconds",
            "How long the oldest message has waited for the dispatcher; 0 without one.",
            *by,
        )
        self.delayed = self._gauge(
            "livesum",
            "messages_delayed",
            "Messages that were taken and wait for the end of their delay.",
            *by,
        )

    def _make_pair_families(self, *by: str) -> None:
        self.dropped = self._counter(
            "messages_dropped_total",
            "Messages that were taken and that one consumer will never see.",
            *by,
            "reason",
        )
        self.processed = self._counter(
            "messages_processed_total",
            "Attempts that a handler finished, by what came of them.",
            *by,
            "outcome",
        )

    def _make_channel_families(self, *by: str) -> None:
        self.channel_depth = self._gauge(
            "livesum", "channel_depth", "Messages that wait for a handler.", *by
        )
        self.channel_capacity = self._gauge(
            "livesum",
            "channel_capacity",
            "How many messages may wait, be scheduled or be in flight.",
            *by,
        )
        self.oldest_age = self._gauge(
            "livemax",
            "channel_oldest_age_seconds",
            "How long the oldest message that is due has waited; 0 if none waits.",
            *by,
        )
        self.scheduled = self._gauge(
            "livesum",
            "messages_scheduled",
            "Messages that wait for another attempt.",
            *by,
        )
        self.spilled = self._gauge(
            "livesum",
            "messages_spilled",
            "Messages that a full channel spilled and that wait to come back.",
            *by,
        )
        self.in_flight = self._gauge(
            "livesum", "messages_in_flight", "Messages inside a handler.", *by
        )
        self.channel_fill = self._gauge(
            "livemax",
            "channel_fill_ratio",
            "Which part of a channel's places is taken, in the process with most.",
            *by,
        )
        self.running = self._gauge(
            "livemax",
            "handler_running_seconds",
            "For how long the oldest attempt in work has been running; 0 if none is.",
            *by,
        )

    def _make_consumer_families(self, *by: str) -> None:
        self.wait = self._histogram(
            "message_wait_seconds",
            "From when a message was due until its handler started.",
            *by,
        )
        self.duration = self._histogram(
            "handler_duration_seconds", "How long a handler ran.", *by
        )
        self.retries = self._counter(
            "message_retries_total", "Attempts that another one follows.", *by
        )
        self.dead_lettered = self._counter(
            "messages_dead_lettered_total", "Messages that a consumer gave up on.", *by
        )
        self.exceptions = self._counter(
            "handler_exceptions_total",
            "What handlers raised, by class: 20 of them, then _other.",
            *by,
            "error_type",
        )
        self.paused = self._gauge(
            "livemax",
            "consumer_paused",
            "1 while a consumer is paused in this process.",
            *by,
        )
        self.info = self._gauge(
            "livemax",
            "consumer_info",
            "Always 1; says what a consumer is.",
            *by,
            "backend",
            "severity",
        )
        self.last_success = self._gauge(
            "max",
            "last_success_timestamp_seconds",
            "When a handler last succeeded, in seconds since 1970.",
            *by,
        )

    def _make_claim_families(self, *by: str) -> None:
        """Make those of what a server hands to this process; memory has none."""
        self.fetched = self._counter(
            "messages_fetched_total", "Messages that a server handed to a process.", *by
        )
        self.handed_back = self._counter(
            "messages_handed_back_total",
            "Messages that a process was handed and that go on at the server.",
            *by,
        )
        self.lost_leases = self._counter(
            "leases_lost_total",
            "Messages that were handled after they had been given to others.",
            *by,
        )

    def _make_server_families(self, *by: str) -> None:
        """Make those of what a server holds: every process that asks sees the same."""
        self.server_depth = self._gauge(
            "livemax",
            "server_depth",
            "Messages that are due and wait at a server; counted up to a bound.",
            *by,
        )
        self.server_pending = self._gauge(
            "livemax",
            "server_pending",
            "Messages that a server has handed out and nobody has settled.",
            *by,
        )
        self.server_trimmed = self._gauge(
            "livemax",
            "server_trimmed",
            "Messages that somebody deleted at a server before they were handed out.",
            *by,
        )
        self.server_scheduled = self._gauge(
            "livemax",
            "server_scheduled",
            "Messages that wait at a server for their time; counted up to a bound.",
            *by,
        )
        self.server_oldest_age = self._gauge(
            "livemax",
            "server_oldest_age_seconds",
            "How long the oldest message that is due has waited at a server.",
            *by,
        )
        self.server_dead_letters = self._gauge(
            "livemax", "server_dead_letters", "Dead letters that a server keeps.", *by
        )
        self.server_workers = self._gauge(
            "livemax",
            "server_workers",
            "Living processes that run a consumer, on any machine.",
            *by,
        )
        broker = by[0]
        self.server_processes = self._gauge(
            "livemax", "server_processes", "Processes that live and fetch.", broker
        )
        self.server_processes_died = self._counter(
            "server_processes_died_total",
            "Processes that ended without a word, as this one found.",
            broker,
        )
        self.outbox_depth = self._gauge(
            "livemax",
            "outbox_depth",
            "Messages that no consumer has been given yet; counted up to a bound.",
            broker,
        )
        self.outbox_oldest_age = self._gauge(
            "livemax",
            "outbox_oldest_age_seconds",
            "How long ago the oldest of these was emitted; 0 without one.",
            broker,
        )
        self.outbox_refused = self._gauge(
            "livemax",
            "outbox_refused",
            "Dead letters of events in an outbox that the server will never take.",
            broker,
        )
        self.relay_up = self._gauge(
            "livemax",
            "relay_up",
            "1 while some process forwards what stands in the outbox; else 0.",
            broker,
        )
        self.backend_up = self._gauge(
            "livemin",
            "backend_up",
            "0 while a server does not answer; 1 otherwise, also before it is asked.",
            broker,
        )
        self.reconnects = self._counter(
            "backend_reconnects_total",
            "How often a server answered again after it had not.",
            broker,
        )
        self.operations = self._histogram(
            "backend_operation_seconds",
            "How long a server took for what it was asked, or until that failed.",
            broker,
            "operation",
        )

    def _make_process_families(self) -> None:
        self.threads = self._gauge(
            "livesum", "threads", "Handler threads that run in this process."
        )
        self.threads_busy = self._gauge(
            "livesum", "threads_busy", "Handler threads that are at work now."
        )
        self.busy_ratio = self._gauge(
            "livemax",
            "threads_busy_ratio",
            "Which part of the handler threads is at work, in the process with most.",
        )
        self.threads_missing = self._gauge(
            "livesum",
            "threads_missing",
            "Threads of started workers that should run and do not, by what they do.",
            "thread",
        )
        self.loop_lag = self._gauge(
            "livemax",
            "loop_lag_seconds",
            "For how long an async handler has blocked the event loop; 0 if none does.",
        )
        self.dispatcher_up = self._gauge(
            "livemin",
            "dispatcher_up",
            "0 while the dispatcher of a started broker is down; 1 otherwise, so also "
            "before the first emit.",
            "broker",
        )
        self.start_time = self._gauge(
            "livemax",
            "start_time_seconds",
            "Since when this process counts, in seconds since 1970.",
        )
        self.build_info = self._gauge(
            "livemax", "build_info", "Always 1; says what runs.", "version"
        )
        self.processes = self._gauge(
            "livesum", "processes", "Processes whose numbers these are."
        )
        self.processes_killed = self._counter(
            "processes_killed_total",
            "Processes that ended without a stop, as others of their directory found.",
        )
        self.telemetry_errors = self._counter(
            "telemetry_errors_total",
            "What the observers themselves failed at, by class.",
            "kind",
        )


def _describe() -> Mapping[str, About]:
    found: list[About] = []
    Catalogue(found.append)
    return {about.name: about for about in found}


ABOUT: Final = _describe()
"""Every metric by its name."""
