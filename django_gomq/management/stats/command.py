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
from django.urls import reverse
from prometheus_client.metrics_core import Metric

from django_gomq.conf import MetricsConfig
from django_gomq.management.subcommand import Write
from django_gomq.management.tables import Screen
from django_gomq.site import brokers

from .arguments import DIRECTORY
from .numbers import CANNOT_READ, FINE, Limits, Snapshot, rates_between, take
from .render import as_data, as_table
from .sources import LocalPages, Page, SharedNumbers

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
    screen: Screen = options["screen"]
    limits = Limits(max_depth=options["max_depth"], max_age=options["max_age"])
    if options["watch"] is None:
        snapshot = _snapshot(source, limits)
        is_json = options["json"]
        write(_as_document(snapshot) if is_json else as_table(snapshot, screen))
        return snapshot.exit_code
    tell = _as_lines(write) if options["json"] else _as_blocks(write, screen, options)
    return Watch(lambda: _snapshot(source, limits), tell).run(options["watch"])


def _source(options: Mapping[str, Any]) -> Source:
    config = _config()
    token = options["token"] or (config.token if config.access == "token" else "")
    timeout = options["timeout"]
    if options["url"] is not None:
        return Page(options["url"], token=token, timeout=timeout)
    directory = options["dir"] or os.environ.get(DIRECTORY)
    if directory:
        return SharedNumbers(directory)
    first, last = config.port_range or (1, 0)
    host = _REACHED_BY.get(config.port_address, config.port_address)
    return LocalPages(
        range(first, last + 1),
        f"[{host}]" if ":" in host else host,
        _path(),
        token=token,
        timeout=timeout,
    )


_REACHED_BY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound


def _config() -> MetricsConfig:
    return brokers.site.config.metrics if brokers.site else MetricsConfig()


def _path() -> str:
    """Return where this site has its page, or where most have it."""
    try:
        return reverse("gomq:metrics")
    except Exception:  # noqa: BLE001 - no such URL, or whatever a URLconf raises
        return "/gomq/metrics"


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


def _as_blocks(write: Write, screen: Screen, options: Mapping[str, Any]) -> Tell:
    """Redraw a terminal; write blocks of lines with two empty ones after to a file."""
    before, after = (_CLEAR, "") if options["is_terminal"] else ("", "\n\n")

    def tell(found: Snapshot | str) -> None:
        text = found if isinstance(found, str) else as_table(found, screen)
        now = datetime.now(UTC).astimezone().isoformat(" ", "seconds")
        write(f"{before}{now}  {text}\n{after}")

    return tell
