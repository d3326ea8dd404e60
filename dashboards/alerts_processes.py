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
    expr=f"sum by (job, thread) (gomq_threads_missing{{{JOB}}}) > 0",
    patience=at.DOWN_FOR,
    severity="critical",
    summary="Threads of {{ $labels.job }} do not run: {{ $labels.thread }}",
    description=(
        "{{ $value }} threads of started processes of {{ $labels.job }} that should "
        "run do not ({{ $labels.thread }}), and could not be replaced: the system "
        "gives no more. What they do for other threads is left undone."
    ),
    board=_BOARD,
)
BUSY: Final = Alert(
    name="GomqThreadsSaturated",
    # In the process where it is most: one of several must not hide behind the others.
    expr=f"""\
max by (job) (
  avg_over_time(gomq_threads_busy_ratio{{{JOB}}}[10m]) > {at.THREADS_BUSY}
  and on (job, instance)
  {_WAITING}
)""",
    patience=at.THREADS_BUSY_FOR,
    severity="warning",
    summary="All handler threads of {{ $labels.job }} are at work",
    description=(
        "In one process at least {{ $value | humanizePercentage }} of the handler "
        "threads have been at work for long, and messages wait for one. Consumers "
        "share them: one slow consumer makes all others wait. If its handlers hang, "
        "GomqHandlerStuck names it."
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
    # Those that end in order, at a deployment or by max_requests, do not count.
    # Rounded: increase() makes a little more of a few than they are.
    expr=f"""\
round(sum by (job) (
  increase(gomq_processes_killed_total{{{JOB}}}[15m])
)) > {at.KILLED}""",
    severity="warning",
    summary="Processes of {{ $labels.job }} are killed again and again",
    description=(
        "{{ $value | humanize }} processes of {{ $labels.job }} ended without a stop "
        "within 15 minutes: killed, or crashed. What was queued in their memory is "
        "lost; the log of those that are left says about how much."
    ),
    board=_BOARD,
)
MIXED: Final = Alert(
    name="GomqProcessesMixed",
    # A new process begins later than the one before it. Where this goes back and forth
    # several processes answer, and none of them speaks for the others.
    expr=f"""\
max by (job, instance) (
  resets(gomq_start_time_seconds{{{JOB}}}[15m]) > 2
  and on (job, instance)
  gomq_processes{{{JOB}}} == 1
)""",
    patience=120,
    severity="warning",
    summary="Several processes answer at {{ $labels.instance }}",
    description=(
        "Each scrape of {{ $labels.instance }} shows another process, so boards and "
        "alerts of {{ $labels.job }} are wrong. Set PROMETHEUS_MULTIPROC_DIR, or give "
        "each process a port with METRICS['PORT_RANGE']."
    ),
    board=_BOARD,
)
TELEMETRY_ERRORS: Final = Alert(
    name="GomqTelemetryErrors",
    expr=f"""\
sum by (job, kind) (
{grown("gomq_telemetry_errors_total", JOB, at.LOSS_WINDOW)}
)""",
    # One error, as at a start, is news for loss_window: only what goes on takes longer.
    patience=at.TELEMETRY_ERRORS_FOR,
    severity="warning",
    summary="The metrics or spans of {{ $labels.job }} have errors of their own",
    description=(
        "{{ $labels.kind }} goes on failing, {{ $value | humanize }} times in the last "
        "minutes. Events go on, too; what boards and alerts say may be incomplete "
        "until it is repaired."
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
    (DISPATCHER, THREADS, BUSY, LOOP, RESTARTING, MIXED, TELEMETRY_ERRORS, MISSING),
)
