"""The one seam of observability: hooks watch, they never decide; know no thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

import msgspec

from .consumer import Consumer
from .errors import PublishError
from .message import Message
from .outcome import DropReason, Outcome, RetryAfter
from .stats import Remainder


class Attempt(msgspec.Struct, frozen=True):
    """What a handler is about to be given: one message, or a batch of them."""

    broker: str
    backend: str
    consumer: Consumer
    messages: Sequence[Message[Any]]
    number: int
    """The attempt, from 1; of a batch, that of its first message."""
    wait_seconds: float


class Watch:
    """What a hook does around one attempt, in the context that the handler runs in."""

    trace_id: str | None = None
    """The trace to show for this attempt, if it is kept."""

    def begin(self) -> None:
        """Run before the handler."""

    def end(self, outcomes: Sequence[Outcome]) -> None:
        """Run after the handler, whatever came of it; one outcome per message."""


EndOfPublish = Callable[[Exception | None], None]

Carry = Callable[[Message[Any]], bool]
LendContext = Callable[[Message[Any], Context], bool]


class Hook:
    """A no-op observer to derive from.

    Every method runs on the bus's own threads (``publishing`` and ``refused`` on the
    publisher's), and must not block.
    """

    watches_publishing = False
    watches_attempts = False
    """Ask for ``publishing`` and ``attempting``; read once, when a broker is made."""

    def publishing(
        self, broker: str, backend: str, message: Message[Any], parent: object
    ) -> EndOfPublish | None:
        """Run before a message is handed over; headers may still be added.

        ``parent`` is what ``capture_context`` returned at emit, or None. The function
        returned is called afterwards, with what the hand-over raised: a PublishError
        if the message was refused.
        """
        return None

    def capture_context(self) -> object:
        """Return what ``publishing`` needs of the moment of emit."""
        return None

    def attempting(self, attempt: Attempt) -> Watch | None:
        """Run before a handler; the watch it returns surrounds the handler."""
        return None

    keeps_little = False
    """Say so where ``carry`` and ``lend_context`` mostly answer True; read once."""

    def carry(self, message: Message[Any]) -> bool:
        """Return whether there is nothing to watch of publishing this message now.

        It may be given what it is to carry. Asked before ``publishing``, of the only
        watcher of publishing: a way around for messages of which nothing is kept.
        """
        return False

    def lend_context(self, message: Message[Any], context: Context) -> bool:
        """Return whether a handler may run in this context, unwatched.

        It holds nothing but what was set in it for the message before. Asked before
        ``attempting``, of the only watcher of attempts. A watch costs microseconds:
        this is the way around for attempts of which nothing is kept.
        """
        return False

    def refused(self, broker: str, event: str, error: PublishError) -> None:
        """Run after a message was refused."""

    def unconsumed(self, broker: str, event: str) -> None:
        """Run after an event was emitted that nobody subscribes to."""

    def dropped(
        self,
        broker: str,
        consumer: str,
        messages: Sequence[Message[Any]],
        reason: DropReason,
    ) -> None:
        """Run after messages were dropped for a consumer."""

    def retrying(
        self,
        broker: str,
        consumer: str,
        message: Message[Any],
        attempt: int,
        outcome: RetryAfter,
    ) -> None:
        """Run after an attempt that will be followed by another."""

    def dead_lettered(
        self,
        broker: str,
        consumer: str,
        message: Message[Any],
        attempt: int,
        error: BaseException,
    ) -> None:
        """Run after a consumer gave a message up."""

    def overran(self, broker: str, consumer: str, seconds: float) -> None:
        """Run, once, when a sync handler has run longer than its ``timeout``."""

    def loop_blocked(self, consumer: str, seconds: float, where: str) -> None:
        """Run, once, when an async handler has blocked the loop, in these calls."""

    def batch_failed(
        self, broker: str, consumer: str, size: int, error: BaseException
    ) -> None:
        """Run when a batch failed and its members are tried one by one."""

    def failed(self, part: str, error: BaseException) -> None:
        """Run when a part of the bus itself failed and goes on."""

    def stopped(self, broker: str, remainder: Remainder) -> None:
        """Run after a broker has stopped."""
