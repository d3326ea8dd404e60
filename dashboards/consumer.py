"""The board of one consumer, or of a few: where its messages and its time go."""

from __future__ import annotations

from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import board, links, variables
from dashboards import thresholds as at
from dashboards.board import Row
from dashboards.consumer_outcomes import outcomes
from dashboards.panels import (
    THIRD,
    About,
    Panel,
    Query,
    Word,
    graph,
    heat,
    signed,
    states,
)
from dashboards.promql import (
    BROKER,
    CONSUMER,
    HANDLER_TIME,
    PROCESS,
    WAIT,
    gap,
    quantile,
    rate,
)


def make() -> Dashboard:
    """Return the board."""
    chosen = [
        variables.datasource(),
        variables.job(),
        variables.instance(),
        variables.broker(),
        variables.event(),
        variables.consumer(),
    ]
    rows = [
        Row("What becomes of messages", outcomes()),
        Row("Time", _time()),
        Row("Room and work", [*_room(), *_work()]),
    ]
    return board.make(
        links.CONSUMER,
        "django-gomq / Consumer",
        "Where the messages and the time of a consumer go.",
        chosen,
        rows,
        where=PROCESS,
    )


def _time() -> list[Panel]:
    return [
        heat(
            "Wait",
            About(
                "From when a message was due until its handler began: how many, by "
                "bucket. It includes the rest of the transaction that the emit was in.",
                "A band that climbs: more comes than is handled. Two bands: some "
                "messages wait, others do not.",
                "Choose an instance above to see whether all processes are alike; then "
                "look at Room.",
            ),
            _by_bucket(WAIT),
        ),
        heat(
            "Handler time",
            About(
                "How long the handler ran: how many attempts, by bucket.",
                "A second band far above the first: a lock, a timeout, or a service "
                "that is slow at times.",
                "Follow an exemplar into its trace; compare with the exceptions.",
            ),
            _by_bucket(HANDLER_TIME),
        ),
        graph(
            "Wait, p99, p95 and p50",
            About(
                "Estimates from the buckets, by consumer.",
                "p95 above the line: one message in twenty waits that long.",
                "See whether attempts went down or published went up.",
            ),
            *_by_consumer(WAIT),
            unit=units.Seconds,
            limit=at.WAIT_P95,
        ),
        graph(
            "Handler time, p99, p95 and p50",
            About(
                "Estimates from the buckets, by consumer. An attempt counts when it "
                "ends; those in work are in Longest attempt in work.",
                "A rise without more traffic.",
                "What the handler calls got slow: its trace says what.",
            ),
            *_by_consumer(HANDLER_TIME),
            unit=units.Seconds,
        ),
    ]


def _room() -> list[Panel]:
    held = {
        "waiting": "gomq_channel_depth",
        "waiting for another attempt": "gomq_messages_scheduled",
        "in a handler": "gomq_messages_in_flight",
    }
    queries = [
        Query(f"sum by (consumer) ({metric}{{{CONSUMER}}})", f"{{{{consumer}}}} {name}")
        for name, metric in held.items()
    ]
    room = f"sum by (consumer) (gomq_channel_capacity{{{CONSUMER}}})"
    return [
        graph(
            "Room",
            About(
                "What holds a place in the channel, against how many it has (dashed), "
                "over all processes.",
                "The sum near the capacity: overflow decides about what comes next.",
                "Waiting: more concurrency. Retries: see the exceptions. In a handler: "
                "it is slow or hangs.",
            ),
            *queries,
            Query(room, "{{consumer}} capacity", dashed=True),
            unit="short",
        ),
        graph(
            "Spilled",
            About(
                "Messages that a full channel wrote into the database, and that are to "
                "come back; only of consumers with overflow=spill.",
                "A number that grows for longer than a burst: they do not keep up.",
                "More concurrency, or a faster handler; nothing of it is lost.",
            ),
            Query(
                f"sum by (consumer) (gomq_messages_spilled{{{CONSUMER}}})",
                "{{consumer}}",
            ),
            unit="short",
        ),
        graph(
            "Oldest message",
            About(
                "How long the oldest message that is due has waited, in the process "
                "where it is longest.",
                "A line that climbs one second a second: nothing is handled there.",
                "Runbooks GomqOldestMessageTooOld and GomqConsumerStalled.",
            ),
            Query(
                f"max by (consumer) (gomq_channel_oldest_age_seconds{{{CONSUMER}}})",
                "{{consumer}}",
            ),
            unit=units.Seconds,
            limit=at.OLDEST_AGE,
        ),
    ]


def _work() -> list[Panel]:
    by_instance = rate("gomq_messages_processed_total", CONSUMER, "instance")
    success = f"gomq_last_success_timestamp_seconds{{{CONSUMER}}}"
    paused = f"max by (consumer) (gomq_consumer_paused{{{CONSUMER}}})"
    running = f"max by (consumer) (gomq_handler_running_seconds{{{CONSUMER}}})"
    in_work = f"sum by (consumer) (gomq_messages_in_flight{{{CONSUMER}}})"
    return [
        graph(
            "Longest attempt in work",
            About(
                "For how long the attempt that is in work longest has been running, "
                "in the process where it is longest.",
                "A line that climbs one second a second: that handler hangs.",
                "Runbook GomqHandlerStuck.",
            ),
            Query(running, "{{consumer}}"),
            unit=units.Seconds,
            limit=at.RUNNING,
        ),
        graph(
            "Utilisation",
            About(
                "How many handlers are at work on average: seconds in the handler a "
                "second, over all processes; an attempt counts when it ends. Beside "
                "it the messages in a handler now. Processes times concurrency is the "
                "most there can be; a batch counts once on average, and each message "
                "of it now.",
                "A flat top: concurrency or THREADS is the limit. Messages in work "
                "above an average of 0: their handlers hang.",
                "Raise concurrency; where all threads are at work, THREADS. Where they "
                "hang, runbook GomqHandlerStuck.",
            ),
            Query(rate(f"{HANDLER_TIME}_sum", CONSUMER, "consumer"), "{{consumer}}"),
            Query(in_work, "{{consumer}} in work now"),
            unit="short",
        ),
        graph(
            "Attempts by process",
            About(
                "Attempts a second by scraped address.",
                "One that does far less than the others, or nothing.",
                "Choose that instance above and look at its waiting messages.",
            ),
            Query(by_instance, "{{instance}}"),
            unit="ops",
        ),
        signed(
            "Conservation gap",
            About(
                "Dispatched minus everything that became of it: success, drops, dead "
                "letters, and what is still held. While messages move it swings by "
                "what is between two counts.",
                "A gap that stays when the bus is quiet. With "
                "PROMETHEUS_MULTIPROC_DIR it is what killed processes took along.",
                "Look for a process that was killed (SIGKILL, out of memory).",
            ),
            Query(gap(BROKER, CONSUMER, "consumer"), "{{consumer}}"),
            unit="short",
            width=THIRD,
        ),
        states(
            "Paused",
            About(
                "Whether a consumer is paused in any process.",
                "A pause that somebody forgot: its channel fills and then drops.",
                "broker.resume(name) in that process, or a restart.",
            ),
            Query(paused, "{{consumer}}"),
            {0: Word("runs", "green"), 1: Word("paused", "orange")},
            width=THIRD,
        ),
        graph(
            "Since the last success",
            About(
                "How long ago the handler last succeeded, in any process.",
                "A line that climbs while there are attempts: everything fails.",
                "Runbook GomqConsumerFailing.",
            ),
            Query(f"time() - max by (consumer) ({success})", "{{consumer}}"),
            unit=units.Seconds,
            width=THIRD,
        ),
    ]


def _by_bucket(metric: str) -> Query:
    buckets = f"{metric}_bucket{{{CONSUMER}}}"
    expr = f"sum by (le) (increase({buckets}[$__rate_interval]))"
    return Query(expr, "{{le}}", exemplar=metric == HANDLER_TIME)


def _by_consumer(metric: str) -> list[Query]:
    return [
        Query(
            quantile(q, metric, CONSUMER, "consumer"),
            f"{{{{consumer}}}} p{100 * q:g}",
            exemplar=metric == HANDLER_TIME,
        )
        for q in (0.99, 0.95, 0.5)
    ]
