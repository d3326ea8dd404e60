"""``python -m dashboards.pictures``: takes pictures of the boards that ship.

Needs Debian's chromium, npm and pngquant, and a Prometheus that watches a site;
``make pictures`` brings one along.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from dashboards.links import OVERVIEW
from dashboards.pictures.asking import (
    SCRAPE_INTERVAL,
    AskingError,
    Prometheus,
    Span,
    ask,
)
from dashboards.pictures.showing import Screen, ShowingError, opened
from dashboards.reading import boards

FOLDER: Final = Path(__file__).parents[2] / "docs" / "images"
SCHEMES: Final = ("light", "dark")
README_HEIGHT: Final = 1046
"""Pixels: the top of the overview, down to the flow."""


def main() -> int:
    """Take them; return the exit status: 1 if something is wrong with one."""
    chosen = _arguments()
    span = Span(chosen.end - int(60 * chosen.minutes), chosen.end)
    try:
        with opened() as screen:
            wrong = [
                f"{board['title']}: {one}"
                for board in boards()
                if not chosen.boards or board["uid"] in chosen.boards
                for one in _take(screen, board, span, chosen)
            ]
    except (AskingError, ShowingError, OSError) as error:
        wrong = [str(error)]
    sys.stderr.writelines(f"{one}\n" for one in wrong)
    return 1 if wrong else 0


def _take(
    screen: Screen, board: dict[str, Any], span: Span, chosen: argparse.Namespace
) -> list[str]:
    prometheus = Prometheus(chosen.prometheus, chosen.scrape_interval)
    shown = {
        "board": board,
        **ask(prometheus, board, span, dict(chosen.var), width=screen.width),
        "range": {"from": span.start * 1000, "to": span.end * 1000},
        "span": _words(span),
    }
    name = f"board-{board['uid'].removeprefix('gomq-')}"
    wrong: list[str] = []
    for scheme in SCHEMES:
        found = screen.show(shown | {"scheme": scheme})
        wrong += [one for one in found if one not in wrong]
        screen.take(chosen.out / f"{name}-{scheme}.png")
    if board["uid"] == OVERVIEW:
        screen.take(chosen.out / f"{name}.png", README_HEIGHT)
    return wrong


def _words(span: Span) -> str:
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (span.start, span.end))
    return f"{begin:%Y-%m-%d %H:%M} to {end:%H:%M} UTC"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dashboards.pictures", description=__doc__
    )
    add = parser.add_argument
    add("boards", nargs="*", help="their uids; all without any")
    add("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    add("--minutes", type=float, default=60, help="how long (default: 60)")
    add("--end", type=int, default=int(time.time()), help="seconds of the epoch: now")
    add(
        "--scrape-interval",
        type=float,
        default=SCRAPE_INTERVAL,
        help="seconds, as a data source of Grafana says it (default: 15)",
    )
    add("--var", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    add("--out", type=Path, default=FOLDER, help="default: docs/images")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
