"""Series without `instance`, computed beforehand: what large fleets look at."""

from __future__ import annotations

from typing import Final

from dashboards.promql import JOB, channel_fill, channel_held, gap, queue_fill, rate
from dashboards.rules import Group, Recording

_QUEUE: Final = "job, broker, event"
_CHANNEL: Final = "job, broker, consumer"
_PAIR: Final = "job, broker, event, consumer"


def _rate(name: str, metric: str, by: str) -> Recording:
    return Recording(
        name=f"gomq:{name}:rate5m", expr=rate(metric, JOB, by, window="5m")
    )


def _of(name: str, how: str, by: str, expr: str) -> Recording:
    return Recording(name=f"gomq:{name}:{how}", expr=f"{how} by ({by}) ({expr})")


GROUP: Final = Group(
    "gomq-recordings",
    (
        _rate("messages_published", "gomq_messages_published_total", _QUEUE),
        _rate("messages_refused", "gomq_messages_refused_total", f"{_QUEUE}, reason"),
        _rate(
            "messages_processed", "gomq_messages_processed_total", f"{_PAIR}, outcome"
        ),
        _rate("messages_dropped", "gomq_messages_dropped_total", f"{_PAIR}, reason"),
        _rate("messages_dead_lettered", "gomq_messages_dead_lettered_total", _CHANNEL),
        _rate(
            "message_wait_seconds",
            "gomq_message_wait_seconds_bucket",
            f"{_CHANNEL}, le",
        ),
        _rate(
            "handler_duration_seconds",
            "gomq_handler_duration_seconds_bucket",
            f"{_CHANNEL}, le",
        ),
        _of("queue_depth", "sum", _QUEUE, f"gomq_queue_depth{{{JOB}}}"),
        _of("queue_fill", "max", _QUEUE, queue_fill(JOB)),
        _of("channel_held", "sum", _CHANNEL, channel_held(JOB)),
        _of("channel_capacity", "sum", _CHANNEL, f"gomq_channel_capacity{{{JOB}}}"),
        _of("channel_fill", "max", _CHANNEL, channel_fill(JOB)),
        _of(
            "channel_oldest_age_seconds",
            "max",
            _CHANNEL,
            f"gomq_channel_oldest_age_seconds{{{JOB}}}",
        ),
        _of(
            "handler_running_seconds",
            "max",
            _CHANNEL,
            f"gomq_handler_running_seconds{{{JOB}}}",
        ),
        _of(
            "queue_oldest_age_seconds",
            "max",
            _QUEUE,
            f"gomq_queue_oldest_age_seconds{{{JOB}}}",
        ),
        Recording(name="gomq:conservation_gap:sum", expr=gap(JOB, JOB, _CHANNEL)),
        _of("processes", "sum", "job", f"gomq_processes{{{JOB}}}"),
    ),
)
