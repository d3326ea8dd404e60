"""What is safe to log of messages and errors: one line, bounded, no payload."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from logging import DEBUG, ERROR, WARNING, Logger
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


MAX_SUBJECTS: Final = 1000  # event types and error classes may be made from data


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


class Limiter:
    """Answers whether to speak, and for how many. Thread-safe, never blocks long."""

    def __init__(
        self, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = Lock()
        self._silences: dict[Subject, _Silence] = {}

    def admit(self, subject: Subject, count: int = 1) -> int:
        """Count; return for how many a line stands now, or 0 if it is too soon."""
        with self._lock:
            now = self._clock()
            silence = self._silences.get(subject)
            if silence is None and len(self._silences) >= MAX_SUBJECTS:
                subject = subject._replace(event=OTHER, reason=OTHER)
                silence = self._silences.get(subject)
            if silence is None:
                self._silences[subject] = _Silence(now)
                return count
            silence.pending += count
            if now - silence.since < self._seconds:
                return 0
            total, silence.pending, silence.since = silence.pending, 0, now
            return total

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
DROPPED: Final = "Consumer %s will not see %d of %s: %s"
RETRYING: Final = (
    "Consumer %s failed in attempt %d of %s, again in %.3f s (%d like it): %s"
)
POSTPONED: Final = "Consumer %s asks for %s again in %.3f s"
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
LEFT: Final = "Broker %s stopped in %.1f s and left %d undelivered, %d in work: %s"
CLEAN: Final = "Broker %s stopped in %.1f s and left nothing"

_LOGGERS: Final = {
    "refused": publish_logger,
    "unknown": publish_logger,
    "failed": bus_logger,
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
                args = consumer, count, event, reason.value
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
            subject = Subject("postponed", broker, event, consumer)
            _log(DEBUG, POSTPONED, (consumer, event, delay), subject, 1)
            return
        kind = error_class_name(error)
        subject = Subject("retrying", broker, event, consumer, kind)
        count = self._limiter.admit(subject)
        if count:
            text = describe_error(error)
            args = consumer, attempt, event, delay, count, text
            fields = {**about(message, attempt), "gomq_error": text}
            _log(WARNING, RETRYING, args, subject, count, fields)

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

    def stopped(self, broker: str, remainder: Remainder) -> None:
        """Tell what was held back; then warn, in one line, if anything was left."""
        for subject, count in self._limiter.take_pending(broker).items():
            kind, _, *rest = subject
            args = (count, kind, *rest)
            _log(WARNING, PENDING, args, subject, count)
        fields: dict[str, object] = {
            "gomq_broker": broker,
            "gomq_seconds": remainder.seconds,
            "gomq_left": dict(remainder.dropped),
            "gomq_in_flight": remainder.in_flight,
        }
        if remainder.is_clean:
            seconds = remainder.seconds
            write_log(bus_logger, DEBUG, CLEAN, broker, seconds, fields=fields)
            return
        left = sum(remainder.dropped.values())
        by_type = ", ".join(f"{name}: {n}" for name, n in remainder.dropped.items())
        write_log(
            bus_logger,
            WARNING,
            LEFT,
            broker,
            remainder.seconds,
            left,
            remainder.in_flight,
            by_type or "no message",
            fields={**fields, "gomq_count": left},
        )


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
