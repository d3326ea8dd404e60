"""The handler: what is called with each message, and whether it can be."""

from __future__ import annotations

import collections.abc
import contextlib
import functools
import inspect
import types
import typing
from collections.abc import Callable
from inspect import getattr_static
from typing import Any, Union

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.event import EventMeta
from django_gomq.bus.message import Message

Handler = Callable[[Any], Any]

_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


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


def function_of(handler: Handler) -> Any:
    """Return the function under methods, partials and objects with ``__call__``."""
    while True:
        if isinstance(handler, functools.partial):
            handler = handler.func
        elif inspect.ismethod(handler) or isinstance(handler, staticmethod):
            handler = handler.__func__
        elif inspect.isfunction(call := getattr_static(type(handler), "__call__", 0)):
            handler = call
        else:
            return handler


def is_async(handler: Handler) -> bool:
    """Whether calling it gives a coroutine."""
    call = getattr(handler, "__call__", None)  # noqa: B004 - it may be marked as async
    candidates = (handler, call, function_of(handler))
    return any(
        _is_kind(inspect.iscoroutinefunction, candidate) for candidate in candidates
    )


def _is_kind(predicate: Callable[[Any], bool], function: Any) -> bool:
    try:
        return predicate(function)
    except TypeError:  # a mock says that it is a function, and has no code
        return False


def problem_with(handler: Handler, batch: int | None) -> str | None:
    """Say why this handler cannot be called with a message, or a list for ``batch``."""
    function = function_of(handler)
    name = getattr(function, "__name__", type(handler).__name__)
    if _yields(function):
        return (
            f"{name}() has a yield, so that a call of it runs nothing: let it return, "
            "and emit what it yields."
        )
    return _signature_problem(handler, name) or _annotation_problem(handler, batch)


def _yields(function: Any) -> bool:
    """Whether a call of it runs nothing of it, as of a context manager's function."""
    code = getattr(function, "__code__", None)
    if getattr(code, "co_filename", None) == contextlib.__file__:
        function = inspect.unwrap(function)
    kinds = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return any(_is_kind(kind, function) for kind in kinds)


def _signature_problem(handler: Handler, name: str) -> str | None:
    signature = _signature_of(handler)
    if signature is None or _is_adapted(handler):
        return None
    names = list(signature.parameters)
    if inspect.isfunction(handler) and _is_unbound(handler, names):
        return (
            f"{name}({names[0]}, ...) is a method, and there is no object to call it "
            "on: decorate the class and name the method handle, or register the method "
            f"of an object, consumer(...)(an_object.{name})."
        )
    is_function = handler is function_of(handler)
    written = f"def {name}({'' if is_function else 'self, '}message)"
    if not names:
        return f"{name}() takes no message: write {written}."
    mismatch = _mismatch(signature)
    # The function of a decorator may add arguments to those that it was given.
    own = _signature_of(handler, follow_wrapped=False)
    if mismatch is None or (own is not None and _mismatch(own) is None):
        return None
    advice = (
        "; emit_on_signal() makes events of signals" if names[0] == "sender" else ""
    )
    return (
        f"{name}() is called with the message alone, and cannot be ({mismatch}): write "
        f"{written}{advice}."
    )


def _is_adapted(handler: Handler) -> bool:
    """Whether a decorator gave it a signature of its own, and not just ``*args``."""
    if not hasattr(handler, "__wrapped__"):
        return False
    own = _signature_of(handler, follow_wrapped=False)
    kinds = [parameter.kind for parameter in own.parameters.values()] if own else []
    return any(kind in _POSITIONAL for kind in kinds)


def _signature_of(
    handler: Handler, *, follow_wrapped: bool = True
) -> inspect.Signature | None:
    try:
        return inspect.signature(handler, follow_wrapped=follow_wrapped)
    except (TypeError, ValueError):  # builtins need not have one
        return None


def _is_unbound(function: types.FunctionType, names: list[str]) -> bool:
    """Whether this is a method, taken from its class and not from an object."""
    owner = function.__qualname__.rpartition(".")[0]
    is_in_class = bool(owner) and not owner.endswith("<locals>")
    return is_in_class and names[:1] in (["self"], ["cls"])


def _mismatch(signature: inspect.Signature) -> str | None:
    try:
        signature.bind(None)
    except TypeError as error:
        return str(error)
    return None


def _annotation_problem(handler: Handler, batch: int | None) -> str | None:
    annotation = _annotation_of(handler)
    if isinstance(annotation, EventMeta):
        name = annotation.__name__
        return (
            f"it is annotated with {name}, and gets a message, whose data is the "
            f"{name}: annotate Message[{name}]."
        )
    if batch is not None and _is_message(annotation):
        return (
            f"batch={batch} hands it a list, and it is annotated with one message: "
            "annotate list[Message], or leave batch out."
        )
    if batch is None and _is_many(annotation):
        return (
            "it is annotated with a list, and gets one message at a time: say "
            "batch=100, or annotate Message."
        )
    return None


def expected_events(handler: Handler) -> tuple[EventMeta, ...]:
    """Return the Event classes in the annotation ``Message[...]``, if these are all."""
    annotation = _annotation_of(handler)
    if _is_many(annotation):
        annotation = next(iter(typing.get_args(annotation)), None)
    if not _is_message(annotation):
        return ()
    data = next(iter(typing.get_args(annotation)), None)
    is_union = typing.get_origin(data) in (Union, types.UnionType)
    kinds = typing.get_args(data) if is_union else (data,)
    events = tuple(kind for kind in kinds if isinstance(kind, EventMeta))
    return events if len(events) == len(kinds) else ()


def _is_message(annotation: object) -> bool:
    return annotation is Message or typing.get_origin(annotation) is Message


def _is_many(annotation: object) -> bool:
    origin = typing.get_origin(annotation) or annotation
    if not isinstance(origin, type) or issubclass(origin, str | bytes):
        return False
    is_mapping = issubclass(origin, collections.abc.Mapping)
    return issubclass(origin, collections.abc.Iterable) and not is_mapping


def _annotation_of(handler: Handler) -> object:
    """Return how the first argument is annotated; None if that cannot be resolved."""
    signature = _signature_of(handler)
    first = next(iter(signature.parameters.values()), None) if signature else None
    if first is None or first.kind not in _POSITIONAL:
        return None
    function = inspect.unwrap(function_of(handler))
    # Its other annotations need not be there when it runs, so that one is asked alone.
    asked = types.SimpleNamespace(__annotations__={first.name: first.annotation})
    try:
        hints = typing.get_type_hints(
            asked,
            getattr(function, "__globals__", {}),
            dict(inspect.getclosurevars(function).nonlocals),
        )
    except Exception:  # noqa: BLE001 - an annotation may be any expression
        return None
    return hints[first.name]
