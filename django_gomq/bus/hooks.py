"""The observers of the bus: what each may hear, and how all of them are told."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final

import msgspec

from .consumer import Consumer
from .delivery import DropReason, Outcome, RetryAfter
from .errors import PublishError, class_name
from .message import Message
from .process.fork import is_bus_thread
from .process.housekeeping import Housekeeping, write_log
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

PropagateUnsampled = Callable[[Message[Any]], bool]
EnterUnsampled = Callable[[Message[Any], Context], bool]


class Hook:
    """A no-op observer to derive from.

    What tells of something that has happened, from ``refused`` to ``stopped``, runs on
    the housekeeping thread, one call after the other, in a copy of the context where it
    happened. It may block: that delays what other observers hear, and nothing else.
    What surrounds a publish or a handler runs on the thread of these and must not.
    Whatever a method raises is counted, logged once, and reaches nobody.
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

    has_unsampled_path = False
    """Say so where the two below mostly answer True; read once."""

    def propagate_unsampled(self, message: Message[Any]) -> bool:
        """Return whether there is nothing to watch of publishing this message now.

        It may be given a ``trace_context`` to carry. Asked before ``publishing``, of
        the only watcher of publishing: a way around for messages of which nothing is
        kept.
        """
        return False

    def enter_unsampled(self, message: Message[Any], context: Context) -> bool:
        """Return whether a handler may run in this context, unwatched.

        It holds nothing but what was set in it for the message before. Asked before
        ``attempting``, of the only watcher of attempts. A watch costs microseconds:
        this is the way around for attempts of which nothing is kept.
        """
        return False

    def refused(self, broker: str, event: str, error: PublishError) -> None:
        """Run after a message was refused."""

    def unknown(self, broker: str, event: str, error: PublishError) -> None:
        """Run after a server did not say whether it took a message."""

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
        """Hear, once, that a sync handler has run longer than its ``timeout``."""

    def loop_blocked(self, consumer: str, seconds: float, where: str) -> None:
        """Hear, once, that an async handler has blocked the loop, in these calls."""

    def batch_failed(
        self, broker: str, consumer: str, size: int, error: BaseException
    ) -> None:
        """Run when a batch failed and its members are tried one by one."""

    def failed(self, part: str, error: BaseException) -> None:
        """Run when a part of the bus itself failed and goes on."""

    def draining(self, broker: str, left: int, seconds: float) -> None:
        """Run every five seconds while a broker finishes what it accepted.

        ``left`` counts the messages that wait, are scheduled or are in work.
        """

    def stopped(self, broker: str, remainder: Remainder) -> None:
        """Run after a broker has stopped."""


logger = logging.getLogger("gomq.hooks")

FLUSH_SECONDS: Final = 1.0  # what a stop gives observers beyond its drain

PROPAGATED: Final[tuple[object, ...]] = (object(),)
"""In the place of contexts: a message carries all there is, and nobody watches it."""


class Hooks:
    """Calls every hook in turn; a hook that raises is logged once and counted.

    Thread-safe. Nothing blocks but ``flush``, and no method raises what a hook does.
    """

    def __init__(
        self, hooks: Sequence[Hook] = (), housekeeping: Housekeeping | None = None
    ) -> None:
        """Without ``housekeeping`` hooks hear of all at once, on the same thread."""
        self._hooks = tuple(hooks)
        self.housekeeping = housekeeping
        self.publish_watchers = tuple(h for h in hooks if h.watches_publishing)
        self.attempt_watchers = tuple(h for h in hooks if h.watches_attempts)
        carrier = _only_one_with_unsampled_path(self.publish_watchers)
        self.propagate_unsampled: PropagateUnsampled | None = (
            None if carrier is None else carrier.propagate_unsampled
        )
        """The one watcher's way around ``publishing``, if it has one; it may raise."""
        lender = _only_one_with_unsampled_path(self.attempt_watchers)
        self.enter_unsampled: EnterUnsampled | None = (
            None if lender is None else lender.enter_unsampled
        )
        """The one watcher's way around a watch, if it has one; it may raise."""
        self.errors = Counter({class_name(hook): 0 for hook in self._hooks})
        """How often hooks raised, by class name of the hook."""

    def notify(self, call: Callable[[Hook], object]) -> None:
        """Have ``call`` run soon with each hook, on the housekeeping thread."""
        if self._hooks:
            self.hand_over(partial(self._tell_each, call))

    def hand_over(self, call: Callable[[], object]) -> None:
        """Have this run soon, in a copy of the context of now, as hooks do.

        For what observers and log lines need, and nobody waits for. What finds no room
        is counted as lost; see ``Housekeeping``.
        """
        if self.housekeeping is None:
            call()
        else:
            self.housekeeping.hand_over(partial(copy_context().run, call))

    def flush(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Wait until hooks have heard of all so far; return whether they have.

        Blocks up to ``timeout`` seconds, and not on the housekeeping thread.
        """
        return self.housekeeping is None or self.housekeeping.flush(timeout)

    def _tell_each(self, call: Callable[[Hook], object]) -> None:
        for hook in self._hooks:
            with self._isolated(hook):
                call(hook)

    def prepare(self, messages: Sequence[Message[Any]]) -> tuple[object, ...]:
        """Return what it takes to publish these later as if it were now."""
        return PROPAGATED if self.propagate_all(messages) else self.capture_contexts()

    def propagate_all(self, messages: Iterable[Message[Any]]) -> bool:
        """Have each carry what there is; return whether nobody is to watch them."""
        if self.propagate_unsampled is None:
            return not self.publish_watchers
        try:
            return all(map(self.propagate_unsampled, messages))
        except Exception:  # noqa: BLE001 - a hook's bug
            return self.note_propagate_failure()

    def capture_contexts(self) -> tuple[object, ...]:
        """Return what each watcher of publishing needs of this moment."""
        captured: list[object] = []
        for hook in self.publish_watchers:
            captured.append(None)
            with self._isolated(hook):
                captured[-1] = hook.capture_context()
        return tuple(captured)

    def before_publish(
        self,
        broker: str,
        backend: str,
        message: Message[Any],
        parents: Sequence[object] = (),
    ) -> Sequence[tuple[Hook, EndOfPublish]]:
        """Run before one message is handed over; return what to run afterwards."""
        ends: list[tuple[Hook, EndOfPublish]] | None = None
        for index, hook in enumerate(self.publish_watchers):
            parent = parents[index] if parents else None
            try:
                end = hook.publishing(broker, backend, message, parent)
            except Exception:  # noqa: BLE001 - a hook's bug
                self._note_failure(hook)
                continue
            if end is not None:
                ends = [*(ends or ()), (hook, end)]
        return ends or ()

    def after_publish(
        self,
        ends: Sequence[tuple[Hook, EndOfPublish]],
        error: Exception | None,
    ) -> None:
        """Run after it, with what the hand-over raised."""
        for hook, end in reversed(ends):
            with self._isolated(hook):
                end(error)

    def attempting(self, attempt: Attempt) -> list[tuple[Hook, Watch]]:
        """Begin the watches of one attempt, in the current context."""
        watches = []
        for hook in self.attempt_watchers:
            with self._isolated(hook):
                watch = hook.attempting(attempt)
                if watch is not None:
                    watch.begin()
                    watches.append((hook, watch))
        return watches

    def attempted(
        self, watches: Sequence[tuple[Hook, Watch]], outcomes: Sequence[Outcome]
    ) -> None:
        """End the watches of one attempt, in the context where they began."""
        for hook, watch in reversed(watches):
            with self._isolated(hook):
                watch.end(outcomes)

    @contextmanager
    def _isolated(self, hook: Hook) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            # Elsewhere it may be a signal handler's, which is not the hook's doing.
            if not isinstance(error, Exception) and not is_bus_thread():
                raise
            self._note_failure(hook)

    def note_propagate_failure(self) -> bool:
        """Note what ``propagate_unsampled`` raised; the message is published."""
        self._note_failure(self.publish_watchers[0])
        return True

    def note_enter_failure(self) -> bool:
        """Note what ``enter_unsampled`` raised; the attempt is watched."""
        self._note_failure(self.attempt_watchers[0])
        return False

    def _note_failure(self, hook: Hook) -> None:
        """Count, and log the first time, what is being handled."""
        kind = class_name(hook)
        self.errors[kind] += 1
        if self.errors[kind] == 1:
            line = partial(
                write_log,
                logger,
                logging.ERROR,
                "A hook raised; the bus goes on, further errors are only counted",
                fields={"gomq_hook": kind},
                error=sys.exc_info()[1],
            )
            self.hand_over(line)


def _only_one_with_unsampled_path(watchers: Sequence[Hook]) -> Hook | None:
    return (
        watchers[0] if len(watchers) == 1 and watchers[0].has_unsampled_path else None
    )
