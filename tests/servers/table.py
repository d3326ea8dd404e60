"""Renders what the matrix found into docs/deployment.md, or tells where it differs.

``python -m tests.servers.table --write`` puts the table between its markers;
``--check`` compares all but the seconds, of the rows that ran on this machine.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Final

from tests.django_site.programs import ROOT
from tests.servers import results
from tests.servers.matrix import MATRIX
from tests.servers.results import Result

PAGE: Final = ROOT / "docs" / "deployment.md"
COMMANDS: Final = ("manage.py shell -c", "manage.py migrate", "manage.py test")
_NAMES: Final = (*(one.name for one in MATRIX), *COMMANDS)
_BETWEEN: Final = re.compile(
    r"(?<=<!-- servers -->\n).*?(?=<!-- /servers -->)", re.DOTALL
)
_SECONDS: Final = re.compile(r"\d+\.\d s")
_HEAD: Final = (
    "| server | consumers live in | queued | drained by | exit code | ends in "
    "| a stuck handler |\n"
    "|---|---|---|---|---|---|---|\n"
)


def render(found: Sequence[Result]) -> str:
    """Return the table, its rows in the order of the matrix."""
    return _HEAD + "".join(map(_line, found))


def _line(one: Result) -> str:
    cells = (
        f"`{one.name}`",
        one.consumers,
        one.queued,
        one.drained_by or "-",
        str(one.status),
        f"{one.seconds} s",
        _tell_stuck(one),
    )
    return f"| {' | '.join(cells)} |\n"


def _tell_stuck(one: Result) -> str:
    if one.stuck_left is None:
        return "-"
    return f"{one.stuck_left} left and counted, after {one.stuck_seconds} s"


def find_differences(page: str, found: Sequence[Result]) -> list[str]:
    """Return the lines of the page, and of this run, that are not in the other."""
    names = {f"`{one.name}`" for one in found}
    told = [line for line in _lines(page) if line.split(" | ")[0][2:] in names]
    seen = [_line(one).strip() for one in found]
    pairs = ((told, seen, "-"), (seen, told, "+"))
    return [
        f"{sign} {line}"
        for lines, others, sign in pairs
        for line in lines
        if _comparable(line) not in set(map(_comparable, others))
    ]


def _lines(page: str) -> list[str]:
    between = _BETWEEN.search(page)
    return between[0].splitlines() if between else []


def _comparable(line: str) -> str:
    return _SECONDS.sub("s", line)


def main(words: Sequence[str]) -> int:
    """Do as the command line says; return 1 where the page is not what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers.table")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--write", action="store_true")
    way.add_argument("--check", action="store_true")
    order = {name: place for place, name in enumerate(_NAMES)}
    found = [one for one in results.load() if one.name in order]
    found.sort(key=lambda one: order[one.name])
    missing = [name for name in _NAMES if name not in {one.name for one in found}]
    if parser.parse_args(words).write:
        return _write(found, missing)
    return _check(found, missing)


def _write(found: Sequence[Result], missing: Sequence[str]) -> int:
    if missing:
        _say("Not run, so nothing is written:", missing)
        return 1
    page = PAGE.read_text()
    PAGE.write_text(_BETWEEN.sub(lambda _: render(found), page))
    return 0


def _check(found: Sequence[Result], missing: Sequence[str]) -> int:
    if missing:
        _say("Not run here, so not compared:", missing)
    differences = find_differences(PAGE.read_text(), found)
    if differences:
        _say(f"{PAGE.name} tells otherwise:", differences)
    return bool(differences) or not found


def _say(what: str, lines: Sequence[str]) -> None:
    print(what, *lines, sep="\n  ")  # noqa: T201 - this is a command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
