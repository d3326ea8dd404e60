"""A walk through the data of an event: where a fault lies, and what JSON would lose.

Only what cannot be encoded, or looks as if something were missing, is walked through.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import math
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec.structs import astuple, force_setattr

from django_gomq.bus.errors import EncodeError, describe_error, printable

from .foreign import refuse_nan

Step = tuple[str, Any]
"""How a path goes on, as ``.price`` or ``[3]``, and what is there."""

_MOST_STEPS: Final = 1000  # of a path; what is deeper is taken to hold itself
_SHOWN_OF_CIRCLE: Final = 6
_MAX_PATH: Final = 120  # characters of a path that are told
_MAX_KEY: Final = 40  # of a key, which may be data

_LEAVES: Final = frozenset(
    {
        *(str, int, bool, type(None), bytes, UUID, Decimal, msgspec.UnsetType),
        *(datetime, date, time, timedelta),
    }
)
_PLAIN: Final[dict[type, Callable[[Any], Iterable[Any]]]] = {
    dict: dict.values,
    list: iter,
    tuple: iter,
}
_GROUPS: Final = (list, tuple, set, frozenset)
_CIRCLE: Final = "it is nested too deep, or holds itself: pass less of it."
_HALF: Final = (
    "a text has half of a surrogate pair, which JSON has not: pass "
    "text.encode(errors='replace').decode()."
)


class Walk:
    """Looks at data with what encodes one value and what adapts it; thread-safe."""

    def __init__(
        self, encode: Callable[[Any], bytes], adapt: Callable[[Any], Any]
    ) -> None:
        self._encode = encode
        self._adapt = adapt

    def loses_something(self, data: object) -> bool:
        """Return whether JSON that was written of this lacks something.

        A NaN becomes null; a list or dict of a subclass that keeps its items elsewhere
        becomes empty.
        """
        waiting = [data]
        while waiting:
            value: Any = waiting.pop()
            kind = type(value)
            # What most data are made of goes first: a None in them is no rare thing.
            if kind in _LEAVES:
                continue
            if kind is float:
                if not math.isfinite(value):
                    return True
            elif kind in _PLAIN:
                waiting += _PLAIN[kind](value)
            elif issubclass(kind, msgspec.Struct):
                waiting += astuple(value)
            elif _keeps_items_elsewhere(value):
                return True
            else:
                waiting += [child for _, child in self._open(value)]
        return False

    def find_fault(self, data: object) -> tuple[str, str] | None:
        """Return the path of the first value that JSON has not, and what to do."""
        trail: list[Iterator[Step]] = [iter([("", data)])]
        path: list[str] = []
        try:
            while trail:
                for step, value in trail[-1]:
                    path.append(step)
                    trail.append(iter(self._open(value)))
                    break
                else:
                    trail.pop()
                    del path[-1:]
                if len(path) > _MOST_STEPS:
                    return f"{_shown(path[:_SHOWN_OF_CIRCLE])}...", _CIRCLE
        except EncodeError as error:
            return _shown(path), str(error)
        except UnicodeEncodeError:
            return _shown(path), _HALF
        except Exception as error:  # noqa: BLE001 - a value may raise anything
            return _shown(path), f"it cannot be written: {describe_error(error)}"
        return None

    def _open(self, value: Any) -> Iterable[Step]:
        """Return what a value holds; raises if JSON has it not."""
        kind = type(value)
        if issubclass(kind, enum.Enum):
            return [("", value.value)]
        if issubclass(kind, dict):
            return self._entries(value)
        if issubclass(kind, _GROUPS):
            items = _items_of(value)
            return ((f"[{place}]", child) for place, child in enumerate(items))
        fields = _fields_of(value)
        if fields:
            return ((f".{name}", child) for name, child in fields.items())
        return self._open_leaf(value)

    def _entries(self, value: dict[Any, Any]) -> Iterator[Step]:
        for key, child in _entries_of(value):
            if type(key) is not str or not key.isascii():
                self._encode({key: None})
            yield _step_to(key), child

    def _open_leaf(self, value: Any) -> Iterable[Step]:
        kind = type(value)
        if kind in _LEAVES or kind is float:
            self._encode(refuse_nan(value) if kind is float else value)
            return ()
        try:
            adapted = self._adapt(value)
        except EncodeError:
            adapted = value  # which msgspec may know by itself
        if type(adapted) is not kind:
            return [("", adapted)]
        self._encode(value)
        return ()

    def rebuild(self, value: Any) -> Any:
        """Return the same of plain lists and dicts, whatever keeps their items."""
        kind = type(value)
        if issubclass(kind, dict):
            return {key: self.rebuild(child) for key, child in _entries_of(value)}
        if issubclass(kind, _GROUPS):
            return [self.rebuild(child) for child in _items_of(value)]
        fields = _fields_of(value)
        if fields:
            made = copy.copy(value)
            put = force_setattr if isinstance(made, msgspec.Struct) else _put
            for name, child in fields.items():
                put(made, name, self.rebuild(child))
            return made
        adapted = [child for _, child in self._open(value)]
        return self.rebuild(adapted[0]) if adapted else value


_put: Final = object.__setattr__  # frozen dataclasses too


def _keeps_items_elsewhere(value: Any) -> bool:
    kind = type(value)
    for base in (dict, list, set, frozenset):
        if kind is not base and issubclass(kind, base):
            if base.__len__(value):
                return False
            return len(value) > 0 or any(True for _ in value)
    return False


def _entries_of(value: dict[Any, Any]) -> Iterable[tuple[Any, Any]]:
    # What msgspec sees where there is something: of a MultiValueDict all the lists.
    if dict.__len__(value):
        return dict.items(value)
    return list(value.items()) or [(key, value[key]) for key in value]


def _items_of(value: Any) -> Iterable[Any]:
    if not issubclass(type(value), list):
        found: Iterable[Any] = value
        return found
    if list.__len__(value):
        return list.__iter__(value)
    return list(value) or [value[place] for place in range(len(value))]


def _fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a struct, a dataclass or an attrs object, by name."""
    kind = type(value)
    if issubclass(kind, msgspec.Struct):
        names: Iterable[str] = kind.__struct_fields__
    elif dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    else:
        names = [each.name for each in getattr(kind, "__attrs_attrs__", ())]
    found = {name: getattr(value, name, msgspec.UNSET) for name in names}
    return {name: child for name, child in found.items() if child is not msgspec.UNSET}


def _shown(path: list[str]) -> str:
    return printable("".join(path).lstrip("."), _MAX_PATH)


def _step_to(key: Any) -> str:
    text = key if isinstance(key, str) else str(key)
    if text.isidentifier() and len(text) <= _MAX_KEY:
        return f".{text}"
    return f"[{printable(repr(text), _MAX_KEY)}]"
