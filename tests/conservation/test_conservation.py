"""Over processes that come and go, no message is uncounted and none counted twice."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
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
    folder: Path, database: dict[str, Any], recycle_after: int
) -> Iterator[Ledger]:
    numbers = folder / "metrics"
    numbers.mkdir()
    environ = environment(
        DJANGO_SETTINGS_MODULE="tests.conservation.ledger.settings",
        LEDGER_PORT=str(database["PORT"]),
        PROMETHEUS_MULTIPROC_DIR=str(numbers),
    )
    migrate = [sys.executable, "-m", "django", "migrate", "--run-syncdb", "-v", "0"]
    subprocess.run(migrate, env=environ, check=True, timeout=SECONDS)
    command = [sys.executable, "-m", "gunicorn", "tests.conservation.ledger.wsgi"]
    command += ["--bind", "127.0.0.1:0", "--workers", "3", "--threads", "4"]
    command += ["--keep-alive", "0", "--no-control-socket"]
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


def is_complete(books: Books, requests: int) -> bool:
    """Whether every worker has written what it counted.

    They do so once a second, and one that is recycled at its end, after its drain.
    """
    ended = [sum(books.ended(name).values()) for name in CONSUMERS]
    published = books.sum("messages_published_total")
    return not books.held and {requests} == {published, *ended}


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
        wait_until(
            lambda: is_complete(ledger.books(), requests), "all that workers count"
        )
        books, workers = ledger.books(), ledger.workers_so_far
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
