"""From what somebody registered to what is called; it knows no consumer's options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .errors import ConfigurationError

Handler = Callable[[Any], Any]


def callable_of(handler: Any, consumer: str) -> Handler:
    """Return what is called with each message: a function, or handle() of an object.

    A class is made, without arguments. Raises ConfigurationError for anything else.
    """
    if inspect.isclass(handler):
        handler = _instance_of(handler, consumer)
    handle = getattr(handler, "handle", None)
    if callable(handle):
        return handle  # type: ignore[no-any-return]
    if inspect.isroutine(handler) or callable(handler):
        return handler  # type: ignore[no-any-return]
    raise ConfigurationError(
        f"Consumer {consumer!r}: {handler!r} is no function and has no handle().",
        consumer=consumer,
    )


def _instance_of(handler_class: type, consumer: str) -> Any:
    if not callable(getattr(handler_class, "handle", None)):
        raise ConfigurationError(
            f"Consumer {consumer!r}: class {handler_class.__qualname__} has no "
            "handle(self, message).",
            consumer=consumer,
        )
    try:
        return handler_class()
    except TypeError as error:
        raise ConfigurationError(
            f"Consumer {consumer!r}: class {handler_class.__qualname__} cannot be made "
            f"without arguments: {error}",
            consumer=consumer,
        ) from error
