"""The publishers' half of a broker: the hot path of every publish and emit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from .errors import PublishError
from .life import Life, Publish
from .message import MAX_PRIORITY, NO_HEADERS, Message, validate
from .process import mark
from .received import original


class Publishing(ABC):
    """Hands messages over; thread-safe. Waits only where given a timeout."""

    _max_body_bytes: int
    _publish: Publish | None
    """The life's own, as long as it runs in this process."""

    @abstractmethod
    def _living(self) -> Life:
        """Return the broker's life in this process, begun now if need be."""

    @abstractmethod
    def _enliven(self, message: Message[Any]) -> Life:
        """Return the life of this process, started, or refuse the message."""

    def publish(self, message: Message[Any], *, timeout: float | None = None) -> None:
        """Hand one message over now.

        Waits for room only when given a ``timeout`` in seconds, and never on a thread
        of the bus. Raises the PublishError that says why it was refused, which is
        counted too; MessageError or ConfigurationError for what can never work.
        """
        # The hot path of every publish. A plain message fulfils all this without a
        # call, and hand_over stands here once more: a call costs 45 ns of 400.
        publish = self._publish
        if (
            publish is None
            or not mark[0]
            or type(message) is not Message
            or type(message.body) is not bytes
            or len(message.body) > self._max_body_bytes
            or type(message.priority) is not int
            or not 0 <= message.priority <= MAX_PRIORITY
            or message.key is not None
            or message.headers is not NO_HEADERS
            or message.delay
        ):
            validate(message, max_body_bytes=self._max_body_bytes)
            self.hand_over(message, timeout)
            return
        try:
            publish(message, timeout)
        except PublishError as error:
            self._refuse(message, error)
            raise

    def hand_over(self, message: Message[Any], timeout: float | None) -> None:
        """Publish a message that was validated; else as ``publish``."""
        publish = self._publish
        if type(message) is not Message:
            message = original(message)
        if publish is None or not mark[0]:
            publish = self._enliven(message).publish
        try:
            publish(message, timeout)
        except PublishError as error:
            self._refuse(message, error)
            raise

    def _refuse(self, message: Message[Any], error: PublishError) -> None:
        self._living().handover.refuse(message, error)

    def check(self, message: Message[Any]) -> None:
        """Raise what ``publish`` would raise at any time, for a message as this.

        That is MessageError and ConfigurationError; a full queue is none of these.
        """
        validate(message, max_body_bytes=self._max_body_bytes)
        self._living().backend.check(message)

    def publish_many(
        self, messages: Sequence[Message[Any]], *, timeout: float | None = None
    ) -> list[PublishError | None]:
        """Hand messages over in order; answer, for each, None or why it was refused.

        ``timeout`` bounds the whole call, in seconds. Raises MessageError or
        ConfigurationError for what can never work, before anything is handed over.
        """
        messages = [original(message) for message in messages]
        for message in messages:
            validate(message, max_body_bytes=self._max_body_bytes)
        backend = self._living().backend
        for message in messages:
            backend.check(message)
        return self.hand_over_many(messages, timeout)

    def hand_over_many(
        self,
        messages: Sequence[Message[Any]],
        timeout: float | None,
        parents: Sequence[tuple[object, ...]] = (),
        answers: list[PublishError | None] | None = None,
    ) -> list[PublishError | None]:
        """Publish messages that were checked; else as ``publish_many``.

        ``parents`` are what ``hooks.prepare`` returned for each. ``answers``,
        an empty list, has what is known so far if this is interrupted.
        """
        handover = self._living().handover
        try:
            if messages:
                self._enliven(messages[0])
        except PublishError as error:
            handover.refuse_all(messages[1:], error)
            return [error] * len(messages)
        return handover.publish_many(messages, timeout, parents, answers)

    def count_rolled_back(self, event: str, count: int = 1) -> None:
        """Count messages that a rollback took back before they were published."""
        self._living().refusals.count_rolled_back(event, count)
