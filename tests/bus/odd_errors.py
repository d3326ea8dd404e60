"""Errors whose classes do what no class should, as handlers may raise them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Text(str):
    """A text that does as it likes."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> str:
        raise LookupError

    def __len__(self) -> int:
        raise LookupError

    def isprintable(self) -> bool:
        raise LookupError


def that_says(say: Callable[[BaseException], object]) -> BaseException:
    """Return an error whose text this makes."""
    odd: BaseException = type("Odd", (Exception,), {"__str__": say, "__repr__": say})()
    return odd


def throw(error: BaseException) -> Callable[[object], object]:
    def say(_: object) -> object:
        raise error

    return say


def say_itself(error: BaseException) -> str:
    return f"I am {error}"


def make_unreadable() -> dict[str, BaseException]:
    """Return errors that cannot say what they are, by what they do."""
    return {
        "raises": that_says(throw(RuntimeError("no text"))),
        "exits": that_says(throw(SystemExit(1))),
        "is interrupted": that_says(throw(KeyboardInterrupt())),
        "is no text": that_says(lambda _: None),
        "recurses": that_says(say_itself),
        "raises itself": that_says(throw(that_says(throw(ValueError())))),
    }


def make_odd() -> dict[str, BaseException]:
    """Return these, and errors that are odd in other ways.

    Made anew, as pytest looks at all that a module holds.
    """

    class _Nameless(type):
        def __getattribute__(cls, name: str) -> Any:
            raise SystemExit(name)

    class Nameless(Exception, metaclass=_Nameless):
        pass

    class Hiding(Exception):
        def __getattribute__(self, name: str) -> Any:
            raise SystemExit(name)

    return {
        **make_unreadable(),
        "nameless": Nameless("why"),
        "hiding": Hiding("why"),
        "own text": that_says(lambda _: Text("x" * 9_999)),
        "surrogates": ValueError("\ud800" * 9_999),
        "huge": ValueError("x" * 1_000_000),
        "huge class": type("E" * 1_000_000, (Exception,), {})("why"),
        "lines": ValueError("one\ntwo\x1b[31m\x00\u2028three"),
        "group": ExceptionGroup("many", [ValueError(str(n)) for n in range(999)]),
    }


UNREADABLE = tuple(make_unreadable())
ODD = tuple(make_odd())
