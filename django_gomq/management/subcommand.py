"""What a subcommand of ``manage.py gomq`` has to be."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from typing import Any, Protocol

Write = Callable[[str], None]
"""Takes lines for standard output, without the last newline, and flushes them."""


class Subcommand(Protocol):
    """A module with these names."""

    @property
    def HELP(self) -> str:  # noqa: N802 - a constant of the module
        """One line."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add options to the subcommand's own parser."""

    def run(self, options: Mapping[str, Any], write: Write) -> int:
        """Do it and return the exit code.

        ``options`` are those of the subcommand and of every Django command, and
        ``is_terminal`` and ``screen``, on which tables are drawn. Raises CommandError,
        with a ``returncode``, for what the user has to change.
        """
