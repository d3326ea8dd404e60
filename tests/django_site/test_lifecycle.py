from __future__ import annotations

import logging
import math
import threading

import pytest
from django.test import override_settings

from django_gomq import Message, consumer, emit, get_broker, site
from django_gomq.testing import live
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import hold, listen, wait_quiet
from tests.django_site.waiting import SECONDS, wait_until

BOTH: dict[str, dict[str, str]] = {"default": {}, "second": {}}


_before: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def note_threads() -> None:
    """What other tests left behind says nothing of this one."""
    _before.clear()
    _before.update(threading.enumerate())


def bus_threads() -> list[str]:
    names = [one.name for one in threading.enumerate() if one not in _before]
    return [name for name in names if name.startswith("gomq-")]


def test_nothing_starts_before_the_first_emit(live_site: UseSite) -> None:
    seen = listen("page.viewed")
    site = live_site(THREADS=2)
    before = bus_threads(), site.worker, get_broker().is_started

    emit("page.viewed")

    seen.wait_for(1)
    assert before == ([], None, False)
    assert "gomq-handler-2" in bus_threads()
    assert all(one.daemon for one in threading.enumerate() if "gomq" in one.name)


def test_fifty_threads_that_race_to_start_start_once(live_site: UseSite) -> None:
    seen = listen("page.viewed")
    live_site(THREADS=2)
    barrier = threading.Barrier(50)

    def race() -> None:
        barrier.wait(SECONDS)
        emit("page.viewed")

    racers = [threading.Thread(target=race) for _ in range(50)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(SECONDS)

    seen.wait_for(50)
    assert sorted(bus_threads()).count("gomq-handler-1") == 1
    assert len([name for name in bus_threads() if "handler" in name]) == 2


def test_close_finishes_what_was_accepted(live_site: UseSite) -> None:
    seen = listen("page.viewed")
    live_site(DRAIN_TIMEOUT=SECONDS)
    for number in range(200):
        emit("page.viewed", number)

    site.close()

    assert seen.data == list(range(200))
    wait_until(lambda: bus_threads() == [], "threads to end")


@pytest.mark.parametrize(
    ("argv", "seconds"),
    [
        (["manage.py", "runserver"], 1.0),
        (["manage.py", "gomq", "worker"], 10.0),
        (["manage.py", "import_records"], math.inf),
        (["import_records.py"], math.inf),
        (["/venv/bin/celery", "worker"], 10.0),
        (["/lib/celery/__main__.py", "worker"], 10.0),
    ],
)
def test_who_waits_for_the_end_decides_how_long_it_may_take(
    own_registry: None, monkeypatch: pytest.MonkeyPatch, argv: list[str], seconds: float
) -> None:
    monkeypatch.setattr("sys.argv", argv)

    with override_settings(GOMQ={}):
        assert get_broker().drain_timeout == seconds
    with override_settings(GOMQ={"DRAIN_TIMEOUT": 3.0}):
        assert get_broker().drain_timeout == 3.0


def test_a_server_may_drain_for_ten_seconds(
    own_registry: None,
) -> None:
    with live(), override_settings(GOMQ={}):
        assert get_broker().drain_timeout == 10.0


def test_close_counts_and_logs_what_is_left(
    live_site: UseSite, caplog: pytest.LogCaptureFixture
) -> None:
    held = hold("page.viewed")
    site = live_site(DRAIN_TIMEOUT=0.05)
    for number in range(4):
        emit("page.viewed", number)
    assert held.entered.wait(SECONDS)

    def lines() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == "gomq.bus"]

    with caplog.at_level(logging.WARNING):
        site.close()
        wait_until(lines, "the line")

    stats = site.brokers["default"].stats().consumers["held"]
    held.release.set()
    assert sum(stats.dropped.values()) == 3
    [line] = lines()
    assert "page.viewed" in line.getMessage()


def test_close_is_idempotent_and_needs_no_start(live_site: UseSite) -> None:
    site = live_site()

    site.close()
    site.close()

    assert bus_threads() == []
    assert not site.brokers["default"].is_closed


def test_the_time_to_drain_is_for_all_brokers_together(
    live_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django_gomq.bus.broker import Broker

    given: list[float | None] = []
    listen("page.viewed", "blog.read")
    site = live_site(BROKERS=BOTH, ROUTES={"blog.*": "second"}, DRAIN_TIMEOUT=60)
    emit("page.viewed")
    emit("blog.read")
    wait_quiet()
    wait_quiet("second")
    close = Broker.close

    def note(broker: Broker, timeout: float | None = None) -> object:
        given.append(timeout)
        return close(broker, timeout)

    monkeypatch.setattr(Broker, "close", note)
    site.close()

    assert len(given) == 2
    assert given[0] is not None
    assert given[1] is not None
    assert 60 >= given[0] > given[1]


def test_after_the_end_nothing_starts_again(live_site: UseSite) -> None:
    listen("page.viewed", "blog.read")
    live_site(BROKERS=BOTH, ROUTES={"blog.*": "second"})
    emit("page.viewed")
    site.close()

    receipts = [emit("page.viewed"), emit("blog.read")]

    assert [one.reason for one in receipts] == ["closed", "not_running"]
    wait_until(lambda: bus_threads() == [])


def test_every_handler_runs_in_a_fresh_context(live_site: UseSite) -> None:
    from contextvars import ContextVar

    variable: ContextVar[str] = ContextVar("variable", default="fresh")
    values: list[str] = []

    def handle(message: Message[str]) -> None:
        values.append(variable.get())
        variable.set("used")

    consumer("page.viewed", name="reads")(handle)
    live_site()
    variable.set("emitter's")

    for _ in range(3):
        emit("page.viewed")

    wait_quiet()
    assert values == ["fresh"] * 3
