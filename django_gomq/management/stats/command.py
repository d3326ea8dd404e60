"""``gomq stats`` as a command: one look or many, and its exit code."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from threading import Event
from typing import Any, Final, Protocol

from django.core.management.base import CommandError
from prometheus_client.metrics_core import Metric

from django_gomq.management.subcommand import Write
from django_gomq.site import brokers

from .arguments import DIRECTORY
from .numbers import CANNOT_READ, FINE, Limits, Snapshot, rates_between, take
from .render import as_data, as_table
from .sources import Page, SharedNumbers

Tell = Callable[[Snapshot | str], None]
"""Shows a snapshot, or what kept it from being one."""

_never: Final = Event()


class Watch:
    """Takes moments and tells them, each with rates since the one before."""

    def __init__(self, take: Callable[[], Snapshot], tell: Tell) -> None:
        """``take`` may raise CommandError."""
        self._take = take
        self._tell = tell
        self._before: tuple[Snapshot, float] | None = None
        self._code = FINE

    def run(self, seconds: float) -> int:
        """Go on every so many seconds; return the exit code of the latest snapshot.

        Raises the CommandError of the first: what never worked is a mistake. A later
        one is told, as a server that restarts is away for a while. Blocks until Ctrl-C.
        """
        try:
            self._step()
            while True:
                _never.wait(seconds)
                self._try_step()
        except KeyboardInterrupt:
            return self._code

    def _try_step(self) -> None:
        try:
            self._step()
        except CommandError as error:
            self._code = CANNOT_READ
            self._tell(str(error))

    def _step(self) -> None:
        snapshot, now = self._take(), time.monotonic()
        if self._before is not None:
            earlier, then = self._before
            snapshot = snapshot.with_rates(
                rates_between(earlier.numbers, snapshot.numbers, now - then)
            )
        self._before = snapshot, now
        self._code = snapshot.exit_code  # before it is told: Ctrl-C may come then
        self._tell(snapshot)


_CLEAR: Final = "\x1b[H\x1b[2J"


class Source(Protocol):
    """Where numbers come from."""

    name: str

    def read(self) -> Sequence[Metric]:
        """Return what is so now. Raises CommandError with ``returncode`` 2."""


def show(options: Mapping[str, Any], write: Write) -> int:
    """Show the numbers once, or until Ctrl-C; return the exit code."""
    source = _source(options)
    limits = Limits(max_depth=options["max_depth"], max_age=options["max_age"])
    if options["watch"] is None:
        snapshot = _snapshot(source, limits)
        write(_as_document(snapshot) if options["json"] else as_table(snapshot))
        return snapshot.exit_code
    tell = _as_lines(write) if options["json"] else _as_blocks(write, options)
    return Watch(lambda: _snapshot(source, limits), tell).run(options["watch"])


def _source(options: Mapping[str, Any]) -> Source:
    if options["url"] is not None:
        token = options["token"] or _token_of_settings()
        return Page(options["url"], token=token, timeout=options["timeout"])
    directory = options["dir"] or os.environ.get(DIRECTORY)
    if not directory:
        raise CommandError(
            "Where are the numbers? Give --url http://host:port/gomq/metrics, the page "
            f"of a running server, or --dir (or {DIRECTORY} in the environment), the "
            "directory that its processes share.",
            returncode=CANNOT_READ,
        )
    return SharedNumbers(directory)


def _token_of_settings() -> str:
    site = brokers.site
    if site is None or site.config.metrics.access != "token":
        return ""
    return site.config.metrics.token


def _snapshot(source: Source, limits: Limits) -> Snapshot:
    try:
        numbers = take(source.read())
    except (ValueError, OverflowError, KeyError) as error:
        raise CommandError(
            f"{source.name} has numbers that make no sense: {error}",
            returncode=CANNOT_READ,
        ) from error
    over = list(limits.exceeded_by(numbers))
    return Snapshot(source=source.name, numbers=numbers, over=over)


def _as_document(snapshot: Snapshot) -> str:
    return json.dumps(as_data(snapshot), indent=2)


def _as_lines(write: Write) -> Tell:
    def tell(found: Snapshot | str) -> None:
        data = {"error": found} if isinstance(found, str) else as_data(found)
        write(json.dumps(data))

    return tell


def _as_blocks(write: Write, options: Mapping[str, Any]) -> Tell:
    """Redraw a terminal; write blocks of lines with two empty ones after to a file."""
    before, after = (_CLEAR, "") if options["is_terminal"] else ("", "\n\n")

    def tell(found: Snapshot | str) -> None:
        text = found if isinstance(found, str) else as_table(found)
        now = datetime.now(UTC).astimezone().isoformat(" ", "seconds")
        write(f"{before}{now}  {text}\n{after}")

    return tell
