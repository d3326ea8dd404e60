"""Consumer board: what becomes of messages."""

from __future__ import annotations

from grafana_foundation_sdk.models import units

from dashboards.panels import (
    HALF,
    THIRD,
    About,
    Column,
    Panel,
    Query,
    graph,
    listing,
)
from dashboards.promql import CONSUMER, OUTCOMES, PAIR, rate


def outcomes() -> list[Panel]:
    """Return the panels."""
    return [*_attempts(), *_ends(), _info()]


def _attempts() -> list[Panel]:
    return [
        graph(
            "Attempts by outcome",
            About(
                "Attempts a second, by what came of them; the event variable narrows "
                "it.",
                "error, timeout or rejected that stay.",
                "See the exceptions beside this, then the log.",
            ),
            Query(
                rate("gomq_messages_processed_total", PAIR, "outcome"), "{{outcome}}"
            ),
            unit="ops",
            stacked=True,
            colours=OUTCOMES,
        ),
        graph(
            "Exceptions",
            About(
                "What handlers raised, by class; beyond 20 classes `_other`.",
                "A class that is new since a deployment.",
                "The log has a WARNING for each retry and an ERROR with the traceback "
                "for each dead letter.",
            ),
            Query(
                rate("gomq_handler_exceptions_total", CONSUMER, "consumer, error_type"),
                "{{consumer}} {{error_type}}",
            ),
            unit="ops",
        ),
    ]


def _ends() -> list[Panel]:
    return [
        graph(
            "Retries",
            About(
                "Attempts that another one follows, a second.",
                "As many as the attempts: nearly everything fails at first.",
                "See the exceptions; RetryLater counts here too and is no error.",
            ),
            Query(
                rate("gomq_message_retries_total", CONSUMER, "consumer"), "{{consumer}}"
            ),
            unit="ops",
            width=THIRD,
        ),
        graph(
            "Dead letters",
            About(
                "Messages that the consumer gave up on, a second.",
                "Anything above zero.",
                "Runbook GomqDeadLetters.",
            ),
            Query(
                rate("gomq_messages_dead_lettered_total", CONSUMER, "consumer"),
                "{{consumer}}",
            ),
            unit="mps",
            width=THIRD,
        ),
        graph(
            "Drops by reason",
            About(
                "Messages that this consumer will never see, a second.",
                "Anything above zero. channel_full and evicted: too slow. expired: "
                "waited beyond max_age. shutdown: the drain was too short.",
                "Runbook GomqMessagesDropped.",
            ),
            Query(
                rate("gomq_messages_dropped_total", PAIR, "consumer, reason"),
                "{{consumer}} {{reason}}",
            ),
            unit="mps",
            width=THIRD,
        ),
    ]


def _info() -> Panel:
    key = "broker, consumer, backend, severity"
    queries = [
        Query(f"sum by ({key}) (gomq_consumer_info{{{CONSUMER}}})", "Instances"),
    ]
    columns = {
        "Consumer": Column(),
        "Broker": Column(),
        "Backend": Column(),
        "Severity": Column(),
        "Instances": Column(units.Short),
    }
    about = About(
        "What each consumer is: its broker, the broker's backend, and how grave its "
        "losses are to alerts. Instances are scraped addresses.",
        "A consumer with two rows: processes with different code run side by side.",
        "Finish the deployment.",
    )
    return listing("What it is", about, queries, columns, width=2 * HALF)
