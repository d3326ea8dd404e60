"""What a server does from its first request to its end; it judges nothing."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.django_site.waiting import wait_until
from tests.servers import processes
from tests.servers.asking import Ask
from tests.servers.configuration import Configuration
from tests.servers.serving import Ending, Server, serving
from tests.servers.ward.rounds import Answer

QUEUED: Final = 20
STUCK: Final = 3
DRAIN_LIMIT: Final = 25.0  # less than what gunicorn and others wait
BRIEF_LIMIT: Final = 1.0

HANDLED: Final = re.compile(
    r"^gomq_messages_processed_total\{(?=.*ward\.slow)(?=.*success).*\} 1\.0$",
    re.MULTILINE,
)
_DRAIN_LINE: Final = re.compile(
    r"^ward (\d+) INFO gomq\.shutdown: Drained by (\w+) in ([\d.]+) s: (\d+) left$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Drain:
    """One line about a drain."""

    pid: int
    trigger: str
    seconds: float
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A server that was asked to emit slow events, until its end."""

    pid: int
    """Of the process that was started."""
    before: Mapping[int, Answer]
    """By worker: what it answered before any emit."""
    after: Mapping[int, Answer]
    """By worker: what it answered to its first emit."""
    others_before: Mapping[int, int]
    """By process that answers no request: how many threads it had."""
    others_after: Mapping[int, int]
    page: str
    """The metrics after one event was handled; empty where many workers have some."""
    emitter: Answer
    """Of the worker that had emitted ``QUEUED`` events when the signal came."""
    ending: Ending


@dataclass(frozen=True, slots=True)
class Observation:
    """One row, run three times: with slow handlers, with stuck ones, without gomq."""

    slow: Run
    stuck: Ending
    without: Ending


def observe(configuration: Configuration, folder: Path) -> Observation:
    """Run a row; its three runs share nothing, and take place at once."""
    with ThreadPoolExecutor(3) as pool:
        slow = pool.submit(_run_slow, configuration, folder / "slow")
        stuck = pool.submit(_end_stuck, configuration, folder / "stuck")
        without = pool.submit(_end_without, configuration, folder / "without")
    return Observation(slow.result(), stuck.result(), without.result())


def _run_slow(configuration: Configuration, folder: Path) -> Run:
    limit = str(DRAIN_LIMIT)
    with serving(configuration, folder, WARD_DRAIN_TIMEOUT=limit) as server:
        before = server.ask_all(Ask())
        others_before = _threads_of_others(server, before)
        after = server.ask_all(Ask("emit", "slow", 1))
        page = _read_page(server) if configuration.has_one_page else ""
        others_after = _threads_of_others(server, before)
        emitter = server.emit("slow", QUEUED)
        ending = server.end()
    return Run(
        pid=server.pid,
        before=before,
        after=after,
        others_before=others_before,
        others_after=others_after,
        page=page,
        emitter=emitter,
        ending=ending,
    )


def _read_page(server: Server) -> str:
    """Return the page once it counts the first event, or in the end as it is."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: HANDLED.search(server.read_metrics()))
    return server.read_metrics()


def _threads_of_others(server: Server, workers: Mapping[int, Answer]) -> dict[int, int]:
    others = processes.family_of(server.pid) - set(workers)
    return {pid: processes.threads_of(pid) for pid in others}


def _end_stuck(configuration: Configuration, folder: Path) -> Ending:
    limit = {"WARD_DRAIN_TIMEOUT": str(BRIEF_LIMIT)}
    environ = {} if configuration.drains_briefly else limit
    with serving(configuration, folder, **environ) as server:
        server.ask_all(Ask())  # granian's workers miss a signal while they start
        server.emit("stuck", STUCK)
        wait_until(lambda: server.noted("stuck"), "the first that is stuck")
        return server.end()


def _end_without(configuration: Configuration, folder: Path) -> Ending:
    with serving(configuration, folder, WARD_WITHOUT_GOMQ="yes") as server:
        server.ask_all(Ask())
        return server.end()


def drains_in(log: str) -> list[Drain]:
    """Return what a log tells of drains."""
    found = _DRAIN_LINE.findall(log)
    return [
        Drain(int(pid), trigger, float(seconds), int(left))
        for pid, trigger, seconds, left in found
    ]


def warnings_in(log: str) -> list[str]:
    """Return the lines in which the package warns, or worse."""
    return [line for line in log.splitlines() if _is_warning(line)]


def _is_warning(line: str) -> bool:
    words = line.split(maxsplit=3)
    return words[:1] == ["ward"] and words[2:3] in (["WARNING"], ["ERROR"])


def handled_by(ending: Ending, pid: int) -> list[int]:
    """Return the numbers of the slow events that a process emitted and handled."""
    return [
        one.number
        for one in ending.journal
        if one.what == "slow" and one.pid == one.emitter == pid
    ]
