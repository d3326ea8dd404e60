"""``manage.py gomq``: hands over to its subcommands, and does nothing itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_gomq.management import (
    dashboards,
    dead_letters,
    doctor,
    history,
    listing,
    operators,
    setup,
    stats,
    tail,
    tree,
    worker,
)
from django_gomq.management.subcommand import Subcommand
from django_gomq.management.tables import screen_of

SUBCOMMANDS: Final[Mapping[str, Subcommand]] = {
    "dashboards": dashboards,
    "dead-letters": dead_letters,
    "doctor": doctor,
    "list": listing,
    "pause": operators.PAUSE,
    "prune": history.PRUNE,
    "replay": history.REPLAY,
    "resize": operators.RESIZE,
    "resume": operators.RESUME,
    "setup": setup,
    "stats": stats,
    "tail": tail,
    "tree": tree,
    "worker": worker,
}
USAGE_ERROR: Final = 2


class Command(BaseCommand):
    """Looks at the event bus from the command line."""

    help = "The event bus: " + ", ".join(SUBCOMMANDS) + "."
    # A probe asks every few seconds, and wrong settings end Django before it comes
    # here: the checks of the whole project would add time and nothing else.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add a parser for each subcommand."""
        program = parser.prog
        parsers = parser.add_subparsers(
            dest="subcommand", prog=program, help=argparse.SUPPRESS
        )
        for name, subcommand in SUBCOMMANDS.items():
            own = parsers.add_parser(name, description=subcommand.HELP)
            subcommand.add_arguments(own)
            _add_common(own)
        # Shown with each error too, so that who mistypes one sees what there is.
        parser.usage = _usage(program)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the subcommand, and end with its exit code if that is not 0."""
        name = options["subcommand"]
        if name is None:
            self.stderr.write(f"usage: {_usage('manage.py gomq')}")
            sys.exit(USAGE_ERROR)
        _refuse_undecodable(options)
        options["is_terminal"] = self.stdout.isatty()
        options["screen"] = screen_of(
            self.stdout,
            no_color=options["no_color"],
            force_color=options["force_color"],
        )
        code = SUBCOMMANDS[name].run(options, self._write)
        if code:
            sys.exit(code)

    def _write(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def _refuse_undecodable(options: Mapping[str, Any]) -> None:
    """Raise CommandError for an argument whose bytes are no text in this locale."""
    for name, value in options.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not _is_decoded(text):
                raise CommandError(
                    f"{name} is {text!r:.120}: its bytes are no text in the encoding "
                    f"of this terminal, {sys.getfilesystemencoding()}.",
                    returncode=USAGE_ERROR,
                )


def _is_decoded(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _usage(program: str) -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:{width}}  {item.HELP}" for name, item in SUBCOMMANDS.items()]
    return "\n".join([f"{program} SUBCOMMAND [options]", "", *lines, ""])


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Take Django's own options behind the subcommand too, where people write them."""
    group = parser.add_argument_group("options of every command")
    suppress = argparse.SUPPRESS
    group.add_argument(
        "-v", "--verbosity", type=int, choices=range(4), default=suppress
    )
    for option in ("--settings", "--pythonpath"):
        group.add_argument(option, default=suppress)
    for option in ("--traceback", "--no-color", "--force-color"):
        group.add_argument(option, action="store_true", default=suppress)
