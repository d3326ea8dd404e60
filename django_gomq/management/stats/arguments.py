"""The options of ``gomq stats``, each checked where it is given."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError
from typing import Final
from urllib.parse import urlsplit

from django_gomq.bus.durations import seconds_of

DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of ``stats``."""
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument(
        "--url",
        type=_address,
        help="a metrics page; by default those of METRICS['PORT_RANGE'] here, or "
        "http://127.0.0.1:8000/gomq/metrics",
    )
    sources.add_argument(
        "--dir",
        help=f"the directory that processes share; by default {DIRECTORY}",
    )
    parser.add_argument(
        "--token",
        type=_token,
        help="for METRICS['ACCESS'] = 'token'; by default the one in the settings",
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        default=5.0,
        metavar="SECONDS",
        help="how long the page may take (default: 5)",
    )
    _add_limits(parser)
    parser.add_argument("--json", action="store_true", help="JSON in place of tables")
    parser.add_argument(
        "--watch",
        type=positive,
        nargs="?",
        const=2.0,
        metavar="SECONDS",
        help="again every SECONDS (default: 2), with rates, until Ctrl-C",
    )


def _add_limits(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--max-depth",
        type=_count,
        metavar="N",
        help="exit with 1 if a queue or a channel holds more than N messages",
    )
    parser.add_argument(
        "--max-age",
        type=_not_negative,
        metavar="SECONDS",
        help="exit with 1 if a message has waited longer than SECONDS",
    )


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        has_port = parts.port is None or parts.port > 0
    except ValueError:  # a port that is no number, a bracket too few
        is_address = has_port = False
    if not (is_address and has_port and text.isascii() and text.isprintable()):
        raise ArgumentTypeError(
            f"{text!r:.200} is no address: write http://host:port/gomq/metrics"
        )
    if parts.username is not None:
        raise ArgumentTypeError("an address has no user or password: use --token")
    return text


def _token(text: str) -> str:
    if not (text and text.isascii() and text.isprintable()):
        raise ArgumentTypeError("a token has printable ASCII characters")
    return text


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ArgumentTypeError(f"{text!r:.200} is no whole number from 0")
    return int(text)


def _not_negative(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if seconds_of(number) is None:
        raise ArgumentTypeError(f"{text!r:.200} is no number of seconds")
    return number


def positive(text: str) -> float:
    """Read a number of seconds above 0; for an ``ArgumentParser``."""
    number = _not_negative(text)
    if not number:
        raise ArgumentTypeError("0 seconds are too few")
    return number
