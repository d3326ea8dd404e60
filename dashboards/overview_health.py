"""The numbers at the top of the overview."""

from __future__ import annotations

from grafana_foundation_sdk.models import units

from dashboards import thresholds as at
from dashboards.panels import About, Panel, stat
from dashboards.promql import (
    CONSUMER,
    EVENT,
    FAILED,
    PAIR,
    PROCESS,
    channel_fill,
    queue_fill,
    rate,
)

_ATTEMPTS = "gomq_messages_processed_total"
_DROPPED = "gomq_messages_dropped_total"
_REFUSED = "gomq_messages_refused_total"


def health() -> list[Panel]:
    """Return one number for each question."""
    failed = rate(_ATTEMPTS, f"{PAIR}, {FAILED}", "")
    return [
        stat(
            "Dropped",
            About(
                "Messages that were taken and that one consumer will never see, in the "
                "time range.",
                "Anything but 0.",
                "See which consumer and why under Flow, then its runbook, "
                "GomqMessagesDropped.",
            ),
            f"sum(increase({_DROPPED}{{{PAIR}}}[$__range]))",
            limit=0.5,
        ),
        stat(
            "Refused",
            About(
                "Messages that a broker did not take, in the time range; whoever "
                "emitted them was told.",
                "Anything but 0: no consumer sees these events.",
                "See event and reason under Flow, then the runbook "
                "GomqMessagesRefused.",
            ),
            f"sum(increase({_REFUSED}{{{EVENT}}}[$__range]))",
            limit=0.5,
        ),
        stat(
            "Stand still",
            About(
                "Consumers, by instance, that have messages waiting and ended no "
                "attempt lately, or of which one attempt runs for too long. Paused "
                "ones do not count.",
                "A number that stays for minutes. A handler that takes long shows here "
                "for a while.",
                "Sort the table by In work; runbooks GomqHandlerStuck and "
                "GomqConsumerStalled.",
            ),
            _stalled(),
            limit=1,
        ),
        stat(
            "Fullest",
            About(
                "How full the fullest queue or channel of any process is.",
                "Near 100 %: then queues refuse and channels do what their overflow "
                "says.",
                "See which one under Waiting. More concurrency or threads, a faster "
                "handler, or more capacity if it is a short peak.",
            ),
            f"max(({channel_fill(CONSUMER)}) or ({queue_fill(EVENT)}))",
            unit=units.PercentUnit,
            limit=at.FILL,
        ),
        stat(
            "Oldest",
            About(
                "How long the oldest message that is due has waited, for its handler "
                "or for the dispatcher.",
                "More than users would wait for what the handler does.",
                "See under Waiting whose it is.",
            ),
            f"max(gomq_channel_oldest_age_seconds{{{CONSUMER}}}"
            f" or gomq_queue_oldest_age_seconds{{{EVENT}}})",
            unit=units.Seconds,
            limit=at.OLDEST_AGE,
        ),
        stat(
            "Failed",
            About(
                "Which part of the attempts failed: errors, timeouts, rejects.",
                "A part that stays. Retries hide it until they run out.",
                "The consumer's board shows the exceptions by type, the log the lines.",
            ),
            f"{failed} / ({rate(_ATTEMPTS, PAIR, '')} > 0)",
            unit=units.PercentUnit,
            limit=at.ERROR_RATIO,
        ),
        stat(
            "Busy",
            About(
                "Which part of the handler threads is at work now, in the process "
                "where it is most.",
                "All of them for long while messages wait: consumers share them.",
                "Raise THREADS, or find the slow consumer in the table.",
            ),
            f"max(gomq_threads_busy_ratio{{{PROCESS}}})",
            unit=units.PercentUnit,
            limit=at.THREADS_BUSY,
        ),
        stat(
            "Processes",
            About(
                "Processes whose numbers are here.",
                "Fewer than were deployed: the others are not scraped, or are gone.",
                "Look at the targets in Prometheus, then at the board Telemetry.",
            ),
            f"sum(gomq_processes{{{PROCESS}}})",
        ),
    ]


def _stalled() -> str:
    key = "job, instance, broker, consumer"
    attempts = rate(_ATTEMPTS, CONSUMER, key)
    running = f"max by ({key}) (gomq_handler_running_seconds{{{CONSUMER}}})"
    return (
        f"count((sum by ({key}) (gomq_channel_depth{{{CONSUMER}}}) > 0"
        f" unless on ({key}) gomq_consumer_paused{{{CONSUMER}}} == 1"
        f" and on ({key}) {attempts} == 0)"
        f" or {running} > {at.RUNNING}) or vector(0)"
    )
