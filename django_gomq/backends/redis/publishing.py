"""Hands messages to the server, and answers what became of each."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, Final

from redis.exceptions import OutOfMemoryError, ResponseError

from django_gomq.bus.errors import (
    BackendUnavailableError,
    NoConsumerError,
    PublishError,
    PublishTimeoutError,
    PublishUnknownError,
    QueueFullError,
)
from django_gomq.bus.message import Message

from .entries import EVENT, write
from .keys import Keys
from .scripts import DELAY, MAKE_STREAM
from .server import (
    AwayError,
    IdleConnections,
    Packable,
    ServerConnection,
    UnansweredError,
)

CHUNK: Final = 500
"""So many are sent before the first answer is read."""

Answer = PublishError | None


class Publisher:
    """Publishes for one process; thread-safe. Blocks for the server's answer."""

    def __init__(
        self,
        connections: IdleConnections,
        keys: Keys,
        timeout: float,
        broker: str,
        source: str,
    ) -> None:
        self._connections, self._timeout = connections, timeout
        self._keys, self._broker, self._source = keys, broker, source
        self._head = lru_cache(1024)(self._pack_head)

    def publish_one(self, message: Message[Any], timeout: float | None) -> Answer:
        """Answer None if the server has it, or the error; never raises for it."""
        if not message.delay:
            packed, connection = self._pack(message), self._connections.take()
            try:
                answer = connection.exchange(packed, timeout or self._timeout)
            except AwayError as error:
                return self.away(error)
            except UnansweredError as error:
                return self.read(message, error)
            finally:
                self._connections.give_back(connection)
            if answer.__class__ is bytes:
                return None
        # What is not plain, and what a server refused, goes the way of many.
        (told,) = self.publish([message], timeout)
        return told

    def publish(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[Answer]:
        """Answer None for each that the server has, or the error; never raises for it.

        What follows one that has no answer is not sent.
        """
        commands = [self._command(message) for message in messages]
        # A server's answer is waited for also by who would not wait for room.
        deadline = time.monotonic() + (timeout or self._timeout)
        answers: list[Answer] = []
        rest: Answer = None
        with self._connections.borrow() as connection:
            for start in range(0, len(messages), CHUNK):
                part = slice(start, start + CHUNK)
                try:
                    answers += self._publish(
                        connection, messages[part], commands[part], deadline
                    )
                except AwayError as error:
                    rest = self.away(error)
                    break
                if isinstance(answers[-1], PublishUnknownError):
                    rest = self.away(answers[-1])  # it must not overtake these
                    break
                if time.monotonic() > deadline:
                    rest = PublishTimeoutError(
                        "There was no time left to send it.", broker=self._broker
                    )
                    break
        return answers + [rest] * (len(messages) - len(answers))

    def _command(self, message: Message[Any]) -> Packable:
        if not message.delay:
            return self._pack(message)
        keys, stream = self._keys, self._keys.events(message.type)
        names = [stream, keys.later(stream), keys.serial]
        event = write(message, self._source)
        return DELAY(names, f"{message.delay * 1000:.0f}", EVENT, event)

    def _pack(self, message: Message[Any]) -> bytes:
        """Return an XADD as it is sent."""
        event = write(message, self._source)
        return b"%b$%d\r\n%b\r\n" % (self._head(message.type), len(event), event)

    def _pack_head(self, event_type: str) -> bytes:
        """Return its beginning, up to the event: the same for all of a type."""
        parts = ("XADD", self._keys.events(event_type), "NOMKSTREAM", "*", EVENT)
        packed = (
            b"$%d\r\n%b\r\n" % (len(part), part)
            for part in (
                each if isinstance(each, bytes) else each.encode() for each in parts
            )
        )
        return b"*%d\r\n%b" % (len(parts) + 1, b"".join(packed))

    def _publish(
        self,
        connection: ServerConnection,
        messages: Sequence[Message[Any]],
        commands: Sequence[Packable],
        deadline: float,
    ) -> list[Answer]:
        found: Sequence[Any]
        try:
            found = connection.ask(commands, max(0.001, deadline - time.monotonic()))
        except UnansweredError as error:
            found = [*error.answers, *[error] * (len(commands) - len(error.answers))]
        answers = [
            None if answer.__class__ is bytes else self.read(message, answer)
            for message, answer in zip(messages, found, strict=True)
        ]
        missing = [nth for nth, answer in enumerate(found) if answer is None]
        if missing:
            self._publish_first(
                connection, messages, commands, missing, answers, deadline
            )
        return answers

    def read(self, message: Message[Any], answer: Any) -> Answer:
        """Return what the server's answer to a message says, None where it has it."""
        if isinstance(answer, UnansweredError):
            return PublishUnknownError(
                f"The server did not answer: {answer}",
                event=message.type,
                broker=self._broker,
            )
        if answer is None:
            return NoConsumerError(
                f"{message.type}: no consumer of it is set up at the server.",
                event=message.type,
                broker=self._broker,
            )
        if isinstance(answer, OutOfMemoryError):
            return QueueFullError(
                f"{message.type}: the server has no memory left: raise its maxmemory, "
                f"or have what waits handled: {answer}",
                event=message.type,
                broker=self._broker,
            )
        return self.away(answer) if isinstance(answer, ResponseError) else None

    def away(self, error: Exception) -> BackendUnavailableError:
        """Return what says that nothing was published."""
        return BackendUnavailableError(f"Redis: {error}", broker=self._broker)

    def _publish_first(
        self,
        connection: ServerConnection,
        messages: Sequence[Message[Any]],
        commands: Sequence[Packable],
        missing: Sequence[int],
        answers: list[Answer],
        deadline: float,
    ) -> None:
        """Publish what is the first of its type, and which some pattern matches."""
        types = {messages[nth].type for nth in missing}
        try:
            made = self.make_streams(connection, types, deadline)
            again = [nth for nth in missing if messages[nth].type in made]
            if again:
                found = self._publish(
                    connection,
                    [messages[nth] for nth in again],
                    [commands[nth] for nth in again],
                    deadline,
                )
                for nth, answer in zip(again, found, strict=True):
                    answers[nth] = answer
        except (AwayError, UnansweredError, ResponseError) as error:
            for nth in missing:  # by that nothing was published
                answers[nth] = self.away(error)

    def make_streams(
        self, connection: ServerConnection, types: Collection[str], deadline: float
    ) -> set[str]:
        """Make what these types lack; return those that somebody consumes.

        Raises AwayError, UnansweredError and ResponseError.
        """
        keys, named = self._keys, sorted(types)
        names = [keys.consumers, keys.types, keys.version]
        asked = [MAKE_STREAM([*names, keys.events(each)], each) for each in named]
        left = max(0.001, deadline - time.monotonic())
        counts = connection.run(*asked, timeout=left)
        return {each for each, count in zip(named, counts, strict=True) if count}
