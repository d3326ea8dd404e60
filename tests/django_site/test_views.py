from __future__ import annotations

import asyncio
import math
import re
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.dispatch import Signal
from django.test import AsyncClient, Client, RequestFactory

from django_gomq import consumer, emit, emit_on_signal, get_broker, views
from django_gomq.bus.counts import FINE_BUCKETS
from django_gomq.site import brokers
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import fill, hold, listen, wait_quiet
from tests.django_site.waiting import wait_until

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def test_the_page_is_plain_text_by_default(use_site: UseSite) -> None:
    listen("page.viewed")
    use_site()

    response = Client().get("/gomq/metrics")

    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    assert 'gomq_channel_capacity{broker="default",consumer="seen"}' in (
        response.content.decode()
    )
    assert "no-store" in response["Cache-Control"]


def test_the_page_is_openmetrics_if_asked_for(use_site: UseSite) -> None:
    use_site()

    response = Client().get("/gomq/metrics", headers={"accept": OPENMETRICS})

    assert response["Content-Type"].startswith("application/openmetrics-text")
    assert response.content.endswith(b"# EOF\n")


def test_the_page_shows_what_was_handled(live_site: UseSite) -> None:
    seen = listen("page.viewed")
    live_site()
    emit("page.viewed")
    seen.wait_for(1)
    series = (
        'gomq_messages_processed_total{broker="default",consumer="seen",'
        'event="page.viewed",outcome="success"} 1.0'
    )

    wait_until(lambda: series in Client().get("/gomq/metrics").content.decode())


def test_the_buckets_are_settings(use_site: UseSite) -> None:
    listen("page.viewed")
    use_site(METRICS={"WAIT_BUCKETS": [7, 8], "HANDLER_BUCKETS": [9]})

    page = Client().get("/gomq/metrics").content.decode()

    bounds = {
        name: re.findall(rf'{name}_bucket\{{[^}}]*le="([^"]*)"', page)
        for name in ("gomq_message_wait_seconds", "gomq_handler_duration_seconds")
    }
    assert bounds == {
        "gomq_message_wait_seconds": ["7.0", "8.0", "+Inf"],
        "gomq_handler_duration_seconds": ["9.0", "+Inf"],
    }


@pytest.mark.parametrize("undeclared", [0, 1])
def test_undeclared_events_share_a_label_unless_the_setting_allows_them(
    live_site: UseSite, undeclared: int
) -> None:
    seen = listen("page.*")
    live_site(METRICS={"UNDECLARED_EVENTS": undeclared}, EVENTS=["page.viewed"])
    for event in ("page.viewed", "page.clicked"):
        emit(event)
    seen.wait_for(2)
    wait_quiet()

    page = Client().get("/gomq/metrics").content.decode()

    published = r'gomq_messages_published_total\{.*event="(page.*|_other)"\} 1\.0'
    label = "page.clicked" if undeclared else "_other"
    assert set(re.findall(published, page)) == {"page.viewed", label}


def test_an_event_that_code_names_for_a_signal_has_a_label(
    live_site: UseSite, own_receivers: None
) -> None:
    seen, printed = listen("page.*"), Signal()
    live_site()
    emit_on_signal(printed, "page.printed", data=lambda sender, **details: {})

    printed.send(None)
    seen.wait_for(1)
    wait_quiet()

    page = Client().get("/gomq/metrics").content.decode()
    name = "gomq_messages_published_total"
    assert f'{name}{{broker="default",event="page.printed"}} 1.0' in page


def test_whoever_asks_gets_all_buckets_that_are_counted_by(use_site: UseSite) -> None:
    listen("page.viewed")
    use_site(METRICS={"WAIT_BUCKETS": [7], "HANDLER_BUCKETS": [9]})

    page = Client().get("/gomq/metrics?buckets=fine").content.decode()

    wait = re.findall(r'gomq_message_wait_seconds_bucket\{[^}]*le="([^"]*)"', page)
    assert set(map(float, wait)) == {7.0, *FINE_BUCKETS, math.inf}


@pytest.mark.parametrize(
    ("workers", "directory", "lines"), [("3", "", 1), ("1", "", 0), ("3", "/tmp", 0)]
)
def test_a_page_of_one_of_several_workers_says_so_once(
    use_site: UseSite,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    workers: str,
    directory: str,
    lines: int,
) -> None:
    monkeypatch.setattr("sys.argv", ["gunicorn", "shop.wsgi", "-w", workers])
    monkeypatch.setattr(views, "_told", set())
    use_site()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", directory)

    for _ in range(2):
        Client().get("/gomq/metrics")

    told = [one.getMessage() for one in caplog.records if one.name == "gomq.metrics"]
    assert len(told) == lines
    assert all("one of 3 worker processes" in one for one in told)


def test_metrics_can_be_switched_off(use_site: UseSite) -> None:
    listen("page.viewed")
    use_site(METRICS={"ENABLED": False})

    response = Client().get("/gomq/metrics")

    assert b"gomq_" not in response.content


def test_the_page_answers_before_the_setup(own_registry: None) -> None:
    brokers.set_up(None)

    for page in ("metrics", "livez", "readyz"):
        assert Client().get(f"/gomq/{page}").status_code == 200


@pytest.mark.parametrize("page", ["metrics", "livez", "readyz"])
def test_the_pages_only_answer_to_get(use_site: UseSite, page: str) -> None:
    use_site()

    assert Client().post(f"/gomq/{page}").status_code == 405
    assert Client().head(f"/gomq/{page}").status_code == 200


async def _get(page: str) -> int:
    response = await AsyncClient().get(f"/gomq/{page}")
    return response.status_code


def test_the_pages_work_under_a_loop(use_site: UseSite) -> None:
    use_site()

    statuses = [asyncio.run(_get(page)) for page in ("metrics", "livez", "readyz")]

    assert statuses == [200, 200, 200]


TOKEN = {"ACCESS": "token", "TOKEN": "long and random"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Bearer é"}, 401),
        ({"authorization": "long and random"}, 401),
        ({"authorization": "Basic long and random"}, 401),
        ({"authorization": "bearer long and random"}, 200),
        ({"authorization": "BEARER  long and random"}, 200),
        ({"authorization": "Bearer long and random"}, 200),
    ],
)
def test_a_token_guards_the_page(
    use_site: UseSite, headers: dict[str, str], status: int
) -> None:
    use_site(METRICS=TOKEN)

    response = Client().get("/gomq/metrics", headers=headers)

    assert response.status_code == status
    assert response.has_header("WWW-Authenticate") is (status == 401)
    assert (b"gomq_" in response.content) is (status == 200)
    assert b"long and random" not in response.content


@pytest.mark.parametrize(
    ("user", "status"),
    [
        (None, 403),
        (AnonymousUser(), 403),
        (User(username="guest"), 403),
        (User(username="gone", is_staff=True, is_active=False), 403),
        (User(username="nurse", is_staff=True), 200),
    ],
)
def test_staff_may_read_the_page(use_site: UseSite, user: Any, status: int) -> None:
    use_site(METRICS={"ACCESS": "staff"})
    request = RequestFactory().get("/gomq/metrics")
    if user is not None:
        request.user = user

    response = views.metrics(request)

    assert response.status_code == status
    assert (b"gomq_" in response.content) is (status == 200)


def test_a_site_that_never_emitted_is_alive_and_ready(use_site: UseSite) -> None:
    use_site()

    live, ready = Client().get("/gomq/livez"), Client().get("/gomq/readyz")

    assert (live.status_code, live.json()) == (200, {"alive": True, "dead": []})
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "closed": []})


def test_depth_plays_no_part_in_liveness(live_site: UseSite) -> None:
    held = hold("page.viewed")
    live_site(BROKERS={"default": {"OPTIONS": {"capacity": 1}}})
    fill("page.viewed", held, 1)

    response = Client().get("/gomq/livez")

    held.release.set()
    assert response.status_code == 200


def test_a_dead_handler_thread_is_told(live_site: UseSite) -> None:
    seen = listen("page.viewed")
    site = live_site()
    emit("page.viewed")
    seen.wait_for(1)
    worker = site.worker
    assert worker is not None
    dead = [f"handler thread {number}" for number in range(1, 9)] + ["timers"]

    worker.stop(timeout=5)
    wait_until(lambda: worker.dead_parts() == dead, "its threads to end")
    response = Client().get("/gomq/livez")

    assert response.status_code == 503
    assert response.json() == {"alive": False, "dead": dead}


@pytest.mark.parametrize(
    ("part", "answer", "told"),
    [
        ("bus.process.timers.Timers.is_alive", False, ["timers"]),
        ("bus.worker.async_loop.AsyncLoop.is_alive", False, ["event loop"]),
        ("bus.worker.pool.HandlerPool.dead", lambda _: [2], ["handler thread 2"]),
        ("bus.process.housekeeping.Housekeeping.is_dead", True, ["housekeeping"]),
    ],
)
def test_each_part_that_should_run_and_does_not_is_told(
    live_site: UseSite,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    answer: Any,
    told: list[str],
) -> None:
    async def handle(message: object) -> None: ...

    consumer("page.viewed", name="async")(handle)
    live_site()
    emit("page.viewed")
    wait_quiet()
    healthy = Client().get("/gomq/livez")
    monkeypatch.setattr(f"django_gomq.{part}", answer)

    response = Client().get("/gomq/livez")

    assert healthy.json() == {"alive": True, "dead": []}
    assert (response.status_code, response.json()["dead"]) == (503, told)


def test_a_dead_reader_is_told(
    live_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django_gomq.bus.runtime import BrokerRuntime

    seen = listen("page.viewed")
    live_site()
    emit("page.viewed")
    seen.wait_for(1)
    monkeypatch.setattr(BrokerRuntime, "is_reading", False)

    response = Client().get("/gomq/livez")

    assert response.status_code == 503
    assert response.json()["dead"] == ["reader of default"]


def test_a_closed_broker_is_not_ready_and_still_alive(live_site: UseSite) -> None:
    listen("page.viewed")
    live_site()
    emit("page.viewed")
    get_broker().close()

    live, ready = Client().get("/gomq/livez"), Client().get("/gomq/readyz")

    assert live.status_code == 200
    assert ready.status_code == 503
    assert ready.json() == {"ready": False, "closed": ["default"]}
