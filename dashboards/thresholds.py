"""Every number that a user may set in boards and rules.

A threshold in an expression is written as a mark. ``marks`` puts the number there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Self

Unit = Literal[
    "seconds",
    "whole seconds",
    "ratio",
    "messages",
    "attempts",
    "processes",
    "per second",
]
"""Prometheus takes whole seconds where a number is a length of time."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number with a name; as text it is a mark that stands for the number."""

    name: str
    default: float
    unit: Unit
    text: str

    def __str__(self) -> str:
        return f"⟦{self.name}⟧"

    @property
    def number(self) -> str:
        """How the default is written in rules."""
        return f"{self.default:g}"


class Level(float):
    """The default of a threshold on a board, which remembers its name."""

    name: str

    def __new__(cls, threshold: Threshold) -> Self:
        """Take the number of the threshold."""
        made = super().__new__(cls, threshold.default)
        made.name = threshold.name
        return made


LOSS_WINDOW: Final = Threshold(
    "loss_window", 300, "whole seconds", "how far back a drop or a refusal is news"
)
DEAD_LETTER_WINDOW: Final = Threshold(
    "dead_letter_window", 900, "whole seconds", "how far back a dead letter is news"
)
UNACCOUNTED: Final = Threshold(
    "unaccounted", 0, "messages", "how many messages may be gone without a trace"
)
STALLED_WINDOW: Final = Threshold(
    "stalled_window",
    300,
    "whole seconds",
    "for how long no attempt may end while some wait",
)
STALLED_FOR: Final = Threshold(
    "stalled_for",
    120,
    "whole seconds",
    "how long a consumer has to stand still to alert",
)
RUNNING: Final = Threshold(
    "running", 300, "seconds", "how long one attempt of a handler may run"
)
QUEUE_AGE: Final = Threshold(
    "queue_age", 60, "seconds", "how long a message may wait for the dispatcher"
)
QUEUE_AGE_FOR: Final = Threshold(
    "queue_age_for",
    60,
    "whole seconds",
    "how long it has to be that old to alert",
)
FILL: Final = Threshold(
    "fill", 0.8, "ratio", "how full a queue or a channel may be of what it holds"
)
FILL_FOR: Final = Threshold(
    "fill_for", 120, "whole seconds", "how long it has to be that full to alert"
)
FILLING_FROM: Final = Threshold(
    "filling_from", 0.3, "ratio", "how full a channel is before its growth matters"
)
FILLING_AHEAD: Final = Threshold(
    "filling_ahead", 1800, "seconds", "how far ahead the growth of a channel is drawn"
)
OLDEST_AGE: Final = Threshold(
    "oldest_age", 60, "seconds", "how long the oldest message may wait"
)
OLDEST_FOR: Final = Threshold(
    "oldest_for", 300, "whole seconds", "how long it has to be that old to alert"
)
WAIT_P95: Final = Threshold(
    "wait_p95", 20, "seconds", "how long 95 of 100 messages may wait at most"
)
TRAFFIC: Final = Threshold(
    "traffic", 0.02, "per second", "how many messages come before their wait matters"
)
ERROR_RATIO: Final = Threshold(
    "error_ratio", 0.05, "ratio", "which part of the attempts may fail"
)
ERROR_RATE: Final = Threshold(
    "error_rate", 0.02, "per second", "how many fail before their part matters"
)
FAILING_AFTER: Final = Threshold(
    "failing_after",
    900,
    "whole seconds",
    "how long a busy consumer may be without success",
)
FAILING_ATTEMPTS: Final = Threshold(
    "failing_attempts", 5, "attempts", "how many of them fail before that matters"
)
FAILING_FOR: Final = Threshold(
    "failing_for", 120, "whole seconds", "how long that has to be so to alert"
)
THREADS_BUSY: Final = Threshold(
    "threads_busy", 0.95, "ratio", "which part of the handler threads may be at work"
)
THREADS_BUSY_FOR: Final = Threshold(
    "threads_busy_for",
    900,
    "whole seconds",
    "how long they have to be that busy to alert",
)
SPILLED_FOR: Final = Threshold(
    "spilled_for",
    900,
    "whole seconds",
    "how long a consumer may have messages in the table of spilled ones",
)
SPILLED_AHEAD: Final = Threshold(
    "spilled_ahead",
    3600,
    "seconds",
    "how far ahead their number is drawn: what is handled by then is no news",
)
DOWN_FOR: Final = Threshold(
    "down_for", 60, "whole seconds", "how long a dispatcher or a thread may be down"
)
PAUSED_FOR: Final = Threshold(
    "paused_for", 1800, "whole seconds", "how long a consumer may be paused"
)
LOOP_LAG: Final = Threshold(
    "loop_lag", 1, "seconds", "how long an async handler may block its event loop"
)
KILLED: Final = Threshold(
    "killed", 3, "processes", "how many may end without a stop in 15 minutes"
)
BACKLOG_AGE: Final = Threshold(
    "backlog_age", 300, "seconds", "how long the oldest message may wait at a server"
)
BACKLOG_FOR: Final = Threshold(
    "backlog_for", 120, "whole seconds", "how long it has to be that old to alert"
)
WORKERLESS_FOR: Final = Threshold(
    "workerless_for",
    300,
    "whole seconds",
    "how long messages may wait at a server where no process runs their consumer",
)
OUTBOX_AGE: Final = Threshold(
    "outbox_age", 60, "seconds", "how long an event may wait in an outbox"
)
TELEMETRY_ERRORS_FOR: Final = Threshold(
    "telemetry_errors_for",
    360,
    "whole seconds",
    "how long observers have to go on failing to alert; more than loss_window",
)
TELEMETRY_FOR: Final = Threshold(
    "telemetry_for", 600, "whole seconds", "how long all metrics may be missing"
)

ALL: Final = {
    item.name: item for item in list(globals().values()) if isinstance(item, Threshold)
}
"""By name, in the order above."""
