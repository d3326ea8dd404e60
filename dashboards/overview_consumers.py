"""Overview: a table with a row for each consumer."""

from __future__ import annotations

from grafana_foundation_sdk.models import units

from dashboards import links
from dashboards import thresholds as at
from dashboards.panels import NAME, About, Column, Panel, Query, listing
from dashboards.promql import CONSUMER, FAILED, PAIR, channel_fill, quantile, rate

_ATTEMPTS = "gomq_messages_processed_total"
_DROPPED = "gomq_messages_dropped_total"


def consumers() -> Panel:
    """Return the table."""
    key = "broker, consumer"
    ago = f"time() - max by ({key}) (gomq_last_success_timestamp_seconds{{{CONSUMER}}})"
    failed = rate(_ATTEMPTS, f"{PAIR}, {FAILED}", key)
    queries = [
        Query(rate(_ATTEMPTS, PAIR, key), "Attempts"),
        Query(f"{failed} / ({rate(_ATTEMPTS, PAIR, key)} > 0)", "Failed"),
        Query(quantile(0.95, "gomq_message_wait_seconds", CONSUMER, key), "Wait p95"),
        Query(
            quantile(0.95, "gomq_handler_duration_seconds", CONSUMER, key),
            "Handler p95",
        ),
        Query(
            f"max by ({key}) (gomq_handler_running_seconds{{{CONSUMER}}})", "In work"
        ),
        Query(f"sum by ({key}) (gomq_channel_depth{{{CONSUMER}}})", "Waiting"),
        Query(f"max by ({key}) ({channel_fill(CONSUMER)})", "Full"),
        Query(f"sum by ({key}) (increase({_DROPPED}{{{PAIR}}}[$__range]))", "Dropped"),
        Query(
            f"sum by ({key}) (increase(gomq_messages_dead_lettered_total{{{CONSUMER}}}"
            "[$__range]))",
            "Dead letters",
        ),
        Query(ago, "Last success"),
    ]
    columns = {
        "Broker": Column(),
        "Consumer": Column(link=links.to_consumer(), width=NAME),
        "Attempts": Column("ops"),
        "Failed": Column(units.PercentUnit, at.ERROR_RATIO),
        "Wait p95": Column(units.Seconds, at.WAIT_P95),
        "Handler p95": Column(units.Seconds),
        "In work": Column(units.Seconds, at.RUNNING),
        "Waiting": Column(),
        "Full": Column(units.PercentUnit, at.FILL),
        "Dropped": Column(limit=0.5),
        "Dead letters": Column(limit=0.5),
        "Last success": Column(units.Seconds),
    }
    about = About(
        "Every consumer: attempts a second, what became of them, how long messages "
        "wait, for how long the longest attempt in work has been running, and how full "
        "the fullest channel is. Drops and dead letters are those of the "
        "time range. A click on a name opens the consumer's board.",
        "Red cells, or a last success that is long ago while there are attempts.",
        "Sort by the column that matters, and open the worst one.",
    )
    return listing("Consumers", about, queries, columns)
