"""The command line: `python -m benchmarks`, as `make bench` runs it."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.curve_groups import curve_groups
from benchmarks.figures import GroupResults
from benchmarks.groups import goal_groups, python_groups
from benchmarks.plan import FULL, QUICK, Group, Scale, on_each
from benchmarks.report import machine
from benchmarks.report.curves import write_curves
from benchmarks.report.goals import write_goals
from benchmarks.report.page import replace_part
from benchmarks.report.pythons import write_pythons
from benchmarks.report.servers import write_servers
from benchmarks.report.tables import draw_errors, errors_in
from benchmarks.rounds import Tell, play
from benchmarks.server_groups import server_groups
from benchmarks.servers.running import servers

BUILD = Path("build/bench")
DOCS = Path("docs")


@dataclass(frozen=True, slots=True)
class Part:
    """What one command measures, and how its part of the page is written."""

    command: str
    groups: Callable[[Scale], Iterator[Group]]
    write: Callable[[GroupResults, Path], str]
    serving: Callable[[], AbstractContextManager[object]] = nullcontext
    """What runs beside the cases."""


PARTS: Mapping[str, Part] = {
    "goals": Part("make bench", goal_groups, write_goals),
    "curves": Part("make bench-curves", curve_groups, write_curves),
    "pythons": Part("make bench-pythons", python_groups, write_pythons),
    "servers": Part("make bench-servers", server_groups, write_servers, servers),
}


def main(arguments: Sequence[str]) -> int:
    """Run one part, save what it found, and write its part of the page."""
    # As after Ctrl-C, processes are ended and their files removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    asked = _parse(arguments)
    # Figures of a part of the cases, or of short runs, are not for the docs.
    is_whole = not (asked.quick or asked.only)
    build, docs = (BUILD, DOCS) if is_whole else (BUILD / "partial",) * 2
    build.mkdir(parents=True, exist_ok=True)
    saved = build / "results.json"
    failed = False if asked.redraw else _measure(asked, build, saved)
    _write(asked.part, json.loads(saved.read_text())[asked.part], docs)
    return int(failed)


def _measure(asked: argparse.Namespace, build: Path, saved: Path) -> bool:
    """Run what was asked for and save it; return whether a case of ours failed."""
    part = PARTS[asked.part]
    began = time.monotonic()
    groups = list(_choose(part, asked))
    with part.serving():
        results = _play_all(groups, build / "cases.log", _teller(began))
    spent = time.monotonic() - began
    about = machine.describe(_command(part, asked), spent, _versions(asked))
    _save(saved, asked.part, {"about": about, "groups": results})
    return _has_failed(groups, results)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, default="goals")
    parser.add_argument(
        "--quick", action="store_true", help="small numbers, to see that it runs"
    )
    parser.add_argument("--runs", type=int, help="rounds, 5 by default")
    parser.add_argument("--only", help="groups whose name has this text in it")
    parser.add_argument(
        "--python", action="append", metavar="LABEL=PATH", help="measure on this one"
    )
    parser.add_argument(
        "--redraw", action="store_true", help="measure nothing, write the page again"
    )
    return parser.parse_args(arguments)


def _choose(part: Part, asked: argparse.Namespace) -> Iterator[Group]:
    scale = QUICK if asked.quick else FULL
    if asked.runs:
        scale = replace(scale, runs=asked.runs)
    for group in part.groups(scale):
        if asked.only is None or asked.only in group.name:
            yield _on_pythons(asked.python, group)


def _on_pythons(named: Sequence[str] | None, group: Group) -> Group:
    if not named:
        return group
    return on_each(dict(one.split("=", 1) for one in named), group)


def _command(part: Part, asked: argparse.Namespace) -> str:
    quick = ["--quick"] * asked.quick
    only = [f"--only '{asked.only}'"] if asked.only else []
    if not quick and not only:
        return part.command
    return " ".join(["python -m benchmarks", asked.part, *quick, *only])


def _versions(asked: argparse.Namespace) -> list[str]:
    paths = [one.partition("=")[2] for one in asked.python or []] or [sys.executable]
    return [
        subprocess.check_output(  # noqa: S603 - an interpreter that was asked for
            [path, "-c", "import platform; print(platform.python_version())"], text=True
        ).strip()
        for path in paths
    ]


def _play_all(groups: Iterable[Group], log: Path, tell: Tell) -> GroupResults:
    log.unlink(missing_ok=True)
    return {group.name: play(group, log, tell) for group in groups}


def _teller(began: float) -> Tell:
    return lambda text: print(f"[{time.monotonic() - began:4.0f} s] {text}", flush=True)


def _save(path: Path, part: str, found: Mapping[str, Any]) -> None:
    """Keep every answer of every round; other parts of the file stay."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**kept, part: found}, indent=1))


def _write(name: str, found: Mapping[str, Any], docs: Path) -> None:
    """Write the part's section of the page and its plots, and print it."""
    results = found["groups"]
    about = machine.write(found["about"])
    text = f"{about}\n\n{PARTS[name].write(results, docs / 'images')}"
    errors = draw_errors(results)
    whole = f"{text}\n\n{errors}" if errors else text
    replace_part(docs / "benchmarks.md", name, whole)
    print(whole, flush=True)


def _has_failed(groups: Iterable[Group], results: GroupResults) -> bool:
    """Whether a case of this project failed; a peer that cannot run is a result."""
    ours = {
        (group.name, case.name)
        for group in groups
        for case in group.cases
        if case.is_ours
    }
    return any((group, case) in ours for group, case, _ in errors_in(results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
