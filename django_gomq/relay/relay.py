"""Forwards what waits in an outbox to its server, by one process at a time."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from threading import Event, Lock, Thread
from typing import Any, Final

import msgspec
from django.conf import settings

from django_gomq.backends.database.connection import OwnConnection
from django_gomq.backends.database.rows import MAX_ENVELOPE_BODY
from django_gomq.bus.backend import Backend, BackendContext
from django_gomq.bus.errors import (
    BackendUnavailableError,
    GoMQError,
    MessageError,
    NoConsumerError,
    describe_error,
)
from django_gomq.bus.process.fork import claim_thread, may_start
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.bus.wire import WireMessage, decode_structured
from django_gomq.emitters import class_of

from . import table
from .table import Refusal, Waiting

logger = logging.getLogger("gomq.relay")

BATCH: Final = 250
"""Events that are read in one go: of the largest, 64 MiB."""
LEASE: Final = 15.0
"""Seconds after which another process forwards, where one has died."""
SEND_SECONDS: Final = LEASE / 3
"""What one call of the server may take, so that it ends within the lease."""
ANSWER_SECONDS: Final = 10.0
"""What a statement may take: less than the lease."""
SHORTEST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
"""Seconds between two looks at the outbox: what is found shortens them."""
FOLLOW_SECONDS: Final = LEASE / 3
"""How often a process looks whether it may forward that does not."""
FIRST_BACKOFF: Final = 0.05
MAX_BACKOFF: Final = 2.0
"""Seconds until the next try, after a server could not be reached."""

_FOR_GOOD: Final = (MessageError, NoConsumerError)
"""What is wrong with one event, whenever it is sent."""

Answer = GoMQError | None


class Relay:
    """Forwards the events of one broker while this process holds the lease for it.

    An event is deleted once the server has confirmed it: at least once. Events of one
    key are confirmed one after the other. What the server will never take becomes a
    dead letter, unless nobody consumes it and nobody has to. It works on a thread of
    its own; all but ``end`` do not block.
    """

    def __init__(self, using: str, backend: Backend, context: BackendContext) -> None:
        self._using = using
        self._backend = backend
        self._context = context
        self._broker, self._owner = context.broker, context.owner
        self._connection = OwnConnection(using, ANSWER_SECONDS)
        self._lock = Lock()
        self._ending, self._woken = Event(), Event()
        self._thread: Thread | None = None
        self._leads_until = 0.0
        self._pause = SHORTEST_PAUSE
        self._failures = 0
        self._confirmed: list[int] = []
        """What the server has, and the outbox still."""
        self._refused: list[Refusal] = []
        self._since_bound = 0
        self._has_told = False

    def start(self) -> None:
        """Forward from now on; idempotent. Raises RuntimeError without a thread."""
        with self._lock:
            if self._thread is None and not self._ending.is_set() and may_start():
                name = f"gomq-{self._backend.name}-relay"
                thread = Thread(target=self._run, name=name, daemon=True)
                thread.start()
                self._thread = thread

    def wake(self) -> None:
        """Look at once: this process has committed an event. Thread-safe."""
        self._woken.set()

    def end(self, timeout: float) -> None:
        """Forward no more; idempotent. Blocks up to so many seconds for a call."""
        self._ending.set()
        self._woken.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        claim_thread()
        while not self._ending.is_set():
            self._woken.clear()
            try:
                self._step()
                self._failures = 0
            except BaseException as error:  # noqa: BLE001 - whatever a client raises
                self._back_off(error)
        with suppress(Exception):  # then another process waits for the lease to end
            if self._leads_until:
                self._store()
                table.leave(self._connection, self._broker, self._owner)
        self._connection.close()

    def _step(self) -> None:
        """Forward what waits, or wait for something to do."""
        if not self._leads():
            self._ending.wait(_about(FOLLOW_SECONDS))
            return
        self._store()  # what could not be stored before
        waiting = table.next_events(self._connection, self._broker, BATCH)
        if waiting:
            self._pause = SHORTEST_PAUSE
            self._forward(waiting)
        else:
            pause = _about(self._pause)
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
            if self._woken.wait(pause):
                self._pause = SHORTEST_PAUSE

    def _leads(self) -> bool:
        """Whether a call of the server may begin, which ends before the lease does."""
        began = time.monotonic()
        if began < self._leads_until - 2 * LEASE / 3:
            return True
        leads = table.claim(self._connection, self._broker, self._owner, LEASE)
        self._leads_until = began + LEASE if leads else 0.0
        return leads

    def _forward(self, waiting: Sequence[Waiting]) -> None:
        failure: Answer = None
        try:
            in_order = self._backend.forwards_in_order
            for each in [waiting] if in_order else in_rounds(waiting):
                if failure is not None or self._ending.is_set() or not self._leads():
                    break
                failure = self._send(each)
        finally:
            self._store()
        if failure is not None:
            raise failure

    def _send(self, waiting: Sequence[Waiting]) -> Answer:
        """Have the server take these; return what keeps it from that for now, if any.

        What has no answer counts as not taken: it is sent again.
        """
        failure: Answer = None
        for event, answer in zip(waiting, self._answers(waiting), strict=True):
            if answer is None:
                self._confirmed.append(event.id)
            elif isinstance(answer, _FOR_GOOD):
                self._refused.append(Refusal(event, answer))
            else:
                failure = failure or answer
        return failure

    def _answers(self, waiting: Sequence[Waiting]) -> list[Answer]:
        answers: list[Answer] = [None] * len(waiting)
        readable, places = [], []
        for place, event in enumerate(waiting):
            try:
                readable.append(_read(event))
                places.append(place)
            except MessageError as error:
                answers[place] = error
        if readable:
            found = self._publish(readable)
            for place, sent, answer in zip(places, readable, found, strict=True):
                answers[place] = self._unless_ignored(sent.message.type, answer)
        return answers

    def _publish(self, events: Sequence[WireMessage]) -> Sequence[Answer]:
        try:
            return self._backend.forward(events, SEND_SECONDS)
        except MessageError as error:
            if len(events) == 1:
                return [error]
        return [answer for event in events for answer in self._publish([event])]

    def _unless_ignored(self, event_type: str, answer: Answer) -> Answer:
        """Return the answer; None, as if it was taken, where no consumer is wanted."""
        if not isinstance(answer, NoConsumerError) or not _may_go_unheard(event_type):
            return answer
        broker = self._broker
        self._context.hooks.notify(lambda hook: hook.unconsumed(broker, event_type))
        return None

    def _store(self) -> None:
        """Delete what the server has, and keep what it refused as dead letters."""
        if self._confirmed:
            table.delete(self._connection, self._confirmed)
            self._confirmed = []
        if self._refused:
            dialect, refused = self._connection.dialect, self._refused
            self._connection.run(
                partial(table.refuse, dialect=dialect, refusals=refused)
            )
            self._refused = []
            self._tell_refused(refused)

    # ------------------------------------------------------------ observers

    def _tell_refused(self, refused: Sequence[Refusal]) -> None:
        self._warn(
            "The server of broker %s will not take %d events: they are dead letters "
            "of %s now, the last one by %s",
            self._broker,
            len(refused),
            table.RELAY,
            describe_error(refused[-1].error),
        )
        self._since_bound += len(refused)
        if self._since_bound < BATCH:
            return
        self._since_bound = 0
        forget = partial(table.forget_oldest, broker=self._broker)
        if self._connection.run(forget) and not self._has_told:
            self._has_told = True
            self._warn(
                "Broker %s has more than %d dead letters of %s, and the oldest are "
                "deleted: replay or discard them; this is said once",
                self._broker,
                table.MAX_REFUSED,
                table.RELAY,
            )

    def _warn(self, text: str, *values: object) -> None:
        fields = {"gomq_broker": self._broker, "gomq_consumer": table.RELAY}
        self._context.hooks.hand_over(
            partial(write_log, logger, logging.WARNING, text, *values, fields=fields)
        )

    def _back_off(self, error: BaseException) -> None:
        """Wait before the next try; tell of the first one of an outage."""
        if self._ending.is_set():
            return
        self._failures += 1
        if self._failures == 1:
            told = BackendUnavailableError(
                f"The outbox of broker {self._broker!r} in database {self._using!r} "
                f"is not forwarded for now; it keeps its events: "
                f"{describe_error(error)}",
                broker=self._broker,
            )
            told.__cause__ = error
            self._context.inbox.report(told)
        pause = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** min(self._failures - 1, 10))
        self._ending.wait(_about(pause))


def in_rounds(waiting: Sequence[Waiting]) -> Iterator[Sequence[Waiting]]:
    """Yield events in their order, those of one key in one round each.

    A server that refuses one for a moment may take the next.
    """
    left = waiting
    while left:
        keys: set[int] = set()
        now, later = [], []
        for event in left:
            if event.key_hash in keys:
                later.append(event)
                continue
            now.append(event)
            if event.key_hash is not None:
                keys.add(event.key_hash)
        yield now
        left = later


def _may_go_unheard(event_type: str) -> bool:
    """Whether the Event class of a type, or else the setting, says ``"ignore"``."""
    event_class = class_of(event_type)
    wanted = event_class.__no_consumer__ if event_class is not None else None
    given: Mapping[str, Any] = getattr(settings, "GOMQ", None) or {}
    return (wanted or given.get("NO_CONSUMER")) == "ignore"


def _read(event: Waiting) -> WireMessage:
    """Return an event as it was emitted, with what is left of its delay."""
    read = decode_structured(event.envelope, max_body_bytes=MAX_ENVELOPE_BODY)
    if not read.message.delay:
        return read
    message = msgspec.structs.replace(read.message, delay=event.delay_left)
    return msgspec.structs.replace(read, message=message)


def _about(seconds: float) -> float:
    """Return about so many: not all processes are to look at one moment."""
    return seconds * random.uniform(0.8, 1.2)
