"""inline(): handlers run when the test's own atomic block is left, on its thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any, Final
from unittest import mock

from django.db.transaction import Atomic

from django_gomq.bus.broker import Broker
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.delivery import DeadLettered, original
from django_gomq.bus.message import Message
from django_gomq.capturing import Entry

from .captured import CapturedEvents, opened
from .handling import HandledMessage, process_to_the_end

MAX_ROUNDS: Final = 100
"""Events that handlers emit are handled in the next round; more rounds have no end."""


class InlineEvents(CapturedEvents):
    """Captured events whose handlers run as soon as they are committed."""

    def __init__(self, *, raise_errors: bool) -> None:
        super().__init__()
        self.handled: list[HandledMessage] = []
        """Every attempt, in its order."""
        self._raise_errors = raise_errors
        self._waiting: list[tuple[int, Entry]] = []
        self._running: set[int] = set()

    def record(self, entry: Entry) -> Callable[[], None]:
        """Add a message to be handled once its block is left."""
        waiting = get_ident(), entry
        self._waiting.append(waiting)
        forget = super().record(entry)

        def take_back() -> None:
            forget()
            if waiting in self._waiting:
                self._waiting.remove(waiting)

        return take_back

    def run_due(self, failure: Exception | None = None) -> None:
        """Handle what this thread emitted and committed; raise what handlers raised.

        What handlers emit meanwhile is handled after them, as on the bus. ``failure``
        is what a callback of the commit raised, which comes with theirs.
        """
        me = get_ident()
        if me in self._running:
            return
        self._running.add(me)
        handled: list[HandledMessage] = []
        try:
            for _ in range(MAX_ROUNDS):
                due = self._take_due(me)
                if not due:
                    break
                handled += self._handle(due)
            else:
                raise AssertionError(
                    f"Handlers went on emitting for {MAX_ROUNDS} rounds: "
                    f"{', '.join(sorted({entry.message.type for entry in due}))}."
                )
        finally:
            self._running.discard(me)
        if self._raise_errors:
            _raise_errors_of(handled, failure)

    def _take_due(self, me: int) -> list[Entry]:
        due = [
            (thread, entry)
            for thread, entry in self._waiting
            if thread == me and not entry.is_open()
        ]
        for waiting in due:
            self._waiting.remove(waiting)
        return [entry for _, entry in due]

    def _handle(self, entries: Sequence[Entry]) -> list[HandledMessage]:
        """Handle messages in their order; batches come after the others."""
        found: list[HandledMessage] = []
        for consumer, broker, messages in _shares(entries):
            done = process_to_the_end(consumer, broker, messages)
            self.handled += done
            found += done
        return found


def _shares(
    entries: Sequence[Entry],
) -> Iterator[tuple[Consumer, Broker, Sequence[Message[Any]]]]:
    batches: dict[tuple[str, str], tuple[Consumer, Broker, list[Message[Any]]]] = {}
    for entry in entries:
        message, broker = original(entry.message), entry.broker
        for consumer in broker.consumers:
            if not consumer.subscribes_to(message.type):
                continue
            if consumer.batch is None:
                yield consumer, broker, [message]
                continue
            where = broker.alias, consumer.name
            batches.setdefault(where, (consumer, broker, []))[-1].append(message)
    for consumer, broker, messages in batches.values():
        size = consumer.batch or 1
        for start in range(0, len(messages), size):
            yield consumer, broker, messages[start : start + size]


def _raise_errors_of(
    handled: Iterable[HandledMessage], failure: Exception | None
) -> None:
    """Raise what made dead letters: the one error itself, or several as a group.

    A ``failure`` is of that group, and is left to the caller where it is alone.
    """
    errors: list[BaseException] = []
    for done in handled:
        if isinstance(done.outcome, DeadLettered):
            error = done.outcome.error
            error.add_note(
                f"in consumer {done.consumer}, which handled {done.message.type} "
                f"inline at attempt {done.attempt}"
            )
            errors.append(error)
    if failure is not None and errors:
        raise BaseExceptionGroup(
            "a callback of the commit failed, and handlers inline", [failure, *errors]
        )
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup("several handlers failed inline", errors)


@contextmanager
def inline(*, raise_errors: bool = True) -> Iterator[InlineEvents]:
    """Run handlers on the thread that emits, when the test's own block is left.

    Works in every kind of TestCase: what TestCase itself never commits counts as
    committed once the outermost atomic block inside the test is left, and nothing is
    handled that was rolled back. Data are encoded and decoded, each attempt has a fresh
    context, and a Retry is honoured without waiting, as is a delay. What a handler
    gave up on is raised there, after all handlers ran, unless ``raise_errors`` is
    False. They run also where a callback of the commit raises, as on the bus. The
    events are captured too; ``handled`` of what this yields has every attempt. Async
    handlers run to their end.
    """
    events = InlineEvents(raise_errors=raise_errors)
    leave = Atomic.__exit__

    def leave_and_handle(atomic: Any, kind: Any, error: Any, trace: Any) -> None:
        try:
            leave(atomic, kind, error, trace)
        except Exception as failure:
            # Where it was the commit that failed, its events are taken back by now.
            events.run_due(failure)
            raise
        if kind is None:
            events.run_due()

    with opened(events), mock.patch.object(Atomic, "__exit__", leave_and_handle):
        yield events
