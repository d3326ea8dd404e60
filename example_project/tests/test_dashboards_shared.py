"""Boards and rules where all workers share one page, and what a kill leaves on it."""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from acceptance.ports import free_port
from acceptance.server import Server
from dashboards import reading
from dashboards.reading import Asked
from tests.answers import Answers, ask_until, is_for_a_database, wait_for
from tests.observed_clinic import PATIENCE, gave_up, load, need_programs
from watching.observatory import Observatory

GAP = "gomq:conservation_gap:sum"
LABORATORY = '{consumer="laboratory.analysis"}'
HELD = f"gomq:channel_held:sum{LABORATORY}"


@dataclass(frozen=True)
class Seen:
    """What Prometheus said before every worker was killed, and after."""

    without_answer: list[Asked]
    processes: float
    gap_under_load: float
    gap_after_the_kill: float
    """Of the laboratory."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Two workers and one of the database under load; the two are killed."""
    need_programs()
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as running:
        folder = tmp_path_factory.mktemp("numbers")
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
        patch.setenv("GUNICORN_CMD_ARGS", "--workers 2 --timeout 120")
        server = running.enter_context(Server(free_port(0), backend="database"))
        site = urlsplit(server.url).netloc
        observatory = running.enter_context(
            Observatory(site, "127.0.0.1:1", ports=(0, 0))
        )
        yield look(server, Answers(observatory.prometheus_url))


def look(server: Server, prometheus: Answers) -> Seen:
    with load(server) as switch:
        switch.turn("flaky")
        wait_for(PATIENCE, lambda: gave_up(prometheus), "dead letters")
        switch.turn("slow")
        wait_for(PATIENCE, lambda: sum(prometheus.numbers(HELD)) > 50, "a full channel")
        asked = [
            query
            for board in reading.boards()
            for query in reading.queries(board)
            if is_for_a_database(query.expr)
        ]
        answers = ask_until(
            PATIENCE, asked, lambda query: prometheus.numbers(query.expr)
        )
        without_answer = [query for query, found in answers.items() if not found]
        processes = wait_for_number(
            lambda: sum(prometheus.numbers("gomq_processes")),
            lambda number: number == 3,
        )
        # A scrape may see a message in two of its places, or in none.
        balance = f"min_over_time({GAP}[10s])"
        gap = wait_for_number(
            lambda: max(prometheus.numbers(balance), default=math.inf),
            lambda number: number == 0,
        )
        # Under load, as what is held would be handled meanwhile on a slow machine.
        kill_workers(server)
    left = wait_for_number(
        lambda: sum(prometheus.numbers(GAP + LABORATORY)), lambda number: number > 10
    )
    return Seen(without_answer, processes, gap, left)


def wait_for_number(
    ask: Callable[[], float], is_right: Callable[[float], bool]
) -> float:
    """Ask until the number is right, or time is up; return the last one."""
    number = ask()

    def is_so() -> bool:
        nonlocal number
        number = ask()
        return is_right(number)

    with contextlib.suppress(AssertionError):  # the test says which one is wrong
        wait_for(PATIENCE, is_so, "a number")
    return number


def kill_workers(server: Server) -> None:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    if not children.exists():
        pytest.skip("there is no /proc with children here; to run it: Linux")
    for worker in children.read_text().split():
        os.kill(int(worker), signal.SIGKILL)


def test_every_query_has_an_answer_where_workers_share_their_numbers(
    seen: Seen,
) -> None:
    assert seen.without_answer == []
    assert seen.processes == 3


def test_the_books_balance_under_load(seen: Seen) -> None:
    assert seen.gap_under_load == 0


def test_what_a_kill_took_along_is_the_conservation_gap(seen: Seen) -> None:
    assert seen.gap_after_the_kill > 10
