"""Every metric by name, help and labels: the catalogue; it knows no broker."""

from __future__ import annotations

from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric

PREFIX: Final = "gomq_"


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, text, labels=labels)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)


def _histogram(name: str, text: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(PREFIX + name, text, labels=labels)


class Families:
    """All metrics of one scrape, empty; names and labels are public API."""

    def __init__(self) -> None:
        self._make_event_families("broker", "event")
        self._make_pair_families("broker", "event", "consumer")
        self._make_consumer_families("broker", "consumer")
        self._make_process_families()

    def _make_event_families(self, *by: str) -> None:
        self.published = _counter(
            "messages_published_total", "Messages that a broker took.", *by
        )
        self.unconsumed = _counter(
            "messages_unconsumed_total", "Events that no consumer subscribes to.", *by
        )
        self.refused = _counter(
            "messages_refused_total",
            "Messages that a broker did not take, and told the caller why.",
            *by,
            "reason",
        )
        self.rolled_back = _counter(
            "messages_rolled_back_total",
            "Events that went with a transaction that was rolled back.",
            *by,
        )
        self.queue_depth = _gauge(
            "queue_depth", "Messages that wait for the dispatcher.", *by
        )
        self.queue_capacity = _gauge(
            "queue_capacity", "How many messages the queue of an event holds.", *by
        )
        self.delayed = _gauge(
            "messages_delayed",
            "Messages that were taken and wait for the end of their delay.",
            *by,
        )

    def _make_pair_families(self, *by: str) -> None:
        self.dropped = _counter(
            "messages_dropped_total",
            "Messages that were taken and that one consumer will never see.",
            *by,
            "reason",
        )
        self.processed = _counter(
            "messages_processed_total",
            "Attempts that a handler finished, by what came of them.",
            *by,
            "outcome",
        )

    def _make_consumer_families(self, *by: str) -> None:
        self.channel_depth = _gauge(
            "channel_depth", "Messages that wait for a handler.", *by
        )
        self.channel_capacity = _gauge(
            "channel_capacity",
            "How many messages may wait, be scheduled or be in flight.",
            *by,
        )
        self.oldest_age = _gauge(
            "channel_oldest_age_seconds",
            "How long the oldest message that is due has waited; 0 if none waits.",
            *by,
        )
        self.scheduled = _gauge(
            "messages_scheduled", "Messages that wait for another attempt.", *by
        )
        self.in_flight = _gauge("messages_in_flight", "Messages inside a handler.", *by)
        self.wait = _histogram(
            "message_wait_seconds",
            "From when a message was due until its handler started.",
            *by,
        )
        self.duration = _histogram(
            "handler_duration_seconds", "How long a handler ran.", *by
        )
        self.retries = _counter(
            "message_retries_total", "Attempts that another one follows.", *by
        )
        self.dead_lettered = _counter(
            "messages_dead_lettered_total", "Messages that a consumer gave up on.", *by
        )
        self.exceptions = _counter(
            "handler_exceptions_total",
            "What handlers raised, by class: 20 of them, then _other.",
            *by,
            "error_type",
        )
        self.paused = _gauge(
            "consumer_paused", "1 while a consumer is paused in this process.", *by
        )
        self.info = _gauge(
            "consumer_info",
            "Always 1; says what a consumer is.",
            *by,
            "backend",
            "severity",
        )
        self.last_success = _gauge(
            "last_success_timestamp_seconds",
            "When a handler last succeeded, in seconds since 1970.",
            *by,
        )

    def _make_process_families(self) -> None:
        self.threads = _gauge("threads", "Handler threads that run in this process.")
        self.threads_busy = _gauge(
            "threads_busy", "Handler threads that are at work now."
        )
        self.dispatcher_up = _gauge(
            "dispatcher_up",
            "0 while the dispatcher of a started broker is down; 1 otherwise, so also "
            "before the first emit.",
            "broker",
        )
        self.start_time = _gauge(
            "start_time_seconds",
            "Since when this process counts, in seconds since 1970.",
        )
        self.build_info = _gauge("build_info", "Always 1; says what runs.", "version")
        self.telemetry_errors = _counter(
            "telemetry_errors_total",
            "What the observers themselves failed at, by class.",
            "kind",
        )

    def all(self) -> list[Metric]:
        """Return every family, in the order of the catalogue."""
        return list(vars(self).values())
