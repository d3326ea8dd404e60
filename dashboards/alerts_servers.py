"""Alerts about brokers that have a server: what waits there, and who works on it."""

from __future__ import annotations

from typing import Final

from dashboards import thresholds as at
from dashboards.links import SERVERS, of_alert
from dashboards.promql import JOB, grown, with_severity
from dashboards.rules import Alert, Group

_BROKER: Final = "job, broker"
_KEY: Final = "job, broker, consumer"
_BOARD: Final = of_alert(SERVERS, "job", "broker")
_CONSUMER_BOARD: Final = of_alert(SERVERS, "job", "broker", "consumer")

BACKLOG: Final = Alert(
    name="GomqBacklogTooOld",
    expr=with_severity(
        _KEY,
        f"""\
max by ({_KEY}) (gomq_server_oldest_age_seconds{{{JOB}}}) > {at.BACKLOG_AGE}
unless on ({_KEY}) gomq_consumer_paused{{{JOB}}} == 1""",
    ),
    patience=at.BACKLOG_FOR,
    severity="{{ $labels.severity }}",
    summary="What waits at the server for {{ $labels.consumer }} is old",
    description=(
        "The oldest message that is due has waited {{ $value | humanizeDuration }} at "
        "the server of {{ $labels.broker }} for {{ $labels.consumer }}: its workers "
        "do not keep up, or stand still."
    ),
    board=_CONSUMER_BOARD,
)
WORKERLESS: Final = Alert(
    name="GomqConsumerWithoutWorker",
    expr=f"""\
max by ({_KEY}) (
  gomq_server_depth{{{JOB}}} + gomq_server_scheduled{{{JOB}}}
) > 0
and on ({_KEY})
max by ({_KEY}) (gomq_server_workers{{{JOB}}}) == 0""",
    patience=at.WORKERLESS_FOR,
    severity="critical",
    summary="No process runs {{ $labels.consumer }}, and messages wait for it",
    description=(
        "{{ $value | humanize }} messages wait at the server of {{ $labels.broker }} "
        "for {{ $labels.consumer }}, which is recorded there, and no living process "
        "runs it: its worker is not started, or the code has lost it."
    ),
    board=_CONSUMER_BOARD,
)
NO_WORKERS: Final = Alert(
    name="GomqNoWorkers",
    # Without a worker nobody asks the server anything: all that is seen is emits.
    expr=f"""\
sum by ({_BROKER}) (increase(gomq_messages_published_total{{{JOB}}}[15m])) > 0
and on ({_BROKER})
max by ({_BROKER}) (gomq_backend_up{{{JOB}}}) >= 0
unless on ({_BROKER})
max by ({_BROKER}) (gomq_server_processes{{{JOB}}}) > 0""",
    patience=at.WORKERLESS_FOR,
    severity="critical",
    summary="Events go to {{ $labels.broker }}, and no worker is seen",
    description=(
        "{{ $value | humanize }} messages went to the server of {{ $labels.broker }} "
        "within 15 minutes, and no process that fetches from it is scraped. They are "
        "safe there, and nobody handles them; or Prometheus does not reach the workers."
    ),
    board=_BOARD,
)
DIED: Final = Alert(
    name="GomqWorkerDied",
    expr=f"""\
sum by ({_BROKER}) (
{grown("gomq_server_processes_died_total", JOB, at.LOSS_WINDOW)}
)""",
    severity="warning",
    summary="A worker of {{ $labels.broker }} ended without a word",
    description=(
        "{{ $value | humanize }} processes that fetched from {{ $labels.broker }} "
        "were killed, crashed or lost their server, as others found. What they held "
        "is handled again, so nothing is lost; the log says what that was."
    ),
    board=_BOARD,
)
OUTBOX: Final = Alert(
    name="GomqOutboxStalled",
    # One that waits because all handlers are at work moves on as they take more.
    expr=f"""\
max by ({_BROKER}) (gomq_outbox_oldest_age_seconds{{{JOB}}}) > {at.OUTBOX_AGE}
and on ({_BROKER})
sum by ({_BROKER}) (
  increase(gomq_messages_fetched_total{{{JOB}}}[5m])
) == 0
unless on ({_BROKER})
max by ({_BROKER}) (gomq_relay_up{{{JOB}}}) >= 0""",
    patience=at.DOWN_FOR,
    severity="critical",
    summary="The outbox of {{ $labels.broker }} does not move",
    description=(
        "The oldest event in the outbox of {{ $labels.broker }} was emitted "
        "{{ $value | humanizeDuration }} ago, no consumer was given it, and workers "
        "have fetched nothing for minutes."
    ),
    board=_BOARD,
)
RELAY: Final = Alert(
    name="GomqRelayLagging",
    expr=f"""\
max by ({_BROKER}) (gomq_outbox_oldest_age_seconds{{{JOB}}}) > {at.OUTBOX_AGE}
and on ({_BROKER})
max by ({_BROKER}) (gomq_relay_up{{{JOB}}}) >= 0""",
    patience=at.DOWN_FOR,
    severity="critical",
    summary="Events of {{ $labels.broker }} are not forwarded to its server in time",
    description=(
        "The oldest event in the outbox of {{ $labels.broker }} was emitted "
        "{{ $value | humanizeDuration }} ago, and its server does not have it. It is "
        "safe in the database, and no consumer sees it before it is forwarded."
    ),
    board=_BOARD,
)
REFUSED: Final = Alert(
    name="GomqOutboxRefused",
    expr=f"max by ({_BROKER}) (gomq_outbox_refused{{{JOB}}}) > 0",
    severity="warning",
    summary="The server of {{ $labels.broker }} will not take some events",
    description=(
        "{{ $value | humanize }} events that were committed are dead letters of "
        "gomq.relay, as the server of {{ $labels.broker }} will never take them: "
        "nobody consumes their type there, or nobody can read them."
    ),
    board=_BOARD,
)
DOWN: Final = Alert(
    name="GomqBackendDown",
    expr=f"count by ({_BROKER}) (gomq_backend_up{{{JOB}}} == 0)",
    patience=at.DOWN_FOR,
    severity="critical",
    summary="The server of {{ $labels.broker }} does not answer",
    description=(
        "{{ $value }} instances of {{ $labels.job }} got no answer from the server of "
        "{{ $labels.broker }} when they asked last: what is emitted there is refused, "
        "and nothing is fetched. What it holds is safe."
    ),
    board=_BOARD,
)
PENDING: Final = Alert(
    name="GomqPendingStuck",
    # What a handler works at for long is the business of another alert.
    expr=f"""\
max by ({_KEY}) (gomq_server_pending{{{JOB}}}) > 0
unless on ({_KEY})
sum by ({_KEY}) (
  increase(gomq_messages_processed_total{{{JOB}}}[{at.STALLED_WINDOW}s])
) > 0
unless on ({_KEY})
sum by ({_KEY}) (gomq_messages_in_flight{{{JOB}}}) > 0
unless on ({_KEY}) gomq_consumer_paused{{{JOB}}} == 1""",
    patience=at.STALLED_FOR,
    severity="warning",
    summary="Messages that were handed out for {{ $labels.consumer }} do not move",
    description=(
        "The server of {{ $labels.broker }} has handed out {{ $value | humanize }} "
        "messages for {{ $labels.consumer }}; no handler is at work on any, and none "
        "has ended for minutes. Who held them is gone, and nobody takes them over."
    ),
    board=_CONSUMER_BOARD,
)
TRIMMED: Final = Alert(
    name="GomqMessagesTrimmed",
    expr=f"""\
max by ({_KEY}) (
  max_over_time(gomq_server_trimmed{{{JOB}}}[{at.LOSS_WINDOW}s])
) > 0""",
    severity="critical",
    summary="Messages for {{ $labels.consumer }} were deleted at the server",
    description=(
        "{{ $value | humanize }} messages that waited for {{ $labels.consumer }} were "
        "trimmed or deleted at the server of {{ $labels.broker }} before anybody had "
        "read them: this consumer will never see them. The bus itself deletes only "
        "what all have handled."
    ),
    board=_CONSUMER_BOARD,
)

GROUP: Final = Group(
    "gomq-servers",
    (
        BACKLOG,
        WORKERLESS,
        NO_WORKERS,
        DIED,
        OUTBOX,
        RELAY,
        REFUSED,
        DOWN,
        PENDING,
        TRIMMED,
    ),
)
