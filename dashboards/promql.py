"""Pieces that expressions of rules and boards are made of."""

from __future__ import annotations

import textwrap
from typing import Final

JOB: Final = 'job=~".+"'
"""In rules: `manage.py gomq dashboards --job` puts another expression here."""

PROCESS: Final = 'job=~"$job", instance=~"$instance"'
"""On boards: what is about a process, a broker, an event, a consumer, or a pair."""
BROKER: Final = f'{PROCESS}, broker=~"$broker"'
EVENT: Final = f'{BROKER}, event=~"$event"'
CONSUMER: Final = f'{BROKER}, consumer=~"$consumer"'
PAIR: Final = f'{EVENT}, consumer=~"$consumer"'

FAILED: Final = 'outcome!="success"'
OUTCOMES: Final = {
    "success": "green",
    "error": "red",
    "timeout": "orange",
    "rejected": "purple",
}
"""Of attempts, with their colours."""
WAIT: Final = "gomq_message_wait_seconds"
HANDLER_TIME: Final = "gomq_handler_duration_seconds"
"""The one whose buckets have exemplars."""

_HELD_BY_A_CHANNEL: Final = (
    "gomq_channel_depth",
    "gomq_messages_scheduled",
    "gomq_messages_in_flight",
)
_HELD_BEHIND_IT: Final = ("gomq_messages_spilled",)
_ENDED: Final = ("gomq_messages_dropped_total", "gomq_messages_dead_lettered_total")


def rate(metric: str, where: str, by: str, *, window: str = "$__rate_interval") -> str:
    """Return how many a second, summed; by "" to one number."""
    total = f"sum by ({by}) " if by else "sum"
    return f"{total}(rate({metric}{{{where}}}[{window}]))"


def quantile(q: float, metric: str, where: str, by: str = "") -> str:
    """Return a quantile of a histogram, in seconds."""
    labels = f"{by}, le" if by else "le"
    buckets = rate(f"{metric}_bucket", where, labels)
    return f"histogram_quantile({q:g}, {buckets})"


def channel_held(where: str) -> str:
    """Return how many permits of each channel are taken, by instance."""
    return " + ".join(f"{metric}{{{where}}}" for metric in _HELD_BY_A_CHANNEL)


def channel_fill(where: str) -> str:
    """Return how full each channel is, by instance: that of its fullest process."""
    return f"gomq_channel_fill_ratio{{{where}}}"


def queue_fill(where: str) -> str:
    """Return how full each queue is, by instance; what is delayed has its place."""
    held = f"gomq_queue_depth{{{where}}} + gomq_messages_delayed{{{where}}}"
    return f"({held}) / (gomq_queue_capacity{{{where}}} > 0)"


def gap(queues: str, consumers: str, by: str) -> str:
    """Return how far the law of conservation is from holding.

    What was dispatched to a consumer is what left the queues of its types in the same
    process; which types those are, its own series tell. They outlive it in a shared
    directory: a consumer counts while a process has a channel for it. Brokers with a
    server are left out: who publishes there is not who is given it.
    """
    queue = "job, instance, broker, event"
    published, depth, delayed = (
        f"sum by ({queue}) ({metric}{{{queues}}})"
        for metric in (
            "gomq_messages_published_total",
            "gomq_queue_depth",
            "gomq_messages_delayed",
        )
    )
    lives = (
        f"and on (job, instance, broker, consumer) gomq_channel_depth{{{consumers}}}"
        f" unless on (job, broker) gomq_backend_up{{{queues}}}"
    )
    success = f'gomq_messages_processed_total{{{consumers}, outcome="success"}}'
    other = "|".join((*_HELD_BY_A_CHANNEL, *_HELD_BEHIND_IT, *_ENDED))
    return f"""\
sum by ({by}) (
  (
    {published}
    - {depth}
    - {delayed}
  )
  * on ({queue}) group_right ()
  (0 * sum by ({queue}, consumer) ({success}) + 1 {lives})
)
- sum by ({by}) (
  ({success}
  or {{__name__=~"{other}", {consumers}}})
  {lives}
)"""


def grown(metric: str, where: str, window: object) -> str:
    """Return by how much each counter grew, and those that were not born at 0.

    A counter that Prometheus sees for the first time when it already stands at 3 has
    no increase. That is news if the process is younger than the window, and an old
    story if Prometheus is.
    """
    series = f"{metric}{{{where}}}"
    young = f"time() - gomq_start_time_seconds{{{JOB}}} < {window}"
    return textwrap.dedent(f"""\
        (
          increase({series}[{window}s]) > 0
          or (
            {series} > 0
            unless {series} offset {window}s
            and on (job, instance) {young}
          )
        )""")


def with_severity(by: str, expr: str) -> str:
    """Return the sum, with the severity that the consumer itself is registered with.

    Every instance has such an info, and while a deployment rolls on they may disagree:
    one of them is taken.
    """
    key = "job, broker, consumer"
    inner = textwrap.indent(expr, "  ")
    return (
        f"sum by ({by}) (\n{inner}\n)\n"
        f"* on ({key}) group_left (severity)\n"
        f"topk by ({key}) (1, gomq_consumer_info{{{JOB}}})"
    )
