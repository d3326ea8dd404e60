"""Every metric by name, help, labels and how it adds up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

PREFIX: Final = "gomq_"

Kind = Literal["counter", "gauge", "histogram"]
Mode = Literal["", "livesum", "livemax", "livemin", "max"]


class About(msgspec.Struct, frozen=True):
    """What one metric is."""

    kind: Kind
    name: str
    """As the client library calls the family: that of a counter lacks ``_total``."""
    text: str
    labels: tuple[str, ...]
    mode: Mode = ""
    """How gauges of several processes become one; "live": of those alive alone.
    Counters and histograms always add up, also those of processes that ended."""


class Numbers(Protocol):
    """Takes the values of a counter or a gauge."""

    def add_metric(self, labels: Sequence[str], value: float) -> None:
        """Take the value of one series."""


class Distributions(Protocol):
    """Takes the values of a histogram."""

    def add_metric(
        self,
        labels: Sequence[str],
        buckets: Sequence[Sequence[Any]],
        sum_value: float | None,
    ) -> None:
        """Take one histogram: buckets (bound, cumulative count, ...) and their sum."""


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
        self.in_flight = self._gauge(
            "livesum", "messages_in_flight", "Messages inside a handler.", *by
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

    def _make_process_families(self) -> None:
        self.threads = self._gauge(
            "livesum", "threads", "Handler threads that run in this process."
        )
        self.threads_busy = self._gauge(
            "livesum", "threads_busy", "Handler threads that are at work now."
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
