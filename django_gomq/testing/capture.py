"""Captured events: what a test may ask of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, overload

from django_gomq.bus.event import EventMeta
from django_gomq.bus.message import Message

from .modes import is_live

KEPT_OUTSIDE: Final = 1000  # what nobody captures is kept no longer than this


class _Entry:
    """One captured message; hidden while the test's own atomic block is open."""

    __slots__ = ("is_open", "message")

    def __init__(self, message: Message[Any], is_open: Callable[[], bool]) -> None:
        self.message = message
        self.is_open = is_open


class CapturedEvents(Sequence[Message[Any]]):
    """The messages that were emitted, in order, as if every commit had been real.

    What was emitted inside an atomic block of the test's own appears when the
    outermost such block is left, and never if it was rolled back.
    """

    def __init__(self, most: int | None = None) -> None:
        self._entries: deque[_Entry] = deque(maxlen=most)

    def record(
        self, message: Message[Any], is_open: Callable[[], bool] = lambda: False
    ) -> Callable[[], None]:
        """Add a message; return the function that takes it back after a rollback."""
        entry = _Entry(message, is_open)
        self._entries.append(entry)
        return lambda: self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        if entry in self._entries:
            self._entries.remove(entry)

    def clear(self) -> None:
        """Forget everything captured so far."""
        self._entries.clear()

    @property
    def messages(self) -> list[Message[Any]]:
        """The messages whose blocks are left."""
        return [entry.message for entry in self._entries if not entry.is_open()]

    def of(self, event: str | EventMeta) -> list[Message[Any]]:
        """Return the messages of one event type, named by text or Event class."""
        wanted = _type_of(event)
        return [message for message in self.messages if message.type == wanted]

    def assert_emitted(
        self, event: str | EventMeta, /, *, times: int | None = None, **data: Any
    ) -> list[Message[Any]]:
        """Return the messages of this type whose data has these values.

        Raises AssertionError if there is none, or not ``times`` of them; ``times=0``
        asserts that there is none.
        """
        found = [message for message in self.of(event) if _has(message.data, data)]
        is_right = bool(found) if times is None else len(found) == times
        if not is_right:
            wanted = "at least once" if times is None else f"{times} times"
            matching = f" with {data!r}" if data else ""
            raise AssertionError(
                f"{_type_of(event)!r}{matching} was emitted {len(found)} times, not "
                f"{wanted}. Emitted: {self._summary()}."
            )
        return found

    def _summary(self) -> str:
        lines = [f"{message.type} {message.body.decode()}" for message in self.messages]
        return "; ".join(lines) or "nothing"

    @overload
    def __getitem__(self, index: int) -> Message[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message[Any]]: ...
    def __getitem__(self, index: int | slice) -> Message[Any] | list[Message[Any]]:
        """Return one message, or some."""
        return self.messages[index]

    def __len__(self) -> int:
        """How many messages were emitted."""
        return len(self.messages)


def _type_of(event: str | EventMeta) -> str:
    return event.__event_type__ if isinstance(event, EventMeta) else event


def _has(data: Any, wanted: dict[str, Any]) -> bool:
    missing = object()
    for name, value in wanted.items():
        if isinstance(data, dict):
            found = data.get(name, missing)
        else:
            found = getattr(data, name, missing)
        if found is missing or found != value:
            return False
    return True


captures: Final[list[CapturedEvents]] = []
"""The open ``capture()`` blocks, innermost last."""

_outside = CapturedEvents(KEPT_OUTSIDE)


def sink() -> CapturedEvents | None:
    """Return where an event goes now; None if it is to be published for real."""
    if captures:
        return captures[-1]
    return None if is_live() else _outside


@contextmanager
def capture() -> Iterator[CapturedEvents]:
    """Collect what is emitted inside the block, by any thread of this process.

    Nothing is published and no handler runs. Usable in every kind of TestCase, and
    outside tests too.
    """
    captured = CapturedEvents()
    captures.append(captured)
    try:
        yield captured
    finally:
        captures.remove(captured)


def assert_emitted(
    event: str | EventMeta, /, *, times: int | None = None, **data: Any
) -> list[Message[Any]]:
    """Assert on the innermost ``capture()``; see CapturedEvents.assert_emitted."""
    if not captures:
        raise AssertionError(
            "assert_emitted() needs a capture() block around it, or the gomq_events "
            "fixture: without one, events of earlier tests would count too."
        )
    return captures[-1].assert_emitted(event, times=times, **data)
