"""What a test expects of an event, and how what was emitted differs from it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import msgspec

from django_gomq.bus.data.codec import JsonCodec
from django_gomq.bus.errors import EncodeError, did_you_mean
from django_gomq.bus.event import Event, EventMeta
from django_gomq.bus.message import Message
from django_gomq.bus.patterns import Pattern
from django_gomq.emitters import adapt

SHOWN: Final = 10  # so many events stand in a failure, each as long as this at most
SHOWN_LENGTH: Final = 160
_VALUE_LENGTH: Final = 80
_DIFFERENCES: Final = 5
_MISSING: Final = object()
_CODEC: Final = JsonCodec(adapt)  # as that of a site

Where = Callable[[Any], object]


class Expectation:
    """An event type with what its data, its key and a function of the test say.

    Raises TypeError for what is no event type, and AssertionError for a field that the
    Event class does not have: it could match nothing.
    """

    def __init__(
        self,
        event: str | EventMeta,
        data: Any = None,
        where: Where | None = None,
        key: str | None = None,
    ) -> None:
        self.type = type_of(event)
        self._pattern = Pattern(self.type)
        self._data = data
        self._where = where
        self._key = key
        if isinstance(event, EventMeta):
            _check_fields(event, data)

    def is_of_type(self, message: Message[Any]) -> bool:
        """Whether the message is of this type, or matches this pattern."""
        return self._pattern.matches(message.type)

    def matches(self, message: Message[Any]) -> bool:
        """Whether the message is all that is expected."""
        return self.is_of_type(message) and not any(self._differences(message))

    def _differences(self, message: Message[Any]) -> Iterator[str]:
        if self._key is not None and message.key != self._key:
            yield f"key is {_short(message.key)}, not {_short(self._key)}"
        data = message.data
        found = [] if self._data is None else list(_differing(data, self._data, ""))
        yield from found
        # Asked last: what it relies on may be what differs.
        if not found and self._where is not None and not self._where(data):
            yield "where() does not hold"

    def explain(self, messages: Sequence[Message[Any]]) -> str:
        """Return what was emitted instead, the nearest first; bounded in length."""
        if not messages:
            return "Nothing was emitted."
        ranked = sorted(messages, key=self._distance)
        nearest = ranked[0]
        lines = []
        if self.is_of_type(nearest):
            found = list(self._differences(nearest))
            more = len(found) - _DIFFERENCES
            differences = [
                *found[:_DIFFERENCES],
                *([f"{more} more"] if more > 0 else []),
            ]
            if differences:
                lines.append(f"Nearest: {'; '.join(differences)}.")
        else:
            hint = did_you_mean(self.type, {message.type for message in messages})
            lines += [f"No event of this type was emitted{hint}"] if hint else []
        lines.append("Emitted:")
        lines += [f"  {show(message)}" for message in ranked[:SHOWN]]
        if len(ranked) > SHOWN:
            lines.append(f"  and {len(ranked) - SHOWN} more")
        return "\n".join(lines)

    def _distance(self, message: Message[Any]) -> tuple[float, int]:
        if not self.is_of_type(message):
            alike = difflib.SequenceMatcher(None, message.type, self.type).ratio()
            return 2.0 - alike, 0
        return 0.0, sum(1 for _ in self._differences(message))

    def __str__(self) -> str:
        """Return it as a sentence begins."""
        parts = [repr(self.type)]
        if self._data is not None:
            parts.append(f"with data {_short(self._data)}")
        if self._key is not None:
            parts.append(f"with key {_short(self._key)}")
        if self._where is not None:
            parts.append("where the function holds")
        return " ".join(parts)


def type_of(event: str | EventMeta) -> str:
    """Return the event type that a test names; raises TypeError for anything else."""
    if isinstance(event, EventMeta) and event.__event_type__:
        return event.__event_type__
    if isinstance(event, str):
        return event
    hint = ""
    if isinstance(event, Event):
        name = type(event).__name__
        hint = f" Name the class, and the fields as data: {name}, data={{...}}."
    raise TypeError(
        f"{_short(event)} is no event type: give an Event class with a type, or the "
        f"name of a type.{hint}"
    )


def show(message: Message[Any]) -> str:
    """Return a message as one line of a failure, bounded."""
    key = f" key={message.key!r}" if message.key is not None else ""
    return _cut(
        f"{message.type}{key} {message.body.decode(errors='replace')}", SHOWN_LENGTH
    )


def _check_fields(event_class: EventMeta, data: Any) -> None:
    known = event_class.__struct_fields__
    for name in data if isinstance(data, Mapping) else ():
        if name not in known:
            fields = ", ".join(known) or "none"
            hint = did_you_mean(name, known) or "."
            raise AssertionError(
                f"{event_class.__name__} has no field {name!r}; it has {fields}{hint}"
            )


def _differing(found: Any, wanted: Any, path: str) -> Iterator[str]:
    """Yield what differs: fields that are not named may have any value."""
    if _is_equal(found, wanted):
        return
    parts = _parts_of(wanted)
    if isinstance(parts, Mapping):
        for name, value in parts.items():
            here = f"{path}.{name}" if path else str(name)
            part = _part(found, name)
            if part is _MISSING:
                yield f"{here} is missing"
            else:
                yield from _differing(part, value, here)
    elif _is_list(parts) and _is_list(found) and len(parts) == len(found):
        for index, pair in enumerate(zip(found, parts, strict=True)):
            yield from _differing(*pair, f"{path}[{index}]")
    else:
        yield f"{path or 'the data'} is {_short(found)}, not {_short(wanted)}"


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _parts_of(wanted: Any) -> Any:
    """Return a mapping or a sequence of any kind as emit opens it."""
    if isinstance(wanted, Mapping) or _is_list(wanted):
        return wanted
    try:
        return adapt(wanted)
    except EncodeError:
        return wanted


def _part(data: Any, name: Any) -> Any:
    if isinstance(data, Mapping):
        return data[name] if name in data else data.get(_key_of(name), _MISSING)
    if isinstance(data, msgspec.Struct) and name in data.__struct_fields__:
        return getattr(data, name)
    return _MISSING


def _is_equal(actual: Any, wanted: Any) -> bool:
    if actual == wanted:
        return True
    try:  # the data of an untyped event are plain JSON: dates and ids are texts there
        arrives = _as_json(wanted)
        if isinstance(wanted, AbstractSet) and _is_list(actual):
            return _in_order(actual) == _in_order(arrives)
        if isinstance(wanted, msgspec.Struct) and type(actual) is type(wanted):
            actual = _as_json(actual)
    except EncodeError:
        return False
    return bool(actual == arrives)


def _as_json(value: Any) -> Any:
    """Return what arrives where no class says more; raises EncodeError."""
    return msgspec.json.decode(_CODEC.encode("", value))


def _in_order(values: Any) -> list[bytes]:
    return sorted(_CODEC.encode("", value) for value in values)


def _key_of(name: Any) -> str | None:
    """Return the text that a key travels as; None if it cannot."""
    try:
        [text] = _as_json({name: None})
    except EncodeError:
        return None
    return str(text)


def _short(value: object) -> str:
    return _cut(repr(value), _VALUE_LENGTH)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
