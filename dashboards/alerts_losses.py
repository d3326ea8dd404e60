"""Alerts about events that nobody will handle."""

from __future__ import annotations

from typing import Final

from dashboards import thresholds as at
from dashboards.links import CONSUMER, OVERVIEW, of_alert
from dashboards.promql import JOB, grown, with_severity
from dashboards.rules import Alert, Group

_LOST: Final = "queue_full|timeout|unavailable|not_made"
_REFUSED: Final = f'{JOB}, reason=~"{_LOST}"'
_NO_BROKER: Final = f'{JOB}, reason!~"{_LOST}"'


def _refused(where: str) -> str:
    counted = grown("gomq_messages_refused_total", where, at.LOSS_WINDOW)
    return f"sum by (job, broker, event, reason) (\n{counted}\n)"


DROPPED: Final = Alert(
    name="GomqMessagesDropped",
    expr=with_severity(
        "job, broker, consumer, reason",
        grown("gomq_messages_dropped_total", JOB, at.LOSS_WINDOW),
    ),
    severity="{{ $labels.severity }}",
    summary="{{ $labels.consumer }} missed messages: {{ $labels.reason }}",
    description=(
        "{{ $labels.consumer }} will never see {{ $value | humanize }} messages of the "
        "last minutes ({{ $labels.reason }}). Other consumers of the same events are "
        "not affected. The severity is that of gomq_consumer_info."
    ),
    board=of_alert(CONSUMER, "job", "broker", "consumer"),
)
REFUSED: Final = Alert(
    name="GomqMessagesRefused",
    expr=_refused(_REFUSED),
    severity="critical",
    summary="{{ $labels.event }} is refused: {{ $labels.reason }}",
    description=(
        "The broker {{ $labels.broker }} did not take {{ $value | humanize }} messages "
        "of {{ $labels.event }} ({{ $labels.reason }}): no consumer will see them. "
        "emit() gave a false receipt, or raised where it is strict; of not_made, an "
        "event of a model or signal whose data failed, only the log tells."
    ),
    board=of_alert(OVERVIEW, "job", "broker", "event"),
)
NOT_RUNNING: Final = Alert(
    name="GomqPublishWithoutBroker",
    expr=_refused(_NO_BROKER),
    severity="warning",
    summary="{{ $labels.event }} is emitted where no broker runs: {{ $labels.reason }}",
    description=(
        "{{ $value | humanize }} messages of {{ $labels.event }} were refused by a "
        "broker that was closed, not started or between two dispatchers "
        "({{ $labels.reason }}). A few around a deployment are requests that outlived "
        "their process's drain; a steady number is a command that never runs consumers."
    ),
    board=of_alert(OVERVIEW, "job", "broker", "event"),
)
DEAD_LETTERS: Final = Alert(
    name="GomqDeadLetters",
    expr=with_severity(
        "job, broker, consumer",
        grown("gomq_messages_dead_lettered_total", JOB, at.DEAD_LETTER_WINDOW),
    ),
    severity="{{ $labels.severity }}",
    summary="{{ $labels.consumer }} gave up on messages",
    description=(
        "{{ $labels.consumer }} gave up on {{ $value | humanize }} messages after the "
        "last attempt of its Retry, or after a Reject. The log has an ERROR line with "
        "a traceback for each class of error."
    ),
    board=of_alert(CONSUMER, "job", "broker", "consumer"),
)

UNACCOUNTED: Final = Alert(
    name="GomqMessagesUnaccounted",
    # Between two counts the gap swings around nothing: what counts is that it grew and
    # does not shrink again.
    expr=f"""\
min_over_time(gomq:conservation_gap:sum{{{JOB}}}[5m])
- max_over_time(gomq:conservation_gap:sum{{{JOB}}}[5m] offset 10m) > {at.UNACCOUNTED}
and
min_over_time(gomq:conservation_gap:sum{{{JOB}}}[5m]) > {at.UNACCOUNTED}
and
gomq:conservation_gap:sum{{{JOB}}} > {at.UNACCOUNTED}""",
    # While workers with and without a consumer take turns, what the others publish
    # looks missing.
    patience=120,
    severity="critical",
    summary="Messages for {{ $labels.consumer }} are gone without a trace",
    description=(
        "{{ $value | humanize }} messages that were dispatched to "
        "{{ $labels.consumer }} were neither handled nor dropped, and nobody holds "
        "them: a process that shares PROMETHEUS_MULTIPROC_DIR was killed with them. "
        "Where each process is scraped by itself, its numbers end with it, and this "
        "stays silent."
    ),
    board=of_alert(CONSUMER, "job", "broker", "consumer"),
)

GROUP: Final = Group(
    "gomq-losses", (DROPPED, REFUSED, NOT_RUNNING, DEAD_LETTERS, UNACCOUNTED)
)
