"""Over processes that come and go, no message is uncounted and none counted twice."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from tests.conservation.books import Books, read_books
from tests.conservation.ledger.fates import FLAKY_EVERY, HOPELESS_EVERY
from tests.conservation.visiting import visit
from tests.django_site import postgres
from tests.django_site.programs import ROOT, environment
from tests.django_site.waiting import SECONDS, wait_until

REPORT: Final = ROOT / "build" / "tests" / "conservation.txt"
CONSUMERS: Final = ("steady", "slow", "flaky")
_LISTENING: Final = re.compile(r"Listening at: http://127\.0\.0\.1:(\d+)")
_LEFT: Final = re.compile(r"left (\d+) messages in the table of spilled ones")
_BOOTING: Final = re.compile(r"Booting worker with pid")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="gunicorn's workers are looked at: use Linux"
)


@pytest.fixture
def database() -> Iterator[dict[str, Any]]:
    with postgres.serving() as server:
        yield server


class Ledger:
    """Three gunicorn workers that serve the ledger, recycled as they go."""

    def __init__(self, log: Path) -> None:
        self._log = log
        wait_until(lambda: _LISTENING.search(self.log), "gunicorn")
        found = _LISTENING.search(self.log)
        assert found
        self.port = int(found[1])

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def workers_so_far(self) -> int:
        return len(_BOOTING.findall(self.log))

    def books(self) -> Books:
        url = f"http://127.0.0.1:{self.port}/gomq/metrics"
        with urllib.request.urlopen(url, timeout=SECONDS) as page:
            return read_books(page.read().decode())


@contextmanager
def serving(
    folder: Path, database: dict[str, Any], recycle_after: int, **more: str
) -> Iterator[Ledger]:
    numbers = folder / "metrics"
    numbers.mkdir()
    environ = environment(
        DJANGO_SETTINGS_MODULE="tests.conservation.ledger.settings",
        LEDGER_PORT=str(database["PORT"]),
        PROMETHEUS_MULTIPROC_DIR=str(numbers),
        **more,
    )
    migrate = [sys.executable, "-m", "django", "migrate", "--run-syncdb", "-v", "0"]
    subprocess.run(migrate, env=environ, check=True, timeout=SECONDS)
    command = [sys.executable, "-m", "gunicorn", "tests.conservation.ledger.wsgi"]
    command += ["--bind", "127.0.0.1:0", "--workers", "3", "--threads", "4"]
    # For so long a connection may wait for its request.
    command += ["--keep-alive", str(int(SECONDS)), "--no-control-socket"]
    command += ["--max-requests", str(recycle_after)]
    command += ["--max-requests-jitter", str(recycle_after // 4)]
    log = folder / "gunicorn.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environ, stdout=output, stderr=output)
        try:
            yield Ledger(log)
        finally:
            process.terminate()
            code = process.wait(SECONDS * 2)
            sys.stdout.write(log.read_text())  # shown where the test fails
            assert code == 0


def complete_books(
    ledger: Ledger, requests: int, consumers: Sequence[str] = CONSUMERS
) -> Books:
    """Return the first page that has all that the workers counted, while they count on.

    They write it once a second, and one that is recycled at its end, after its drain.
    Another worker's page may be a second older than the one that was complete.
    """
    pages = [ledger.books()]

    def is_counted_on() -> bool:
        page = ledger.books()
        if counted(page, consumers) == counted(pages[-1], consumers):
            return False
        pages.append(page)
        return True

    while not is_complete(pages[-1], requests, consumers):
        wait_until(is_counted_on, "workers that count on")
    return pages[-1]


def counted(books: Books, consumers: Sequence[str]) -> tuple[float, ...]:
    """Return what is held, what was published, and what has ended at each consumer."""
    ended = (sum(books.ended(name).values()) for name in consumers)
    return float(books.held), books.sum("messages_published_total"), *ended


def is_complete(books: Books, requests: int, consumers: Sequence[str]) -> bool:
    """Whether all that was asked for was published and has ended."""
    held, *counts = counted(books, consumers)
    return not held and set(counts) == {requests}


def rows(database: dict[str, Any]) -> Counter[tuple[str, str]]:
    address = {key.lower(): value for key, value in database.items() if key != "NAME"}
    with psycopg.connect(**address, dbname=database["NAME"]) as connection:
        found = connection.execute(
            "SELECT consumer, what, count(*) FROM ledger_row GROUP BY 1, 2"
        )
        return Counter({(consumer, what): count for consumer, what, count in found})


def _report(what: str, numbers: Mapping[Any, Any]) -> None:
    """Keep the sums for whoever asks what the last run saw."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    with REPORT.open("a") as report:
        report.write(f"{what}: {dict(numbers)}\n")


@pytest.mark.parametrize(
    "requests",
    [1500, pytest.param(50_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_sums_over_recycled_workers_obey_the_law_and_agree_with_the_handlers_rows(
    tmp_path: Path, database: dict[str, Any], requests: int
) -> None:
    REPORT.unlink(missing_ok=True)
    with serving(tmp_path, database, recycle_after=requests // 12) as ledger:
        answers = visit(ledger.port, requests)
        books, workers = complete_books(ledger, requests), ledger.workers_so_far
        written = rows(database)

    published = books.sum("messages_published_total")
    ended = {name: books.ended(name) for name in CONSUMERS}
    _report(f"{requests} requests, {workers} workers one after the other", answers)
    _report("on /gomq/metrics", ended)
    _report("rows of the handlers", written)
    hopeless, flaky = requests // HOPELESS_EVERY, requests // FLAKY_EVERY

    assert workers > 3
    assert sum(answers.values()) == requests
    assert published == answers["200 accepted"] == requests
    assert {name: sum(one.values()) for name, one in ended.items()} == (
        dict.fromkeys(CONSUMERS, published)
    )
    assert {name: one["succeeded"] for name, one in ended.items()} == (
        {name: written[name, "wrote"] for name in CONSUMERS}
    )
    assert ended["steady"] == {"succeeded": requests, "dropped": 0, "dead-lettered": 0}
    assert ended["slow"]["dropped"] > 0
    assert ended["flaky"]["dead-lettered"] == hopeless
    assert written["flaky", "failed"] == flaky - hopeless + 3 * hopeless
    assert (
        books.sum("messages_processed_total", consumer="flaky", outcome="error")
        == written["flaky", "failed"]
    )
    assert books.sum("message_retries_total", consumer="flaky") == flaky + hopeless
    assert "Traceback" not in ledger.log


@pytest.mark.parametrize(
    "requests",
    [1500, pytest.param(20_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_what_recycled_workers_leave_in_the_table_others_handle_and_nothing_is_dropped(
    tmp_path: Path, database: dict[str, Any], requests: int
) -> None:
    every = requests // 12
    with serving(tmp_path, database, every, LEDGER_SPILLS="1") as ledger:
        answers = visit(ledger.port, requests)
        books = complete_books(ledger, requests, ("spilling",))
        workers, written = ledger.workers_so_far, rows(database)
        left = [int(count) for count in _LEFT.findall(ledger.log)]

    _report(f"{requests} requests, {workers} workers that spill", answers)
    _report("left by each of those that ended", Counter(left))
    assert workers > 3
    assert sum(left) > 0, "no worker left anything"
    assert answers == {"200 accepted": requests}
    assert books.ended("spilling") == {
        "succeeded": requests,
        "dropped": 0,
        "dead-lettered": 0,
    }
    assert written == {("spilling", "wrote"): requests}
    assert "Traceback" not in ledger.log
