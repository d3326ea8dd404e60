"""What is safe to log of messages and errors: one line, bounded, no payload."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from logging import DEBUG, ERROR, INFO, WARNING, Logger
from threading import Lock
from typing import Any, Final, NamedTuple

import msgspec

from django_gomq.bus.counts import OTHER
from django_gomq.bus.delivery import DropReason, RetryAfter
from django_gomq.bus.errors import (
    PublishError,
    describe_error,
    error_class_name,
    printable,
)
from django_gomq.bus.hooks import Hook
from django_gomq.bus.message import Message
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.bus.stats import Remainder
from django_gomq.bus.wire import wire_headers

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")


def about(message: Message[Any], attempt: int) -> dict[str, object]:
    """Return the fields that name one attempt, with the trace it was emitted in."""
    fields: dict[str, object] = {
        "gomq_message_id": printable(message.id),
        "gomq_attempt": attempt,
    }
    found = _TRACEPARENT.fullmatch(wire_headers(message).get("traceparent", ""))
    if found:
        fields["gomq_trace_id"] = fields["trace_id"] = found[1]
    return fields


MAX_NAMES: Final = 10  # of event types and coroutines, in one line
MAX_SUBJECTS: Final = 1000  # event types and error classes may be made from data
MAX_LINES: Final = 10
"""Of one kind about one consumer, in the time in which a subject is told once; one line
stands for all the others."""


class Subject(NamedTuple):
    """What a line is about; lines about one subject are limited together."""

    kind: str
    broker: str
    event: str = ""
    consumer: str = ""
    reason: str = ""


class _Silence(msgspec.Struct, eq=False):
    since: float
    pending: int = 0


class _Budget(msgspec.Struct, eq=False):
    since: float
    lines: int = 0


class Limiter:
    """Answers whether to speak, and for how many. Thread-safe, never blocks long."""

    def __init__(
        self, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = Lock()
        self._silences: dict[Subject, _Silence] = {}
        self._budgets: dict[tuple[str, str, str], _Budget] = {}

    def admit(self, subject: Subject, count: int = 1) -> int:
        """Count; return for how many a line stands now, or 0 if it is too soon."""
        with self._lock:
            now = self._clock()
            silence = self._silences.get(subject)
            if silence is None and not self._has_room(subject, now):
                subject = subject._replace(event=OTHER, reason=OTHER)
                silence = self._silences.get(subject)
            if silence is None:
                self._silences[subject] = _Silence(now)
                return count
            silence.pending += count
            if now - silence.since < self._seconds or not self._may_speak(subject, now):
                return 0
            total, silence.pending, silence.since = silence.pending, 0, now
            return total

    def _has_room(self, subject: Subject, now: float) -> bool:
        is_full = len(self._silences) >= MAX_SUBJECTS
        return not is_full and self._may_speak(subject, now)

    def _may_speak(self, subject: Subject, now: float) -> bool:
        """Take a line of those that its kind and its consumer have at this time."""
        if subject.reason == OTHER:
            return True
        group = subject.kind, subject.broker, subject.consumer
        budget = self._budgets.get(group)
        if budget is None or now - budget.since >= self._seconds:
            budget = self._budgets[group] = _Budget(now)
        budget.lines += 1
        return budget.lines <= MAX_LINES

    def take_pending(self, broker: str) -> dict[Subject, int]:
        """Return what was counted about this broker (or none) and not yet told."""
        with self._lock:
            pending = {
                subject: silence.pending
                for subject, silence in self._silences.items()
                if silence.pending and subject.broker in (broker, "")
            }
            for subject in pending:
                self._silences[subject].pending = 0
            return pending


publish_logger: Final = logging.getLogger("gomq.publish")
consumer_logger: Final = logging.getLogger("gomq.consumer")
bus_logger: Final = logging.getLogger("gomq.bus")

REFUSED: Final = "Broker %s refused %d of %s: %s"
UNKNOWN: Final = "The server of broker %s may have taken %d of %s, or not: %s"
DROPPED: Final = "Consumer %s will not see %d of %s: %s (%s)"
_FULL: Final = (
    "raise its concurrency or capacity, make it overflow='backpressure', or emit with "
    "a timeout, which waits for room"
)
ADVICE: Final = {
    DropReason.CHANNEL_FULL: f"its channel is full: {_FULL}",
    DropReason.EVICTED: f"newer ones took its place: {_FULL}",
    DropReason.EXPIRED: "it waited longer than max_age: raise its concurrency or that",
}
RETRYING: Final = (
    "Consumer %s failed in attempt %d of %s, again in %.3f s (%d like it): %s"
)
POSTPONED: Final = "Consumer %s asks for %s again in %.3f s"
POSTPONED_OFTEN: Final = (
    "Consumer %s asks for a message of %s again for the %dth time, %.0f s after it was "
    "made, message %s (%d like it): RetryLater has no end; raise Reject, or an error "
    "that its Retry counts, to give up"
)
MANY_TIMES: Final = 16
"""So often a message is asked for again before that is told, then at each doubling."""
DEAD_LETTERED: Final = (
    "Consumer %s gave up on %s in attempt %d, message %s (%d like it): %s"
)
OVERRAN: Final = "Consumer %s has run for %.1f s, past its timeout (%d like it)"
LOOP_BLOCKED: Final = (
    "Consumer %s blocks the event loop of all async handlers, for %.1f s so far, in %s "
    "(%d like it): await what it waits for, or move it to asyncio.to_thread()"
)
BATCH_FAILED: Final = (
    "Consumer %s failed on a batch of %d, which is tried one by one (%d like it): %s"
)
FAILED: Final = "The %s failed and goes on (%d like it): %s"
PENDING: Final = "%d more since the last such line: %s, event %s, consumer %s, %s"
DRAINING: Final = (
    "Broker %s has %d messages left and handles them before it stops, for %d s so far; "
    "Ctrl-C or SIGTERM ends that sooner, and DRAIN_TIMEOUT bounds it"
)
LEFT: Final = "Broker %s stopped in %.1f s and left %s"
SPILLED: Final = (
    "Broker %s left %s messages in the table of spilled ones: processes that run their "
    "consumers handle them"
)
CLEAN: Final = "Broker %s stopped in %.1f s and left nothing"

_LOGGERS: Final = {
    "refused": publish_logger,
    "unknown": publish_logger,
    "failed": bus_logger,
    "draining": bus_logger,
}


class LogHook(Hook):
    """Writes to the loggers ``gomq.publish``, ``gomq.consumer`` and ``gomq.bus``.

    Lines of one kind about one subject come at once, then every ``seconds`` with how
    many they stand for, and at the stop. A dead letter that is held back is a line of
    level DEBUG. To be made in each process, as it has a lock. Thread-safe; blocks as
    long as log handlers do.
    """

    def __init__(
        self, *, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limiter = Limiter(seconds, clock)

    def refused(self, broker: str, event: str, error: PublishError) -> None:
        """Warn, within the limit."""
        # Not always an event type: what does not run refuses before it looks.
        subject = Subject("refused", broker, printable(event), "", error.code)
        count = self._limiter.admit(subject)
        if count:
            args = broker, count, subject.event, describe_error(error)
            _log(WARNING, REFUSED, args, subject, count)

    def unknown(self, broker: str, event: str, error: PublishError) -> None:
        """Warn, within the limit."""
        subject = Subject("unknown", broker, printable(event))
        count = self._limiter.admit(subject)
        if count:
            args = broker, count, subject.event, describe_error(error)
            _log(WARNING, UNKNOWN, args, subject, count)

    def dropped(
        self,
        broker: str,
        consumer: str,
        messages: Sequence[Message[Any]],
        reason: DropReason,
    ) -> None:
        """Warn, within the limit; what a stop drops is told in its last line."""
        if reason is DropReason.SHUTDOWN:
            return
        for event, number in Counter(message.type for message in messages).items():
            subject = Subject("dropped", broker, event, consumer, reason.value)
            count = self._limiter.admit(subject, number)
            if count:
                args = consumer, count, event, reason.value, ADVICE[reason]
                _log(WARNING, DROPPED, args, subject, count)

    def retrying(
        self,
        broker: str,
        consumer: str,
        message: Message[Any],
        attempt: int,
        outcome: RetryAfter,
    ) -> None:
        """Warn, within the limit, without a traceback; RetryLater is no failure."""
        event, delay, error = message.type, outcome.delay, outcome.error
        if error is None:
            self._postponed(broker, consumer, message, attempt, outcome)
            return
        kind = error_class_name(error)
        subject = Subject("retrying", broker, event, consumer, kind)
        count = self._limiter.admit(subject)
        if count:
            text = describe_error(error)
            args = consumer, attempt, event, delay, count, text
            fields = {**about(message, attempt), "gomq_error": text}
            _log(WARNING, RETRYING, args, subject, count, fields)

    def _postponed(
        self,
        broker: str,
        consumer: str,
        message: Message[Any],
        attempt: int,
        outcome: RetryAfter,
    ) -> None:
        """Warn, within the limit, of what may go on for ever."""
        event, times = message.type, outcome.times
        subject = Subject("postponed", broker, event, consumer)
        is_many = times >= MANY_TIMES and not times & (times - 1)
        count = self._limiter.admit(subject) if is_many else 0
        if not count:
            _log(DEBUG, POSTPONED, (consumer, event, outcome.delay), subject, 1)
            return
        fields = {**about(message, attempt), "gomq_times": times}
        args = consumer, event, times, message.age, fields["gomq_message_id"], count
        _log(WARNING, POSTPONED_OFTEN, args, subject, count, fields)

    def dead_lettered(
        self,
        broker: str,
        consumer: str,
        message: Message[Any],
        attempt: int,
        error: BaseException,
    ) -> None:
        """Log an error with its traceback, within the limit; the others for DEBUG."""
        kind = error_class_name(error)
        subject = Subject("dead_lettered", broker, message.type, consumer, kind)
        count = self._limiter.admit(subject)
        if not count and not consumer_logger.isEnabledFor(DEBUG):
            return
        fields = about(message, attempt)
        fields["gomq_error"] = text = describe_error(error)
        told = count or 1
        args = consumer, message.type, attempt, fields["gomq_message_id"], told, text
        level, traced = (ERROR, error) if count else (DEBUG, None)
        _log(level, DEAD_LETTERED, args, subject, told, fields, traced)

    def overran(self, broker: str, consumer: str, seconds: float) -> None:
        """Warn, within the limit, while the handler still runs."""
        subject = Subject("overran", broker, "", consumer)
        count = self._limiter.admit(subject)
        if count:
            _log(WARNING, OVERRAN, (consumer, seconds, count), subject, count)

    def loop_blocked(self, consumer: str, seconds: float, where: str) -> None:
        """Warn, within the limit, while the loop is blocked."""
        subject = Subject("loop_blocked", "", "", consumer)
        count = self._limiter.admit(subject)
        if count:
            fields: dict[str, object] = {"gomq_seconds": seconds, "gomq_where": where}
            args = consumer, seconds, where, count
            _log(WARNING, LOOP_BLOCKED, args, subject, count, fields)

    def batch_failed(
        self, broker: str, consumer: str, size: int, error: BaseException
    ) -> None:
        """Warn, within the limit; each member that fails alone is told by itself."""
        kind = error_class_name(error)
        subject = Subject("batch_failed", broker, "", consumer, kind)
        count = self._limiter.admit(subject)
        if count:
            text = describe_error(error)
            args = consumer, size, count, text
            fields: dict[str, object] = {"gomq_size": size, "gomq_error": text}
            _log(WARNING, BATCH_FAILED, args, subject, count, fields)

    def failed(self, part: str, error: BaseException) -> None:
        """Log an error with its traceback, within the limit."""
        kind = error_class_name(error)
        subject = Subject("failed", "", "", "", f"{part}: {kind}")
        count = self._limiter.admit(subject)
        if count:
            text = describe_error(error)
            fields: dict[str, object] = {"gomq_part": part, "gomq_error": text}
            _log(ERROR, FAILED, (part, count, text), subject, count, fields, error)

    def draining(self, broker: str, left: int, seconds: float) -> None:
        """Warn: somebody waits for it."""
        args = broker, left, seconds
        subject = Subject("draining", broker)
        fields: dict[str, object] = {"gomq_seconds": seconds}
        _log(WARNING, DRAINING, args, subject, left, fields)

    def stopped(self, broker: str, remainder: Remainder) -> None:
        """Tell what was held back; then warn, in one line, if anything was left."""
        self._tell_pending(broker)
        fields: dict[str, object] = {
            "gomq_broker": broker,
            "gomq_seconds": remainder.seconds,
            "gomq_left": dict(remainder.dropped),
            "gomq_in_flight": remainder.in_flight,
            "gomq_spilled": remainder.spilled,
        }
        if remainder.spilled:
            count = remainder.spilled
            write_log(bus_logger, INFO, SPILLED, broker, count, fields=fields)
        if remainder.is_clean:
            seconds = remainder.seconds
            write_log(bus_logger, DEBUG, CLEAN, broker, seconds, fields=fields)
            return
        if remainder.background:
            fields["gomq_tasks"] = dict(Counter(remainder.background))
        fields["gomq_count"] = sum(remainder.dropped.values())
        told = broker, remainder.seconds, _describe(remainder)
        write_log(bus_logger, WARNING, LEFT, *told, fields=fields)

    def _tell_pending(self, broker: str) -> None:
        """Tell what was held back, the most frequent first, and the rest as one."""
        pending = Counter(self._limiter.take_pending(broker)).most_common()
        rest = sum(count for _, count in pending[MAX_LINES:])
        told = pending[:MAX_LINES]
        if rest:
            told.append((Subject(OTHER, broker, OTHER, OTHER, OTHER), rest))
        for subject, count in told:
            kind, _, *others = subject
            _log(WARNING, PENDING, (count, kind, *others), subject, count)


def _list(numbers: Mapping[str, int]) -> str:
    """Return names and numbers, up to ten of them."""
    shown = [f"{name}: {number}" for name, number in islice(numbers.items(), MAX_NAMES)]
    more = [f"and {len(numbers) - MAX_NAMES} more"] if len(numbers) > MAX_NAMES else []
    return ", ".join([*shown, *more])


def _describe(remainder: Remainder) -> str:
    """Return what was left of each kind."""
    left, tasks = sum(remainder.dropped.values()), Counter(remainder.background)
    started = f"{tasks.total()} tasks that async handlers had started"
    parts = {
        f"{left} undelivered ({_list(remainder.dropped)})": left,
        f"{remainder.in_flight} in work": remainder.in_flight,
        f"{remainder.unsettled} that the server was not told of": remainder.unsettled,
        f"{started} ({_list(tasks)})": tasks.total(),
    }
    return ", ".join(text for text, is_any in parts.items() if is_any)


def _log(
    level: int,
    text: str,
    args: tuple[object, ...],
    subject: Subject,
    count: int,
    fields: dict[str, object] | None = None,
    error: BaseException | None = None,
) -> None:
    logger: Logger = _LOGGERS.get(subject.kind, consumer_logger)
    about_subject: dict[str, object] = {
        "gomq_kind": subject.kind,
        "gomq_broker": subject.broker,
        "gomq_event": subject.event,
        "gomq_consumer": subject.consumer,
        "gomq_reason": subject.reason,
        "gomq_count": count,
        **(fields or {}),
    }
    write_log(logger, level, text, *args, fields=about_subject, error=error)
