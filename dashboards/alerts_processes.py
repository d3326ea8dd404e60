"""Alerts about processes: their threads, their starts, and what they tell."""

from __future__ import annotations

from typing import Final

from dashboards import thresholds as at
from dashboards.links import TELEMETRY, of_alert
from dashboards.promql import JOB, grown
from dashboards.rules import Alert, Group

_BOARD: Final = of_alert(TELEMETRY, "job")
_WAITING: Final = f"sum by (job, instance) (gomq_channel_depth{{{JOB}}}) > 0"

DISPATCHER: Final = Alert(
    name="GomqDispatcherDown",
    expr=f"count by (job, broker) (gomq_dispatcher_up{{{JOB}}} == 0)",
    patience=at.DOWN_FOR,
    severity="critical",
    summary="A dispatcher of {{ $labels.broker }} is down",
    description=(
        "{{ $value }} instances have a broker {{ $labels.broker }} that was started "
        "and whose dispatcher does not run: every emit there is refused. It is "
        "restarted with growing pauses, so it must have died more than once."
    ),
    board=of_alert(TELEMETRY, "job", "broker"),
)
THREADS: Final = Alert(
    name="GomqHandlerThreadsDown",
    # A process that never emitted has no threads either, and nothing that waits.
    expr=f"""\
count by (job) (
  gomq_threads{{{JOB}}} == 0
  and on (job, instance)
  {_WAITING}
)""",
    patience=at.DOWN_FOR,
    severity="critical",
    summary="Messages wait where no handler thread runs",
    description=(
        "{{ $value }} instances of {{ $labels.job }} have waiting messages and no "
        "handler thread: nothing will handle them."
    ),
    board=_BOARD,
)
BUSY: Final = Alert(
    name="GomqThreadsSaturated",
    expr=f"""\
sum by (job) (avg_over_time(gomq_threads_busy{{{JOB}}}[10m]))
/ sum by (job) (avg_over_time(gomq_threads{{{JOB}}}[10m]) > 0) > {at.THREADS_BUSY}
and on (job)
{_WAITING}""",
    patience=at.THREADS_BUSY_FOR,
    severity="warning",
    summary="All handler threads of {{ $labels.job }} are at work",
    description=(
        "{{ $value | humanizePercentage }} of the handler threads have been at work "
        "for long, and messages wait for one. Consumers share them: one slow consumer "
        "makes all others wait."
    ),
    board=_BOARD,
)
LOOP: Final = Alert(
    name="GomqEventLoopBlocked",
    expr=f"""\
max by (job) (
  max_over_time(gomq_loop_lag_seconds{{{JOB}}}[5m])
) > {at.LOOP_LAG}""",
    severity="warning",
    summary="An async handler blocks the event loop of {{ $labels.job }}",
    description=(
        "For {{ $value | humanizeDuration }} an async handler did not give the loop "
        "back, so no other async handler of its process went on. The log says which "
        "one, and where it stood."
    ),
    board=_BOARD,
)
RESTARTING: Final = Alert(
    name="GomqProcessesRestarting",
    expr=f"""\
max by (job) (
  changes(gomq_start_time_seconds{{{JOB}}}[15m])
) > {at.RESTARTS}""",
    severity="warning",
    summary="Processes of {{ $labels.job }} start again and again",
    description=(
        "One address of {{ $labels.job }} was served by {{ $value }} new processes "
        "within 15 minutes. What is queued in memory is lost with a process that "
        "crashes, and no metric can count that."
    ),
    board=_BOARD,
)
TELEMETRY_ERRORS: Final = Alert(
    name="GomqTelemetryErrors",
    expr=f"""\
sum by (job, kind) (
{grown("gomq_telemetry_errors_total", JOB, at.LOSS_WINDOW)}
)""",
    severity="warning",
    summary="The metrics or spans of {{ $labels.job }} have errors of their own",
    description=(
        "{{ $labels.kind }} failed {{ $value | humanize }} times. Events go on; what "
        "boards and alerts say may be incomplete until it is repaired."
    ),
    board=_BOARD,
)
MISSING: Final = Alert(
    name="GomqTelemetryMissing",
    expr=f"""\
absent(gomq_build_info{{{JOB}}})
or
count by (job) (gomq_build_info{{{JOB}}} offset 1h)
unless on (job) count by (job) (gomq_build_info{{{JOB}}})""",
    patience=at.TELEMETRY_FOR,
    severity="critical",
    summary="No metrics come from {{ or $labels.job `any process` }}",
    description=(
        "Nothing was scraped from {{ or $labels.job `any process` }} for minutes: it "
        "is down, or Prometheus does not reach it, or may not read /gomq/metrics. "
        "All other alerts about it are silent meanwhile. A job that was taken down on "
        "purpose ends this after an hour."
    ),
    board=_BOARD,
)

GROUP: Final = Group(
    "gomq-processes",
    (DISPATCHER, THREADS, BUSY, LOOP, RESTARTING, TELEMETRY_ERRORS, MISSING),
)
