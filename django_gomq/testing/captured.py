"""Captured events: what a test may ask of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast, overload

from django_gomq.bus.event import Event, EventMeta
from django_gomq.bus.message import Message
from django_gomq.capturing import LIVE, Capture, captures

from .expectation import Expectation, Where, type_of

E = TypeVar("E", bound=Event)


class Assertions(ABC):
    """What a test may assert of messages that were emitted."""

    @abstractmethod
    def _emitted(self) -> Sequence[Message[Any]]:
        """Return them, in order."""

    @overload
    def assert_emitted(
        self,
        event: type[E],
        /,
        *,
        data: Any = ...,
        where: Where | None = ...,
        count: int | None = ...,
        key: str | None = ...,
    ) -> list[Message[E]]: ...
    @overload
    def assert_emitted(
        self,
        event: str,
        /,
        *,
        data: Any = ...,
        where: Where | None = ...,
        count: int | None = ...,
        key: str | None = ...,
    ) -> list[Message[Any]]: ...
    def assert_emitted(
        self,
        event: Any,
        /,
        *,
        data: Any = None,
        where: Where | None = None,
        count: int | None = None,
        key: str | None = None,
    ) -> list[Message[Any]]:
        """Return the messages of this type, or pattern of types, that are as expected.

        ``data`` is a dict with a part of the data: other fields may have any value,
        also inside of nested ones. What is no dict is compared as a whole. ``where`` is
        called with the data. Raises AssertionError if there is none, or not ``count``
        of them.
        """
        wanted = Expectation(event, data, where, key)
        emitted = self._emitted()
        found = [message for message in emitted if wanted.matches(message)]
        is_right = bool(found) if count is None else len(found) == count
        if not is_right:
            often = "at least once" if count is None else _times(count)
            raise AssertionError(
                f"{wanted} was emitted {_times(len(found))}, not {often}.\n"
                f"{wanted.explain(emitted)}"
            )
        return found

    def assert_not_emitted(
        self,
        event: str | EventMeta,
        /,
        *,
        data: Any = None,
        where: Where | None = None,
        key: str | None = None,
    ) -> None:
        """Raise AssertionError if a message is as said; see ``assert_emitted``."""
        wanted = Expectation(event, data, where, key)
        emitted = self._emitted()
        found = sum(1 for message in emitted if wanted.matches(message))
        if found:
            raise AssertionError(
                f"{wanted} was emitted {_times(found)}, and should not have been.\n"
                f"{wanted.explain(emitted)}"
            )

    def assert_nothing_emitted(self) -> None:
        """Raise AssertionError if there is any message."""
        emitted = self._emitted()
        if emitted:
            raise AssertionError(
                f"{len(emitted)} event{'s' * (len(emitted) != 1)} emitted, where there "
                f"should be none.\n{Expectation('*').explain(emitted)}"
            )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


class CapturedEvents(Capture, Assertions, Sequence[Message[Any]]):
    """The messages that were emitted, in order, as if every commit had been real.

    What was emitted inside an atomic block of the test's own appears when the
    outermost such block is left, and never if it was rolled back.
    """

    @property
    def messages(self) -> list[Message[Any]]:
        """The messages whose blocks are left."""
        return [entry.message for entry in list(self.entries) if not entry.is_open()]

    @overload
    def of(self, event: type[E]) -> list[Message[E]]: ...
    @overload
    def of(self, event: str) -> list[Message[Any]]: ...
    def of(self, event: Any) -> list[Message[Any]]:
        """Return the messages of one event type, named by text or Event class."""
        wanted = type_of(event)
        return [message for message in self.messages if message.type == wanted]

    def _emitted(self) -> Sequence[Message[Any]]:
        return self.messages

    def clear(self) -> None:
        """Forget everything captured so far."""
        self.entries.clear()

    @overload
    def __getitem__(self, index: int) -> Message[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message[Any]]: ...
    def __getitem__(self, index: int | slice) -> Message[Any] | list[Message[Any]]:
        """Return one message, or some."""
        return self.messages[index]

    def __iter__(self) -> Iterator[Message[Any]]:
        """Iterate over the messages that there are now."""
        # Sequence asks for each index, and each makes the whole list anew.
        return iter(self.messages)

    def __reversed__(self) -> Iterator[Message[Any]]:
        """Iterate over them, latest first."""
        return iter(self.messages[::-1])

    def __len__(self) -> int:
        """How many messages were emitted."""
        return len(self.messages)


@contextmanager
def opened(captured: Capture) -> Iterator[None]:
    """Have events go there inside the block."""
    captures.append(captured)
    try:
        yield
    finally:
        captures.remove(captured)


@contextmanager
def capture(
    only: str | EventMeta | Iterable[str | EventMeta] = (),
) -> Iterator[CapturedEvents]:
    """Collect what is emitted inside the block, by any thread of this process.

    Nothing of it is published and no handler runs. ``only`` are event types, patterns
    such as ``"billing.*"`` and Event classes; all other events go where they would
    without the block. Usable in every kind of TestCase, and outside tests too.
    """
    if isinstance(only, str | EventMeta):
        only = [only]
    captured = CapturedEvents([type_of(event) for event in only])
    with opened(captured):
        yield captured


class OfInnermost(Assertions):
    """Looks at the innermost block that is open."""

    def _emitted(self) -> Sequence[Message[Any]]:
        if captures and captures[-1] is LIVE:
            raise AssertionError(
                "Inside live() events are published, not captured: look at what the "
                "handlers did after drain(), or open a capture() inside."
            )
        if not captures:
            raise AssertionError(
                "There is no capture() or inline() block around this, and no fixture "
                "gomq or gomq_events: without one, events of earlier tests would count "
                "too."
            )
        return cast("CapturedEvents", captures[-1]).messages


_innermost: Final = OfInnermost()
assert_emitted = _innermost.assert_emitted
assert_not_emitted = _innermost.assert_not_emitted
assert_nothing_emitted = _innermost.assert_nothing_emitted
