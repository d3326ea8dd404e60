"""Overview: what waits, where, and for how long."""

from __future__ import annotations

from grafana_foundation_sdk.models import units

from dashboards import thresholds as at
from dashboards.panels import About, Panel, Query, graph
from dashboards.promql import (
    CONSUMER,
    EVENT,
    HANDLER_TIME,
    WAIT,
    channel_fill,
    quantile,
    queue_fill,
)


def waiting() -> list[Panel]:
    """Return the panels."""
    return [
        graph(
            "Waiting for a handler",
            About(
                "Messages in channels, by consumer, over all processes.",
                "A line that grows and does not come back.",
                "Compare with the attempts: if they go on, it is too slow; if not, it "
                "stands still.",
            ),
            Query(
                f"sum by (consumer) (gomq_channel_depth{{{CONSUMER}}})", "{{consumer}}"
            ),
            unit="short",
        ),
        graph(
            "Waiting for the dispatcher",
            About(
                "Messages in queues and those with a delay, by event type.",
                "A queue that is not near zero: the dispatcher is down, or a consumer "
                "with overflow=backpressure holds the type back.",
                "See dispatchers on the board Telemetry; find that consumer's channel "
                "in the panel below.",
            ),
            Query(f"sum by (event) (gomq_queue_depth{{{EVENT}}})", "{{event}}"),
            Query(
                f"sum by (event) (gomq_messages_delayed{{{EVENT}}})",
                "{{event}} delayed",
            ),
            unit="short",
        ),
        graph(
            "Longest attempt in work",
            About(
                "For how long the attempt that is in work longest has been running, by "
                "consumer, in the process where it is longest.",
                "A line that climbs one second a second: that handler hangs, and with "
                "it a thread that others may wait for.",
                "Runbook GomqHandlerStuck.",
            ),
            Query(
                f"max by (consumer) (gomq_handler_running_seconds{{{CONSUMER}}})",
                "{{consumer}}",
            ),
            unit=units.Seconds,
            limit=at.RUNNING,
        ),
        graph(
            "Oldest message in a queue",
            About(
                "How long the oldest message has waited for the dispatcher, by event "
                "type, in the process where it is longest.",
                "More than moments: none of its consumers sees these messages.",
                "Runbook GomqQueueStalled.",
            ),
            Query(
                f"max by (event) (gomq_queue_oldest_age_seconds{{{EVENT}}})",
                "{{event}}",
            ),
            unit=units.Seconds,
            limit=at.QUEUE_AGE,
        ),
        graph(
            "How full",
            About(
                "The fullest channel of each consumer and the fullest queue of each "
                "type, among all processes. Scheduled retries and delayed messages "
                "have their place too.",
                "Above the line: what comes next is lost or held back.",
                "Speed up the handler, or give it more concurrency; capacity only buys "
                "time.",
            ),
            Query(f"max by (consumer) ({channel_fill(CONSUMER)})", "{{consumer}}"),
            Query(f"max by (event) ({queue_fill(EVENT)})", "{{event}}"),
            unit=units.PercentUnit,
            limit=at.FILL,
        ),
        graph(
            "Wait",
            About(
                "From when a message was due until its handler began, for all chosen "
                "consumers. Estimates from buckets.",
                "p95 or p99 that leave p50 behind: some consumer is late.",
                "The table says which one.",
            ),
            *_quantiles(WAIT),
            unit=units.Seconds,
            limit=at.WAIT_P95,
        ),
        graph(
            "Handler time",
            About(
                "How long handlers ran, for all chosen consumers. Estimates from "
                "buckets; points are exemplars.",
                "A rise without more traffic: something that handlers call got slow.",
                "The table says whose p95 rose; follow an exemplar into its trace.",
            ),
            *_quantiles(HANDLER_TIME),
            unit=units.Seconds,
        ),
        graph(
            "Waiting for another attempt",
            About(
                "Messages whose retry is scheduled, by consumer. They hold their place "
                "in the channel.",
                "A number near the channel's capacity: retries crowd out new messages.",
                "Find the exceptions on the consumer's board; fewer attempts or longer "
                "pauses in its Retry.",
            ),
            Query(
                f"sum by (consumer) (gomq_messages_scheduled{{{CONSUMER}}})",
                "{{consumer}}",
            ),
            unit="short",
        ),
    ]


def _quantiles(metric: str) -> list[Query]:
    has = metric == HANDLER_TIME
    return [
        Query(quantile(q, metric, CONSUMER), f"p{100 * q:g}", exemplar=has)
        for q in (0.5, 0.95, 0.99)
    ]
