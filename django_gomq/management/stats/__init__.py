"""``gomq stats``: the numbers of the running processes, and whether they are fine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django_gomq.management.subcommand import Write

from .arguments import add_arguments

__all__ = ["HELP", "add_arguments", "run"]

HELP: Final = "Show what waits, runs, failed and was dropped; fit for probes."


def run(options: Mapping[str, Any], write: Write) -> int:
    """Show the numbers once, or until Ctrl-C.

    Returns 0, or 1 if something is above its limit. Raises CommandError, with
    ``returncode`` 2, where there are no numbers to be had.
    """
    from .command import show  # noqa: PLC0415 - help needs no client of Prometheus

    return show(options, write)
