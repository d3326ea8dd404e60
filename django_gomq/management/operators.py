"""``manage.py gomq pause``, ``resume`` and ``resize``: of a consumer, everywhere."""

from __future__ import annotations

import getpass
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.core.management.base import CommandError
from django.db import Error

from django_gomq.bus.backend import ConsumerState
from django_gomq.bus.consumer import MAX_CAPACITY
from django_gomq.bus.errors import ConfigurationError, describe_error
from django_gomq.operations.desired import (
    Operator,
    Progress,
    brokers_of,
    desire,
    progress,
)

from .subcommand import Subcommand, Write

CANNOT: Final = 2
WAIT_SECONDS: Final = 15.0
"""So long it is waited for: processes look every four seconds, and then tell."""
_STEP_SECONDS: Final = 0.25


class _Act:
    """One of the three."""

    def __init__(self, help_text: str, done: str) -> None:
        self.HELP = help_text
        self._done = done

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the consumer."""
        parser.add_argument("consumer", metavar="CONSUMER", help="its name")
        parser.add_argument(
            "--broker", metavar="ALIAS", help="only at this broker (default: at all)"
        )

    def state(self, options: Mapping[str, Any]) -> ConsumerState:
        """Return what is wanted."""
        raise NotImplementedError

    def run(self, options: Mapping[str, Any], write: Write) -> int:
        """Say what is wanted; tell how many processes do it."""
        name, state = options["consumer"], self.state(options)
        try:
            aliases = brokers_of(name, options["broker"])
            for alias in aliases:
                desire(alias, name, state, Operator(_who()))
            for alias, reached in _wait(aliases, name).items():
                write(f"{self._done} {name} of broker {alias!r}{_told(reached)}")
        except ConfigurationError as error:
            raise CommandError(str(error), returncode=CANNOT) from error
        except Error as error:
            text = f"The database cannot be reached: {describe_error(error)}"
            raise CommandError(text, returncode=CANNOT) from error
        except Exception as error:  # whatever the client of a server raises
            text = f"The server of a broker cannot be reached: {describe_error(error)}"
            raise CommandError(text, returncode=CANNOT) from error
        return 0


class _Pause(_Act):
    def state(self, options: Mapping[str, Any]) -> ConsumerState:
        return ConsumerState(paused=True)


class _Resume(_Act):
    def state(self, options: Mapping[str, Any]) -> ConsumerState:
        return ConsumerState(paused=False)


class _Resize(_Act):
    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "capacity", type=_capacity, metavar="CAPACITY", help="of each channel"
        )

    def state(self, options: Mapping[str, Any]) -> ConsumerState:
        return ConsumerState(capacity=options["capacity"])


PAUSE: Final[Subcommand] = _Pause("Pause a consumer in every process.", "Paused")
RESUME: Final[Subcommand] = _Resume("End the pause of a consumer.", "Resumed")
RESIZE: Final[Subcommand] = _Resize(
    "Give a consumer's channel another capacity, in every process.", "Resized"
)


def _capacity(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= MAX_CAPACITY):
        raise ArgumentTypeError(
            f"{text!r:.50} is no capacity: write a number from 1 to {MAX_CAPACITY}"
        )
    return int(text)


def _who() -> str:
    try:
        return f"{getpass.getuser()} (manage.py)"
    except (OSError, KeyError, ImportError):  # a container without a user of that id
        return "manage.py"


def _wait(aliases: Sequence[str], consumer: str) -> Mapping[str, Progress | None]:
    """Return how far it is so at each broker, once it is so or the time is over."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        found = {alias: progress(alias, consumer) for alias in aliases}
        is_done = all(each is None or each.is_complete for each in found.values())
        if is_done or time.monotonic() >= until:
            return found
        time.sleep(_STEP_SECONDS)


def _told(reached: Progress | None) -> str:
    if reached is None:
        return ": no process tells what it does, as the migrations were not applied."
    if not reached.processes:
        return ": no process that is known runs it now; each that starts will find it."
    return (
        f" in {reached.reached} of {reached.processes} "
        f"process{'es' * (reached.processes != 1)}."
    )
