"""From a broker to its backend: hooks watch each message, every refusal is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from threading import Lock
from typing import Any, Final, cast

from .backend import Backend
from .counts import OperationTimes, PublishCounts
from .errors import (
    BackendUnavailableError,
    NoConsumerError,
    PublishError,
    PublishUnknownError,
)
from .hooks import PROPAGATED, EndOfPublish, Hook, Hooks, PropagateUnsampled
from .message import Message
from .process.clock import Clock

FIRST_PAUSE: Final = 0.05  # seconds in which a server that is away is not tried again
MAX_PAUSE: Final = 2.0
PUBLISH: Final = "publish"
"""The operation, in the times of a server."""

Ends = Sequence[tuple[Hook, EndOfPublish]]


class Link:
    """Whether a server is known to be away, so that nobody else waits for it.

    One caller tries again after a pause, which grows; all others are refused at once.
    Thread-safe, never blocks.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._failed: BackendUnavailableError | None = None
        self._try_at = 0.0
        self._pause = FIRST_PAUSE
        self.reconnects = 0
        """How often the server answered again after it had not."""

    def refusal(self, event: str) -> BackendUnavailableError | None:
        """Return the error where the server is known to be away; None: try it."""
        failed = self._failed
        if failed is None:
            return None
        with self._lock:
            now = Clock.monotonic()
            if now >= self._try_at:
                self._try_at = now + self._pause  # we try; nobody else does meanwhile
                return None
        return BackendUnavailableError(str(failed), event=event, broker=failed.broker)

    @property
    def is_up(self) -> bool:
        """Whether the server answered last."""
        return self._failed is None

    def note(self, error: PublishError | None) -> None:
        """Note how a try ended."""
        if isinstance(error, BackendUnavailableError):
            with self._lock:
                self._failed = error
                self._try_at = Clock.monotonic() + self._pause
                self._pause = min(MAX_PAUSE, 2 * self._pause)
        elif self._failed is not None and not isinstance(error, PublishUnknownError):
            with self._lock:
                self.reconnects += self._failed is not None
                self._failed, self._pause = None, FIRST_PAUSE


class InstrumentedPublisher:
    """Hands valid messages to a backend; thread-safe."""

    def __init__(
        self, broker: str, backend: Backend, hooks: Hooks, refusals: PublishCounts
    ) -> None:
        self._broker = broker
        self._backend = backend
        self._backend_name = backend.name
        self._link = Link()
        self.times = OperationTimes(PUBLISH)
        self._has_server = backend.capabilities.settles
        # Memory is never away: one call less for every publish.
        self._publish = self._publish_linked if self._has_server else backend.publish
        self._hooks = hooks
        # None where nobody calls publish_unsampled: to ask takes 20 ns each time.
        self._propagate = cast("PropagateUnsampled", hooks.propagate_unsampled)
        self._refusals = refusals
        self.publish = self._publish
        """Publishes one message, or raises the PublishError that says why not."""
        if hooks.propagate_unsampled is not None:
            self.publish = self._publish_unsampled
        elif hooks.publish_watchers:
            self.publish = self._publish_watched

    @property
    def is_linked(self) -> bool:
        """Whether the server answered the last publish, if it was asked."""
        return self._link.is_up

    @property
    def reconnects(self) -> int:
        """How often the server answered a publish again after it had not."""
        return self._link.reconnects

    def _publish_linked(self, message: Message[Any], timeout: float | None) -> None:
        refusal = self._link.refusal(message.type)
        if refusal is not None:
            raise refusal
        try:
            self.times.run(PUBLISH, self._backend.publish, message, timeout)
        except PublishError as error:
            self._link.note(error)
            raise
        self._link.note(None)
        self._refusals.count_accepted(message.type)

    def _publish_unsampled(self, message: Message[Any], timeout: float | None) -> None:
        """Publish one message of which the only watcher keeps nothing, or watched."""
        # The hot path of every publish and emit where traces are on.
        try:
            keeps_nothing = self._propagate(message)
        except Exception:  # noqa: BLE001 - a hook's bug
            keeps_nothing = self._hooks.note_propagate_failure()
        if keeps_nothing:
            self._publish(message, timeout)
        else:
            self._publish_watched(message, timeout)

    def _publish_watched(self, message: Message[Any], timeout: float | None) -> None:
        """Publish one message while the hooks watch."""
        ends = self._begin(message)
        if not ends:
            self._publish(message, timeout)
            return
        error: Exception | None = None
        try:
            self._publish(message, timeout)
        except Exception as raised:
            error = raised
            raise
        finally:
            self._hooks.after_publish(ends, error)

    def _begin(self, message: Message[Any], parents: Sequence[object] = ()) -> Ends:
        hooks, backend = self._hooks, self._backend_name
        return hooks.before_publish(self._broker, backend, message, parents)

    def publish_many(
        self,
        messages: Sequence[Message[Any]],
        timeout: float | None,
        parents: Sequence[tuple[object, ...]] = (),
    ) -> list[PublishError | None]:
        """Publish what can be published; see ``Broker.publish_many``."""
        watched = self._begin_all(messages, parents)
        answers: Sequence[PublishError | None] = ()
        try:
            answers = self._publish_linked_many(messages, timeout)
        finally:
            for ends, error in zip(watched, [*answers, *watched], strict=False):
                if ends:
                    failed = error if isinstance(error, Exception) else None
                    self._hooks.after_publish(ends, failed)
        if any(answers):
            for message, answer in zip(messages, answers, strict=True):
                if answer is not None:
                    self.refuse(message, answer)
        return list(answers)

    def _begin_all(
        self, messages: Sequence[Message[Any]], parents: Sequence[tuple[object, ...]]
    ) -> Sequence[Ends]:
        if parents:
            if all(context is PROPAGATED for context in parents):
                return ()
        elif self._hooks.propagate_all(messages):
            return ()
        else:
            parents = [()] * len(messages)
        return [
            () if context is PROPAGATED else self._begin(message, context)
            for message, context in zip(messages, parents, strict=True)
        ]

    def _publish_linked_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> Sequence[PublishError | None]:
        if not messages:
            return ()
        refusal = self._link.refusal(messages[0].type)
        if refusal is not None:
            return [refusal] * len(messages)
        publish = self._backend.publish_many
        if not self._has_server:
            return publish(messages, timeout)
        answers = self.times.run(PUBLISH, publish, messages, timeout)
        self._link.note(_of_the_server(answers))
        self._count_accepted(messages, answers)
        return answers

    def _count_accepted(
        self, messages: Sequence[Message[Any]], answers: Sequence[PublishError | None]
    ) -> None:
        pairs = zip(messages, answers, strict=True)
        taken = Counter(message.type for message, answer in pairs if answer is None)
        for event, count in taken.items():
            self._refusals.count_accepted(event, count)

    def publish_in_transaction(
        self,
        messages: Sequence[Message[Any]],
        using: str,
        parents: Sequence[tuple[object, ...]] = (),
    ) -> None:
        """Write messages into an open transaction while the hooks watch."""
        watched = self._begin_all(messages, parents)
        error: Exception | None = None
        try:
            write = self._backend.publish_in_transaction
            self.times.run(PUBLISH, write, messages, using)
        except Exception as raised:
            error = raised
            raise
        finally:
            for ends in watched:
                self._hooks.after_publish(ends, error)

    def refuse_all(self, messages: Sequence[Message[Any]], error: PublishError) -> None:
        """Count and report messages that were not taken for one reason."""
        for message in messages:
            self.refuse(message, error)

    def refuse(self, message: Message[Any], error: PublishError) -> None:
        """Count and report a message that was not taken, or perhaps not."""
        event, broker = message.type, self._broker
        if isinstance(error, NoConsumerError):
            self._refusals.count_unconsumed(event)
            self._hooks.notify(lambda hook: hook.unconsumed(broker, event))
        elif isinstance(error, PublishUnknownError):
            self._refusals.count_unknown(event)
            self._hooks.notify(lambda hook: hook.unknown(broker, event, error))
        else:
            self._refusals.count_refused(event, error.code)
            self._hooks.notify(lambda hook: hook.refused(broker, event, error))


def _of_the_server(answers: Sequence[PublishError | None]) -> PublishError | None:
    """Return what they say of the server: of some it need not have been asked."""
    away = (each for each in answers if isinstance(each, BackendUnavailableError))
    return next(away, answers[-1]) if any(answers) else None
