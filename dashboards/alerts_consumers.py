"""Alerts about consumers that fail, stand still or fall behind."""

from __future__ import annotations

from typing import Final

from dashboards import thresholds as at
from dashboards.links import CONSUMER, OVERVIEW, of_alert
from dashboards.promql import (
    FAILED,
    JOB,
    WAIT,
    channel_fill,
    quantile,
    queue_fill,
    rate,
)
from dashboards.rules import Alert, Group

_KEY: Final = "job, broker, consumer"
_IN_A_PROCESS: Final = "job, instance, broker, consumer"
_PAUSED: Final = f"unless on ({_IN_A_PROCESS}) gomq_consumer_paused{{{JOB}}} == 1"
_BOARD: Final = of_alert(CONSUMER, "job", "broker", "consumer")
_SPILLED: Final = f"sum by ({_KEY}) (gomq_messages_spilled{{{JOB}}})"
_ATTEMPTS: Final = "gomq_messages_processed_total"

STALLED: Final = Alert(
    name="GomqConsumerStalled",
    # In each instance by itself: one that hangs among many must not hide behind them.
    # Behind a shared page it does; GomqHandlerStuck and GomqOldestMessageTooOld see it.
    expr=f"""\
sum by ({_KEY}) (
  sum by ({_IN_A_PROCESS}) (gomq_channel_depth{{{JOB}}}) > 0
  {_PAUSED}
  and on ({_IN_A_PROCESS})
  sum by ({_IN_A_PROCESS}) (
    increase({_ATTEMPTS}{{{JOB}}}[{at.STALLED_WINDOW}s])
  ) == 0
)""",
    patience=at.STALLED_FOR,
    severity="critical",
    summary="{{ $labels.consumer }} stands still",
    description=(
        "{{ $value | humanize }} messages wait for {{ $labels.consumer }} in instances "
        "that have not ended a single attempt for minutes, nor is it paused there. Its "
        "handlers hang, or those of another consumer that GomqHandlerStuck names leave "
        "no thread for it."
    ),
    board=_BOARD,
)
STUCK: Final = Alert(
    name="GomqHandlerStuck",
    # Without patience: no age is reached by chance.
    expr=f"""\
max by ({_KEY}) (
  gomq_handler_running_seconds{{{JOB}}}
) > {at.RUNNING}""",
    severity="critical",
    summary="A handler of {{ $labels.consumer }} does not come to its end",
    description=(
        "One attempt of {{ $labels.consumer }} has been running for "
        "{{ $value | humanizeDuration }} in one process at least, and keeps its "
        "handler thread, or its place on the event loop, for as long. Whatever waits "
        "behind it, this is the one to look at."
    ),
    board=_BOARD,
)
FAILING: Final = Alert(
    name="GomqConsumerFailing",
    # Successes by what Prometheus saw of them, as it did the failures: when the last
    # one was goes with its process at a deployment.
    expr=f"""\
sum by ({_KEY}) (
  increase({_ATTEMPTS}{{{JOB}, {FAILED}}}[{at.FAILING_AFTER}s])
) > {at.FAILING_ATTEMPTS}
unless on ({_KEY})
sum by ({_KEY}) (
  increase({_ATTEMPTS}{{{JOB}, outcome="success"}}[{at.FAILING_AFTER}s])
) > 0
unless on ({_KEY})
time() - max by ({_KEY}) (
  gomq_last_success_timestamp_seconds{{{JOB}}}
) < {at.FAILING_AFTER}""",
    patience=at.FAILING_FOR,
    severity="critical",
    summary="{{ $labels.consumer }} has no success at all",
    description=(
        "{{ $value | humanize }} attempts of {{ $labels.consumer }} failed, and none "
        "succeeded in the same time: whatever it needs is broken or away."
    ),
    board=_BOARD,
)
ERRORS: Final = Alert(
    name="GomqHandlerErrorRateHigh",
    expr=f"""\
{rate(_ATTEMPTS, f"{JOB}, {FAILED}", _KEY, window="10m")}
/ {rate(_ATTEMPTS, JOB, _KEY, window="10m")} > {at.ERROR_RATIO}
and
{rate(_ATTEMPTS, f"{JOB}, {FAILED}", _KEY, window="10m")} > {at.ERROR_RATE}""",
    patience=600,
    severity="warning",
    summary="{{ $labels.consumer }} fails often",
    description=(
        "{{ $value | humanizePercentage }} of the attempts of {{ $labels.consumer }} "
        "failed for ten minutes (errors, timeouts and rejects). Retries hide this from "
        "users until they run out."
    ),
    board=_BOARD,
)
OLDEST: Final = Alert(
    name="GomqOldestMessageTooOld",
    expr=f"""\
max by ({_KEY}) (
  gomq_channel_oldest_age_seconds{{{JOB}}}
  {_PAUSED}
) > {at.OLDEST_AGE}""",
    patience=at.OLDEST_FOR,
    severity="warning",
    summary="A message waits too long for {{ $labels.consumer }}",
    description=(
        "The oldest message that is due has waited {{ $value | humanizeDuration }} for "
        "{{ $labels.consumer }}. What waits for a retry or a delay is not counted."
    ),
    board=_BOARD,
)
SLOW: Final = Alert(
    name="GomqWaitTimeHigh",
    expr=f"""\
{quantile(0.95, WAIT, JOB, _KEY).replace("$__rate_interval", "10m")} > {at.WAIT_P95}
and
{rate(f"{WAIT}_count", JOB, _KEY, window="10m")} > {at.TRAFFIC}""",
    patience=600,
    severity="warning",
    summary="Messages wait long for {{ $labels.consumer }}",
    description=(
        "One message in twenty waits longer than {{ $value | humanizeDuration }} for "
        "{{ $labels.consumer }}: more comes than it handles."
    ),
    board=_BOARD,
)
CHANNEL_FULL: Final = Alert(
    name="GomqChannelSaturated",
    expr=f"max by ({_KEY}) ({channel_fill(JOB)}) > {at.FILL}",
    patience=at.FILL_FOR,
    severity="warning",
    summary="The channel of {{ $labels.consumer }} is almost full",
    description=(
        "In one process at least, {{ $value | humanizePercentage }} of the places for "
        "{{ $labels.consumer }} are taken (waiting, scheduled and in flight). When the "
        "last one goes, its overflow decides: a drop, or a type that is held back."
    ),
    board=_BOARD,
)
FILLING_UP: Final = Alert(
    name="GomqChannelFillingUp",
    expr=f"""\
predict_linear(gomq:channel_held:sum{{{JOB}}}[15m], {at.FILLING_AHEAD})
> gomq:channel_capacity:sum{{{JOB}}}
and
gomq:channel_held:sum{{{JOB}}}
/ gomq:channel_capacity:sum{{{JOB}}} > {at.FILLING_FROM}""",
    patience=600,
    severity="warning",
    summary="The channel of {{ $labels.consumer }} will soon be full",
    description=(
        "If it goes on as in the last 15 minutes, {{ $labels.consumer }} will have no "
        "room left soon."
    ),
    board=_BOARD,
)
QUEUE_FULL: Final = Alert(
    name="GomqQueueSaturated",
    expr=f"max by (job, broker, event) ({queue_fill(JOB)}) > {at.FILL}",
    patience=at.FILL_FOR,
    severity="critical",
    summary="The queue of {{ $labels.event }} is almost full",
    description=(
        "In one process at least, {{ $value | humanizePercentage }} of the queue of "
        "{{ $labels.event }} is taken, by messages that wait for the dispatcher, for a "
        "consumer with overflow=backpressure, or for the end of a delay. When it is "
        "full, every emit is refused."
    ),
    board=of_alert(OVERVIEW, "job", "broker", "event"),
)
QUEUE_STALLED: Final = Alert(
    name="GomqQueueStalled",
    expr=f"""\
max by (job, broker, event) (
  gomq_queue_oldest_age_seconds{{{JOB}}}
) > {at.QUEUE_AGE}""",
    patience=at.QUEUE_AGE_FOR,
    severity="critical",
    summary="The queue of {{ $labels.event }} stands still",
    description=(
        "The oldest message of {{ $labels.event }} has waited "
        "{{ $value | humanizeDuration }} for the dispatcher, in one process at least: "
        "the dispatcher is dead or blocked, or a consumer with overflow=backpressure "
        "holds the type back. No consumer sees what waits there."
    ),
    board=of_alert(OVERVIEW, "job", "broker", "event"),
)
SPILLED: Final = Alert(
    name="GomqSpilledBacklog",
    # An import that is worked off in an hour is what spilling is for. The window is
    # shorter than the patience: the growth at its begin is over by then.
    expr=f"""\
{_SPILLED} > 0
unless on ({_KEY})
predict_linear(({_SPILLED})[10m:1m], {at.SPILLED_AHEAD}) <= 0
unless on ({_KEY})
gomq_consumer_paused{{{JOB}}} == 1""",
    patience=at.SPILLED_FOR,
    severity="warning",
    summary="What {{ $labels.consumer }} spilled does not come back",
    description=(
        "{{ $value | humanize }} messages of {{ $labels.consumer }} wait in the table "
        "gomq_spilled, some have for minutes without an end, and at their pace they "
        "will for long: more comes than is handled. None is lost; the table grows."
    ),
    board=_BOARD,
)
PAUSED: Final = Alert(
    name="GomqConsumerPaused",
    expr=f"max by ({_KEY}) (gomq_consumer_paused{{{JOB}}}) == 1",
    patience=at.PAUSED_FOR,
    severity="warning",
    summary="{{ $labels.consumer }} has been paused for long",
    description=(
        "Somebody paused {{ $labels.consumer }} in one process at least, and its "
        "channel fills. While it is paused, it raises no other alert about standing "
        "still."
    ),
    board=_BOARD,
)

GROUP: Final = Group(
    "gomq-consumers",
    (
        STALLED,
        STUCK,
        FAILING,
        ERRORS,
        OLDEST,
        SLOW,
        CHANNEL_FULL,
        FILLING_UP,
        QUEUE_FULL,
        QUEUE_STALLED,
        SPILLED,
        PAUSED,
    ),
)
