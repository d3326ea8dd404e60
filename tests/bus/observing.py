"""A hook that keeps what it is told, for tests to look at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from django_gomq.bus.backend import Capabilities
from django_gomq.bus.counts import Labels, PublishCounts
from django_gomq.bus.delivery import DropReason, Outcome, RetryAfter
from django_gomq.bus.errors import PublishError
from django_gomq.bus.hooks import Attempt, Hook, Hooks, Watch
from django_gomq.bus.message import Message
from django_gomq.bus.publisher import InstrumentedPublisher
from django_gomq.bus.stats import Remainder


class Recorder(Hook):
    """Notes each call as (name, what matters)."""

    def __init__(self) -> None:
        self.calls: deque[tuple[str, Any]] = deque()
        self.flush: Callable[[], object] = lambda: None
        """Waits until we have heard of all so far; of the broker that we watch."""

    def named(self, name: str) -> list[Any]:
        self.flush()
        return [what for called, what in self.calls if called == name]

    def refused(self, broker: str, event: str, error: PublishError) -> None:
        self.calls.append(("refused", (event, error.code)))

    def unknown(self, broker: str, event: str, error: PublishError) -> None:
        self.calls.append(("unknown", (event, error.code)))

    def unconsumed(self, broker: str, event: str) -> None:
        self.calls.append(("unconsumed", event))

    def dropped(
        self,
        broker: str,
        consumer: str,
        messages: Sequence[Message[Any]],
        reason: DropReason,
    ) -> None:
        self.calls.append(("dropped", (consumer, len(messages), reason)))

    def retrying(
        self,
        broker: str,
        consumer: str,
        message: Message[Any],
        attempt: int,
        outcome: RetryAfter,
    ) -> None:
        self.calls.append(("retrying", (consumer, attempt, outcome)))

    def dead_lettered(
        self,
        broker: str,
        consumer: str,
        message: Message[Any],
        attempt: int,
        error: BaseException,
    ) -> None:
        self.calls.append(("dead_lettered", (consumer, attempt, error)))

    def overran(self, broker: str, consumer: str, seconds: float) -> None:
        self.calls.append(("overran", (consumer, seconds)))

    def loop_blocked(self, consumer: str, seconds: float, where: str) -> None:
        self.calls.append(("loop_blocked", (consumer, seconds, where)))

    def batch_failed(
        self, broker: str, consumer: str, size: int, error: BaseException
    ) -> None:
        self.calls.append(("batch_failed", (consumer, size, error)))

    def failed(self, part: str, error: BaseException) -> None:
        self.calls.append(("failed", (part, error)))

    def stopped(self, broker: str, remainder: Remainder) -> None:
        self.calls.append(("stopped", remainder))


class Watcher(Recorder):
    """Notes publishing and attempts too."""

    watches_publishing = True
    watches_attempts = True
    trace_id: str | None = None

    def publishing(
        self, broker: str, backend: str, message: Message[Any], parent: object
    ) -> Callable[[Exception | None], None]:
        self.calls.append(("publishing", (message.type, parent)))
        return lambda error: self.calls.append(("published", error))

    def capture_context(self) -> object:
        return "here"

    def attempting(self, attempt: Attempt) -> Watch:
        self.calls.append(("attempting", attempt))
        watch = _Watch(self)
        watch.trace_id = self.trace_id
        return watch


class _Watch(Watch):
    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def begin(self) -> None:
        self._watcher.calls.append(("begin", None))

    def end(self, outcomes: Sequence[Outcome]) -> None:
        self._watcher.calls.append(("end", list(outcomes)))


def hand_over(
    hooks: Hooks,
    raises: BaseException | None = None,
    parents: tuple[object, ...] = (),
    then: Callable[[], object] = lambda: None,
) -> None:
    """Publish a message of a.b while these hooks watch, to a backend that does this."""

    class Server:
        name = "memory"
        capabilities = Capabilities()

        def publish(self, message: Message[Any], timeout: float | None) -> None:
            then()
            if raises is not None:
                raise raises

        def publish_many(
            self, messages: Sequence[Message[Any]], timeout: float | None
        ) -> list[PublishError | None]:
            return [self.publish(message, timeout) for message in messages]

    server: Any = Server()
    publisher = InstrumentedPublisher("default", server, hooks, PublishCounts(Labels()))
    if parents:
        publisher.publish_many([MESSAGE], None, [parents])
    else:
        publisher.publish(MESSAGE, None)


MESSAGE: Message[Any] = Message("a.b")
