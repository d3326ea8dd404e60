"""The overview for very many instances, from recorded series alone."""

from __future__ import annotations

from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import board, links, variables
from dashboards import thresholds as at
from dashboards.board import Row
from dashboards.panels import (
    NAME,
    QUARTER,
    About,
    Column,
    Panel,
    Query,
    graph,
    listing,
    stat,
)
from dashboards.promql import FAILED, OUTCOMES

_JOB = 'job=~"$job"'
_BROKER = f'{_JOB}, broker=~"$broker"'
_EVENT = f'{_BROKER}, event=~"$event"'
_CONSUMER = f'{_BROKER}, consumer=~"$consumer"'
_PAIR = f'{_EVENT}, consumer=~"$consumer"'
_ATTEMPTS = "gomq:messages_processed:rate5m"


def make() -> Dashboard:
    """Return the board."""
    chosen = [
        variables.datasource(),
        variables.job(),
        variables.broker(_JOB),
        variables.event(_BROKER),
        variables.consumer(_BROKER),
    ]
    rows = [
        Row("Health", _health()),
        Row("Consumers", [_consumers()]),
        Row("Flow and waiting", _lines()),
    ]
    return board.make(
        links.FLEET,
        "django-gomq / Fleet",
        "The overview from recorded series: fast with hundreds of instances.",
        chosen,
        rows,
        where=_JOB,
    )


def _health() -> list[Panel]:
    failed = f"sum({_ATTEMPTS}{{{_PAIR}, {FAILED}}})"
    return [
        stat(
            "Dropped",
            About(
                "Messages a second that one consumer will never see, over 5 minutes.",
                "Anything but 0.",
                "Runbook GomqMessagesDropped.",
            ),
            f"sum(gomq:messages_dropped:rate5m{{{_PAIR}}})",
            unit="mps",
            limit=1e-9,
        ),
        stat(
            "Refused",
            About(
                "Messages a second that a broker did not take, over 5 minutes.",
                "Anything but 0.",
                "Runbook GomqMessagesRefused.",
            ),
            f"sum(gomq:messages_refused:rate5m{{{_EVENT}}})",
            unit="mps",
            limit=1e-9,
        ),
        stat(
            "Fullest",
            About(
                "How full the fullest queue or channel of any instance is.",
                "Near 100 %.",
                "See which one below, then choose instances on the Overview.",
            ),
            f"max(gomq:channel_fill:max{{{_CONSUMER}}} "
            f"or gomq:queue_fill:max{{{_EVENT}}})",
            unit=units.PercentUnit,
            limit=at.FILL,
        ),
        stat(
            "Oldest",
            About(
                "How long the oldest message that is due has waited, in any instance.",
                "More than users would wait for what the handler does.",
                "See which consumer in the table.",
            ),
            f"max(gomq:channel_oldest_age_seconds:max{{{_CONSUMER}}}"
            f" or gomq:queue_oldest_age_seconds:max{{{_EVENT}}})",
            unit=units.Seconds,
            limit=at.OLDEST_AGE,
        ),
        stat(
            "In work",
            About(
                "For how long the attempt that is in work longest has been running, in "
                "any instance.",
                "A number that climbs: a handler hangs.",
                "See which consumer in the table; runbook GomqHandlerStuck.",
            ),
            f"max(gomq:handler_running_seconds:max{{{_CONSUMER}}})",
            unit=units.Seconds,
            limit=at.RUNNING,
        ),
        stat(
            "Failed",
            About(
                "Which part of the attempts of 5 minutes did not succeed.",
                "A part that stays.",
                "See which consumer in the table.",
            ),
            f"{failed} / (sum({_ATTEMPTS}{{{_PAIR}}}) > 0)",
            unit=units.PercentUnit,
            limit=at.ERROR_RATIO,
        ),
        stat(
            "Processes",
            About(
                "Processes whose numbers are here.",
                "Fewer than were deployed.",
                "Look at the targets in Prometheus.",
            ),
            f"sum(gomq:processes:sum{{{_JOB}}})",
            width=QUARTER,
        ),
    ]


def _consumers() -> Panel:
    key = "broker, consumer"
    failed = f"sum by ({key}) ({_ATTEMPTS}{{{_PAIR}, {FAILED}}})"
    attempts = f"sum by ({key}) ({_ATTEMPTS}{{{_PAIR}}})"
    dropped = f"sum by ({key}) (gomq:messages_dropped:rate5m{{{_PAIR}}})"
    dead = f"sum by ({key}) (gomq:messages_dead_lettered:rate5m{{{_CONSUMER}}})"
    queries = [
        Query(attempts, "Attempts"),
        Query(f"{failed} / ({attempts} > 0)", "Failed"),
        Query(_quantile(0.95, "message_wait_seconds", key), "Wait p95"),
        Query(_quantile(0.95, "handler_duration_seconds", key), "Handler p95"),
        Query(
            f"max by ({key}) (gomq:handler_running_seconds:max{{{_CONSUMER}}})",
            "In work",
        ),
        Query(f"sum by ({key}) (gomq:channel_held:sum{{{_CONSUMER}}})", "Held"),
        Query(f"max by ({key}) (gomq:channel_fill:max{{{_CONSUMER}}})", "Full"),
        Query(dropped, "Dropped"),
        Query(dead, "Dead letters"),
    ]
    columns = {
        "Broker": Column(),
        "Consumer": Column(link=links.to_consumer("datasource", "job"), width=NAME),
        "Attempts": Column("ops"),
        "Failed": Column(units.PercentUnit, at.ERROR_RATIO),
        "Wait p95": Column(units.Seconds, at.WAIT_P95),
        "Handler p95": Column(units.Seconds),
        "In work": Column(units.Seconds, at.RUNNING),
        "Held": Column(),
        "Full": Column(units.PercentUnit, at.FILL),
        "Dropped": Column("mps", 1e-9),
        "Dead letters": Column("mps", 1e-9),
    }
    about = About(
        "Every consumer over all instances, with rates of 5 minutes. Held is what "
        "waits, is scheduled or in flight; Full is the fullest instance.",
        "Red cells.",
        "A click on a name opens the consumer's board; narrow it to an instance there.",
    )
    return listing("Consumers", about, queries, columns)


def _lines() -> list[Panel]:
    return [
        graph(
            "Published",
            About(
                "Messages that brokers took, a second, by event type.",
                "A type that stops or jumps.",
                "Look for what emits it.",
            ),
            Query(
                f"sum by (event) (gomq:messages_published:rate5m{{{_EVENT}}})",
                "{{event}}",
            ),
            unit="mps",
            stacked=True,
        ),
        graph(
            "Attempts",
            About(
                "Attempts a second by what came of them.",
                "A part that is not success and stays.",
                "See which consumer in the table.",
            ),
            Query(f"sum by (outcome) ({_ATTEMPTS}{{{_PAIR}}})", "{{outcome}}"),
            unit="ops",
            stacked=True,
            colours=OUTCOMES,
        ),
        graph(
            "Waiting for the dispatcher",
            About(
                "Messages in queues, by event type, over all instances.",
                "Not near zero for long.",
                "Choose the instances on the board Telemetry.",
            ),
            Query(f"sum by (event) (gomq:queue_depth:sum{{{_EVENT}}})", "{{event}}"),
            unit="short",
        ),
        graph(
            "Held by consumers",
            About(
                "What waits, is scheduled or in flight, against the room of all "
                "instances (dashed).",
                "Near the capacity.",
                "More concurrency, or more instances.",
            ),
            Query(
                f"sum by (consumer) (gomq:channel_held:sum{{{_CONSUMER}}})",
                "{{consumer}}",
            ),
            Query(
                f"sum by (consumer) (gomq:channel_capacity:sum{{{_CONSUMER}}})",
                "{{consumer}} capacity",
                dashed=True,
            ),
            unit="short",
        ),
    ]


def _quantile(q: float, name: str, by: str) -> str:
    buckets = f"sum by ({by}, le) (gomq:{name}:rate5m{{{_CONSUMER}}})"
    return f"histogram_quantile({q:g}, {buckets})"
