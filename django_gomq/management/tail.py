"""``manage.py gomq tail``: prints messages of all processes as they are handled."""

from __future__ import annotations

import json
import textwrap
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from threading import Event
from typing import Any, Final

import msgspec
from django.core.management.base import CommandError
from django.db import Error

from django_gomq.bus.errors import ConfigurationError, describe_error
from django_gomq.bus.patterns import Pattern
from django_gomq.operations.desired import brokers_of
from django_gomq.operations.samples import (
    ALL,
    MAX_PAYLOAD,
    PER_SECOND,
    MessageFilter,
    Sample,
    ShownMessage,
)
from django_gomq.operations.tail import Tail, tail_of
from django_gomq.site import brokers

from .arguments import pattern
from .stats.arguments import positive
from .subcommand import Write
from .tables import Screen

HELP: Final = "Print what all processes handle, as it happens, until Ctrl-C."
CANNOT: Final = 2
LOOK_SECONDS: Final = 0.5
WATCH_SECONDS: Final = 4.0
"""Between two times that processes are told that somebody looks; it lasts for 15."""
SILENT_SECONDS: Final = 10.0
"""Processes look every four seconds whether somebody does, and then tell of theirs."""
_OUTCOMES: Final = {
    "ack": ("SUCCESS", "handled"),
    "retry": ("WARNING", "retry"),
    "dead_letter": ("ERROR", "dead letter"),
    "drop": ("ERROR", "dropped"),
}
"""The colour and the words of each."""
_INDENT: Final = "  "
_JOINT: Final = "\0"

_never: Final = Event()

Show = Callable[[ShownMessage], str]


def add_arguments(parser: ArgumentParser) -> None:
    """Add what to look at, how long, and how it is written."""
    parser.add_argument(
        "--event",
        type=pattern,
        default=Pattern(ALL),
        metavar="PATTERN",
        help="only these events, such as health.record.saved or health.*",
    )
    parser.add_argument(
        "--consumer", metavar="NAME", default="", help="only those of this consumer"
    )
    parser.add_argument(
        "--seconds",
        type=positive,
        metavar="N",
        help="end after so many seconds (default: at Ctrl-C)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--payload",
        action="store_true",
        help="the data, too, as DEAD_LETTERS['REDACT'] lets them be seen, up to "
        f"{MAX_PAYLOAD} characters",
    )


def run(options: Mapping[str, Any], write: Write) -> int:
    """Print what is sampled, until Ctrl-C or the time is over."""
    screen: Screen = options["screen"]
    show: Show = _as_json if options["json"] else lambda told: _as_text(told, screen)
    try:
        wanted = _filter(options)
        tail = _tail()
        tail.watch(wanted)
        if not options["json"]:
            write(screen.sentence("NOTICE", _OPENING))
        for told in _follow(tail, wanted, options["seconds"]):
            if told is not None:
                write(show(told))
            elif not options["json"]:
                write(screen.sentence("WARNING", _SILENCE))
    except ConfigurationError as error:
        raise CommandError(str(error), returncode=CANNOT) from error
    except Error as error:
        text = f"The database cannot be reached: {describe_error(error)}"
        raise CommandError(text, returncode=CANNOT) from error
    except KeyboardInterrupt:
        pass
    return 0


def _filter(options: Mapping[str, Any]) -> MessageFilter:
    consumer = options["consumer"]
    if consumer:
        brokers_of(consumer)  # raises what says which there are
    return MessageFilter(options["event"].text, consumer, options["payload"])


def _tail() -> Tail:
    if brokers.site is None:
        brokers["default"]  # raises what says why there is none
    assert brokers.site is not None  # noqa: S101 - else that has raised
    return tail_of(brokers.site)


_OPENING: Final = (
    f"Messages of all processes, up to {PER_SECOND} a second of each, from a few "
    "seconds on:"
)
_SILENCE: Final = (
    "No process tells that it runs. Those that emit or work do, if they were started "
    "after manage.py migrate gomq."
)


def _follow(
    tail: Tail, wanted: MessageFilter, seconds: float | None
) -> Iterator[ShownMessage | None]:
    """Yield messages as they come, and None once where no process tells that it runs.

    Keeps processes sampling.
    """
    began = watched = time.monotonic()
    is_silent: bool | None = None  # not known so far
    while seconds is None or time.monotonic() < began + seconds:
        yield from tail.next(wanted)
        _never.wait(LOOK_SECONDS)
        now = time.monotonic()
        if now >= watched + WATCH_SECONDS:
            watched = now
            tail.watch(wanted)
        if is_silent is None and now >= began + SILENT_SECONDS:
            is_silent = not tail.view.processes()
            if is_silent:
                yield None
    yield from tail.next(wanted)


# ------------------------------------------------------------ lines


def _as_json(told: ShownMessage) -> str:
    data = msgspec.structs.asdict(told.sample)
    if told.payload is not None:
        data["payload"] = told.payload
    return json.dumps(data)


def _as_text(told: ShownMessage, screen: Screen) -> str:
    sample = told.sample
    role, word = _OUTCOMES[sample.outcome]
    begin = f"{_clock(sample.ended)} {word}"
    # What stands in one cell is not parted, unless it is longer than a line.
    cells = [cell.replace(" ", _JOINT) for cell in (begin, *_details(sample))]
    wrapped = _wrapped("  ".join(cells), screen.width)
    lines = [line.replace(_JOINT, " ") for line in wrapped]
    lines[0] = screen.paint(role, begin) + lines[0][len(begin) :]
    for line in (told.payload or "").splitlines():
        lines += _wrapped(line, screen.width, _INDENT)
    return "\n".join(lines)


def _details(sample: Sample) -> Iterator[str]:
    if sample.reason:
        yield f"({sample.reason})"
    yield sample.event
    yield sample.consumer
    yield f"wait {_seconds(sample.wait)}"
    yield f"handler {_seconds(sample.duration)}"
    if sample.attempt > 1:
        yield f"attempt {sample.attempt}"
    yield f"{sample.host}:{sample.pid}"
    yield sample.message
    if sample.trace:
        yield f"trace {sample.trace}"


def _wrapped(text: str, width: int, before: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=before,
        subsequent_indent=before + _INDENT,
        break_on_hyphens=False,
    ) or [""]


def _clock(seconds: float) -> str:
    local = datetime.fromtimestamp(seconds, UTC).astimezone()
    return local.isoformat(timespec="milliseconds")[11:23]


def _seconds(number: float) -> str:
    return f"{number * 1000:.1f} ms" if number < 1 else f"{number:.2f} s"
