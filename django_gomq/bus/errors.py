"""Every error of the bus, and how any error is told: bounded, and without raising."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from contextvars import copy_context
from threading import Thread
from types import WrapperDescriptorType
from typing import ClassVar, Final


class GoMQError(Exception):
    """Root of all errors of django-gomq.

    ``code`` is stable and safe as a metric label. ``event``, ``consumer`` and
    ``broker`` name what the error is about, as far as that is known.
    """

    code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        event: str | None = None,
        consumer: str | None = None,
        broker: str | None = None,
    ) -> None:
        super().__init__(message)
        self.event = event
        self.consumer = consumer
        self.broker = broker


class ConfigurationError(GoMQError):
    """A setting, a registration or a call that can never work as written."""

    code = "configuration"


class PublishError(GoMQError):
    """The message was refused: no consumer will see it, and the caller was told."""

    code = "refused"


class NoConsumerError(PublishError):
    """No enabled consumer subscribes to the event type."""

    code = "no_consumer"


class QueueFullError(PublishError):
    """The queue of the event type has no room."""

    code = "queue_full"


class PublishTimeoutError(PublishError):
    """The queue of the event type had no room within the given timeout."""

    code = "timeout"


class BrokerClosedError(PublishError):
    """The broker is draining or has stopped."""

    code = "closed"


class NotRunningError(PublishError):
    """Nothing handles messages in this process, or the dispatcher is down."""

    code = "not_running"


class BackendUnavailableError(PublishError):
    """The server behind the broker cannot be reached."""

    code = "unavailable"


class PublishUnknownError(PublishError):
    """The server did not answer in time: it may have the message, or not."""

    code = "unknown"


class MessageError(GoMQError):
    """The message itself is wrong; the same call would fail again."""

    code = "invalid_message"


class EncodeError(MessageError):
    """The data cannot be written as JSON, or does not fit its Event class."""

    code = "encode"


class DecodeError(MessageError):
    """What was read is no CloudEvent, no JSON, or does not fit its Event class."""

    code = "decode"


class MessageTooLargeError(MessageError):
    """The body or the headers exceed their limit."""

    code = "too_large"


MAX_DESCRIPTION: Final = 500
MAX_CLASS_NAME: Final = 100
MAX_TRACEBACK: Final = 4_000

TEXT_SECONDS: Final = 1.0
"""So long may the ``__str__`` of an error take: no thread of the bus waits longer."""

_MOST_READERS: Final = 8  # threads that such texts have blocked: then nobody is asked
_readers: Final[list[Thread]] = []
_PLAIN: Final = frozenset({str, bytes, int, float, bool, type(None)})
_UNREADABLE: Final = "(its text cannot be read)"
_MOST_FRAMES: Final = 15  # of each error; the innermost are those that tell
_MOST_ERRORS: Final = 5  # of a chain of causes

_name_of_class: Final = type.__dict__["__name__"].__get__
_args_of: Final = BaseException.__dict__["args"].__get__
_cause_of: Final = BaseException.__dict__["__cause__"].__get__
_context_of: Final = BaseException.__dict__["__context__"].__get__
_hides_context: Final = BaseException.__dict__["__suppress_context__"].__get__
traceback_of: Final = BaseException.__dict__["__traceback__"].__get__
"""Returns the traceback of an error, also where its class hides it."""


def printable(text: str, most: int = MAX_DESCRIPTION) -> str:
    """Return the text on one line, cut to about ``most`` characters.

    What would break a line, or speak to a terminal, is escaped.
    """
    # Not text[:most], which a subclass of str may have made its own.
    short = str.__getitem__(text, slice(0, most))
    if not str.isprintable(short):
        short = repr(short)[1:-1][:most]
    return f"{short}..." if str.__len__(text) > most else short


def class_name(value: object) -> str:
    """Return the name of the class of anything, bounded, printable; never raises."""
    # As the interpreter knows it: a metaclass may have a __name__ that raises.
    return printable(_name_of_class(type(value)), MAX_CLASS_NAME)


def error_class_name(error: BaseException) -> str:
    """Return the name of an error's class, bounded, printable; never raises."""
    return class_name(error)


def describe_error(error: BaseException) -> str:
    """Return class and text of an error, on one line of about 500 characters.

    Never raises, whatever its class does; runs its ``__str__``, and blocks as long as
    that does, but no longer than a second.
    """
    name = error_class_name(error)
    text = _read(error) if _says_it_itself(error) else _read_aside(error)
    return printable(f"{name}: {text}") if text else name


def _says_it_itself(error: BaseException) -> bool:
    """Whether no code but the interpreter's makes its text."""
    say = type.__getattribute__(type(error), "__str__")
    is_builtin = isinstance(say, WrapperDescriptorType)
    return is_builtin and all(type(argument) in _PLAIN for argument in _args_of(error))


def _read(error: BaseException) -> str:
    try:
        return printable(str(error))
    except BaseException:  # noqa: BLE001 - whatever the class of a handler's author does
        return _UNREADABLE


def _read_aside(error: BaseException) -> str:
    """Read a text on a thread that may block for ever, as a few may."""
    _readers[:] = [thread for thread in _readers if thread.is_alive()]
    if len(_readers) >= _MOST_READERS:
        return _UNREADABLE
    found: list[str] = []
    read = copy_context().run  # a text may be one of the language of a request
    thread = Thread(
        target=lambda: found.append(read(_read, error)), name="gomq-text", daemon=True
    )
    try:
        thread.start()
    except RuntimeError:
        return _read(error)  # there are no threads, or the interpreter ends
    thread.join(TEXT_SECONDS)
    if found:
        return found[0]
    _readers.append(thread)
    return _UNREADABLE


def format_traceback(error: BaseException) -> str:
    """Return the calls that led to an error and its causes, the latest at the end.

    Cut to the last 4,000 characters or so. Never raises; blocks as ``describe_error``
    does, and while source lines are read.
    """
    parts: list[str] = []
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and len(seen) < _MOST_ERRORS:
        seen.add(id(following))
        parts.append(f"{_format_calls(following)}{describe_error(following)}")
        cause = _cause_of(following)
        link = _CAUSED if cause is not None else _MEANWHILE
        if cause is None and not _hides_context(following):
            cause = _context_of(following)
        if cause is None or id(cause) in seen:
            break
        parts.append(link)
        following = cause
    text = "\n".join(reversed(parts))
    return text if len(text) <= MAX_TRACEBACK else f"...{text[-MAX_TRACEBACK:]}"


_CAUSED: Final = "\nThe above was the direct cause of what follows:\n"
_MEANWHILE: Final = "\nWhile the above was handled, what follows happened:\n"


def _format_calls(error: BaseException) -> str:
    calls = traceback_of(error)
    if calls is None:
        return ""
    lines = ["Traceback (most recent call last):"]
    try:
        for call in traceback.extract_tb(calls, -_MOST_FRAMES):
            lines += _lines_of(call)
    except BaseException:  # noqa: BLE001 - it reads files, by loaders of anybody
        lines.append("  (its calls cannot be read)")
    return "\n".join([*lines, ""])


def _lines_of(call: traceback.FrameSummary) -> list[str]:
    # Names are anybody's text too: of generated code, of files.
    where, name = printable(call.filename), printable(call.name)
    place = f'  File "{where}", line {call.lineno}, in {name}'
    return [place, f"    {printable(call.line)}"] if call.line else [place]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean …?" to end a sentence with, or nothing if none is near."""
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""
