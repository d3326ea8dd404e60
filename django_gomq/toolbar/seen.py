"""What requests emitted and what handlers of this process made of it, while kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextvars import ContextVar
from threading import Lock
from typing import Any, Final

import msgspec

from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import Ack, DeadLettered, Dropped, DropReason, Outcome
from django_gomq.bus.errors import class_name
from django_gomq.bus.hooks import Attempt, Hook, Watch
from django_gomq.bus.message import Message
from django_gomq.capturing import Watcher, captures
from django_gomq.options import Receipt

MAX_KEPT: Final = 500
"""Events of all requests; each keeps its message alive."""
MAX_LISTED: Final = 100
"""Events of one request; the others are counted."""
_MAX_ERROR: Final = 200


class Emitted(msgspec.Struct, eq=False):
    """One event that a request emitted."""

    receipt: Receipt
    broker: Broker
    waits: bool
    """Whether it waited for a commit."""
    fates: dict[str, str] = msgspec.field(default_factory=dict)
    """What became of it, by the names of consumers that this process runs."""


class Emits(msgspec.Struct, eq=False):
    """What one request emitted, in its order."""

    listed: list[Emitted] = msgspec.field(default_factory=list)
    """The first hundred."""
    others: list[Receipt] = msgspec.field(default_factory=list)
    """Of the rest, until they are counted: before its end nobody knows their states."""


_kept: Final[OrderedDict[str, Emitted]] = OrderedDict()
_lock: Final = Lock()
_current: ContextVar[Emits | None] = ContextVar("gomq_toolbar", default=None)


def find(message_id: str) -> Emitted | None:
    """Return an event that this process has seen and still keeps."""
    return _kept.get(message_id)


class _RequestWatcher(Watcher):
    """Notes events for the request in whose context they are emitted."""

    def see(self, receipts: Sequence[Receipt], broker: Broker, *, waits: bool) -> None:
        emits = _current.get()
        # A task that outlives its request still has its context.
        if emits is None or emits not in _watching:
            return
        room = max(0, MAX_LISTED - len(emits.listed))
        emits.others += receipts[room:]
        for receipt in receipts[:room]:
            emitted = Emitted(receipt, broker, waits)
            emits.listed.append(emitted)
            _keep(emitted)


def _keep(emitted: Emitted) -> None:
    with _lock:
        _kept[emitted.receipt.message.id] = emitted
        while len(_kept) > MAX_KEPT:
            _kept.popitem(last=False)


_watcher: Final = _RequestWatcher()
_watching: Final[list[Emits]] = []


def begin(emits: Emits) -> None:
    """Have what this context emits from now on noted there. Idempotent."""
    _current.set(emits)
    with _lock:
        if emits in _watching:
            return
        _watching.append(emits)
        if _watcher not in captures:
            captures.append(_watcher)


def end(emits: Emits) -> None:
    """Note no more; where no request is watched, an emit costs what it did. Idempotent.

    To be called in the context of ``begin``.
    """
    if _current.get() is emits:
        _current.set(None)
    with _lock:
        if emits in _watching:
            _watching.remove(emits)
        if not _watching and _watcher in captures:
            captures.remove(_watcher)


class OutcomeHook(Hook):
    """Notes what handlers of this process make of events that requests emitted."""

    watches_attempts = True
    in_use = False
    """Whether the brokers of this process have one."""

    def __init__(self) -> None:
        type(self).in_use = True

    def attempting(self, attempt: Attempt) -> Watch | None:
        """Watch an attempt at something that is kept."""
        if not _kept:
            return None
        found = [_kept.get(message.id) for message in attempt.messages]
        if not any(found):
            return None
        return _OutcomeWatch(attempt.consumer.name, found, attempt.number)

    def dropped(
        self,
        broker: str,
        consumer: str,
        messages: Sequence[Message[Any]],
        reason: DropReason,
    ) -> None:
        """Note that the consumer will never see these."""
        for message in messages:
            if emitted := _kept.get(message.id):
                emitted.fates[consumer] = _dropped(reason)


class _OutcomeWatch(Watch):
    def __init__(
        self, consumer: str, found: Sequence[Emitted | None], number: int
    ) -> None:
        self._consumer = consumer
        self._found = found
        self._number = number

    def begin(self) -> None:
        for emitted in filter(None, self._found):
            emitted.fates[self._consumer] = f"in work, attempt {self._number}"

    def end(self, outcomes: Sequence[Outcome]) -> None:
        for emitted, outcome in zip(self._found, outcomes, strict=True):
            if emitted is not None:
                emitted.fates[self._consumer] = fate_of(outcome, self._number)


def fate_of(outcome: Outcome, attempt: int) -> str:
    """Say what came of an attempt."""
    if isinstance(outcome, Ack):
        return "handled" if attempt == 1 else f"handled, attempt {attempt}"
    if isinstance(outcome, Dropped):
        return _dropped(outcome.reason)
    if isinstance(outcome, DeadLettered):
        return f"given up, attempt {attempt}: {_error(outcome.error)}"
    if outcome.error is None:
        return f"again in {outcome.delay:.1f} s, as the handler asked"
    return (
        f"failed, attempt {attempt}, again in {outcome.delay:.1f} s: "
        f"{_error(outcome.error)}"
    )


def _dropped(reason: DropReason) -> str:
    return f"dropped: {reason.replace('_', ' ')}"


def _error(error: BaseException) -> str:
    return f"{class_name(error)}: {error}"[:_MAX_ERROR]
