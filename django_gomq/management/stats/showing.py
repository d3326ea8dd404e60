"""Reads numbers from where the options say, and shows them as the options say."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from django.core.management.base import CommandError
from prometheus_client.metrics_core import Metric

from django_gomq.management.subcommand import Write
from django_gomq.wiring import brokers

from .arguments import DIRECTORY
from .as_json import as_data
from .as_table import as_table
from .exits import CANNOT_READ
from .limits import Limits
from .moment import Moment
from .numbers import take
from .page import Page
from .shared_numbers import SharedNumbers
from .watching import Tell, Watch

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
        moment = _moment(source, limits)
        write(_as_document(moment) if options["json"] else as_table(moment))
        return moment.exit_code
    tell = _as_lines(write) if options["json"] else _as_blocks(write, options)
    return Watch(lambda: _moment(source, limits), tell).run(options["watch"])


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


def _moment(source: Source, limits: Limits) -> Moment:
    try:
        numbers = take(source.read())
    except (ValueError, OverflowError, KeyError) as error:
        raise CommandError(
            f"{source.name} has numbers that make no sense: {error}",
            returncode=CANNOT_READ,
        ) from error
    over = list(limits.exceeded_by(numbers))
    return Moment(source=source.name, numbers=numbers, over=over)


def _as_document(moment: Moment) -> str:
    return json.dumps(as_data(moment), indent=2)


def _as_lines(write: Write) -> Tell:
    def tell(found: Moment | str) -> None:
        data = {"error": found} if isinstance(found, str) else as_data(found)
        write(json.dumps(data))

    return tell


def _as_blocks(write: Write, options: Mapping[str, Any]) -> Tell:
    """Redraw a terminal; write blocks of lines with two empty ones after to a file."""
    before, after = (_CLEAR, "") if options["is_terminal"] else ("", "\n\n")

    def tell(found: Moment | str) -> None:
        text = found if isinstance(found, str) else as_table(found)
        now = datetime.now(UTC).astimezone().isoformat(" ", "seconds")
        write(f"{before}{now}  {text}\n{after}")

    return tell
