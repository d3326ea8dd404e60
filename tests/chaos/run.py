"""One run on one server: load, kills, a drain, and the judgement."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from tests.chaos import journal, on_database, on_redis
from tests.chaos.history import History
from tests.chaos.site import PATIENCE, ChaosSite
from tests.chaos.target import Target


class Outcome(msgspec.Struct, frozen=True):
    """What came of a run."""

    summary: str
    problems: tuple[str, ...]


Serving = Callable[[Path], AbstractContextManager[Target]]

BACKENDS: Final[Mapping[str, Mapping[str, Serving]]] = {
    "database": {
        "sqlite": on_database.sqlite,
        "postgresql": on_database.postgresql,
        "mariadb": on_database.mysql,
    },
    "redis": {
        "redis": partial(on_redis.serving, "redis"),
        "valkey": partial(on_redis.serving, "valkey"),
    },
}
"""The servers of each backend."""


def _wait_until_drained(target: Target, site: ChaosSite) -> Mapping[str, int]:
    """Wait as long as something is done; a busy machine takes its time."""
    left = target.left()
    until = time.monotonic() + PATIENCE
    while any(left.values()) and time.monotonic() < until:
        assert all(process.poll() is None for process in site.workers), site.log
        time.sleep(0.2)
        before, left = left, target.left()
        if sum(left.values()) < sum(before.values()):
            until = time.monotonic() + PATIENCE
    return left


def _wait_until_ended(target: Target, alive: int) -> None:
    """Wait until the living have found all the dead."""
    until = time.monotonic() + PATIENCE
    while target.unended() > alive and time.monotonic() < until:
        time.sleep(0.2)


def run(backend: str, vendor: str, kills: int, folder: Path, lease: float) -> Outcome:
    """Kill so many workers on one server; return what came of it."""
    began = time.monotonic()
    with BACKENDS[backend][vendor](folder) as target:
        site = ChaosSite(target, folder, lease)
        try:
            site.prepare()
            site.run_and_kill(kills)
            site.stop_emitters()
            left = _wait_until_drained(target, site)
            _wait_until_ended(target, len(site.workers))
            codes = site.stop_workers()
            unended = target.unended()
            history = History(
                target.committed(),
                tuple(journal.read(folder)),
                target.dead_letters(),
                is_transactional=not target.url,
                is_ordered=target.is_ordered,
                deaths=target.deaths,
                lease=lease,
            )
        finally:
            site.close()
    problems = [f"left: {count} {name}" for name, count in left.items() if count]
    problems += [f"exit code of a drained worker: {code}" for code in codes if code]
    if unended:
        problems.append(f"processes without an end: {unended}")
    problems += history.problems()
    seconds = time.monotonic() - began
    summary = f"{vendor}, {seconds:.0f} s: {history.summary()}"
    return Outcome(summary, tuple(problems))
