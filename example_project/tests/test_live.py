"""The live page of a running clinic shows staff what all of its processes do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener, urlopen

import pytest

from acceptance import rows
from acceptance.law import check_law
from acceptance.ports import free_port
from acceptance.run import addresses, wait_until_quiet
from acceptance.scrape import fetch
from acceptance.server import BACKENDS, Login, Server
from clinic.simulation.client import Client
from clinic.simulation.switching import SwitchTurner
from clinic.simulation.tally import Tally
from tests.answers import wait_for

LIVE = "/gomq/live/"
LETTERS = "/gomq/live/dead-letters/"
PATIENCE = 60.0
_LAST = re.compile(r'name="last" value="(\d+)"')
_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')


class Staff:
    """Somebody with a browser's cookies."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()))

    def get(self, path: str) -> str:
        """Open a page; return what stands there, wherever that led."""
        with self._opener.open(self._url + path, timeout=PATIENCE) as answer:
            text: str = answer.read().decode()
            return text

    def post(self, path: str, page: str, **fields: Any) -> str:
        """Send the form of a page that was got."""
        token = _TOKEN.search(page)
        assert token, page
        form = urlencode({**fields, "csrfmiddlewaretoken": token[1]}, doseq=True)
        address = self._url + path
        with self._opener.open(address, form.encode(), timeout=PATIENCE) as answer:
            text: str = answer.read().decode()
            return text

    def log_in(self, login: Login, path: str) -> str:
        """Go to a page that asks for a log-in first; return what it shows."""
        fields = {"username": login.name, "password": login.password, "next": path}
        return self.post("/admin/login/", self.get(path), **fields)


@pytest.fixture(params=BACKENDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(free_port(0), backend=request.param) as running:
        yield running


def save_record(client: Client) -> None:
    """Make a patient, and a record of it."""
    patient = {"name": "Ada", "city": "Lyon"}
    number = client.send_json("POST", "/api/patients/", patient).json()["id"]
    record = {"patient": number, "kind": "visit", "signed_by": "Dr. Osei"}
    client.send_json("POST", "/api/records/", record)


def test_it_shows_who_logs_in_the_numbers_of_all_processes(server: Server) -> None:
    client = Client(server.url, Tally())
    save_record(client)
    client.close()
    staff = Staff(server.url)
    count = len(server.processes)

    staff.log_in(server.add_user(), LIVE)
    handled = "statistics.patients, last 5 minutes: 1 handled, 0 failed, 0 dropped"
    wait_for(PATIENCE, lambda: handled in staff.get(LIVE), "what was handled")
    page = staff.get(LIVE)
    is_quiet, scrape = wait_until_quiet(server, PATIENCE)

    assert is_quiet
    assert (f"All {count} processes" if count > 1 else "1 process") in page
    assert "health.record.saved" in page
    assert "Event bus" in staff.get("/admin/gomq/consumer/")
    assert all(check.holds for check in check_law(scrape))


def test_dead_letters_that_are_replayed_stand_in_the_books() -> None:
    with Server(free_port(0)) as server:
        client = Client(server.url, Tally())
        turner = SwitchTurner(client)
        turner.turn("flaky")

        def gave_up() -> bool:
            save_record(client)
            return fetch(server.url).total("gomq_messages_dead_lettered_total") > 0

        wait_for(PATIENCE, gave_up, "a dead letter")
        turner.turn("normal")
        client.close()
        staff = Staff(server.url)
        staff.log_in(server.add_user(), LIVE)
        wait_for(PATIENCE, lambda: _LAST.search(staff.get(LETTERS)), "it on the page")
        page = staff.get(LETTERS)
        last = int(_LAST.findall(page)[0])

        staff.post(f"{LETTERS}act/", page, do="replay all", last=last)
        is_quiet, scrape = wait_until_quiet(server, PATIENCE)

        assert is_quiet
        replayed = rows.replayed(server.database)
        assert replayed["laboratory.analysis"] > 0
        checks = {check.subject: check for check in check_law(scrape, replayed)}
        assert checks["laboratory.analysis"].left == "dispatched + replayed"
        assert all(check.holds for check in checks.values())


def test_nobody_can_log_in_until_a_user_is_added() -> None:
    with Server(free_port(0)) as server:
        staff = Staff(server.url)

        page = staff.log_in(Login("demo", "demo"), LIVE)

        assert "Log in" in page
        with urlopen(f"{server.url}/gomq/", timeout=PATIENCE) as answer:
            assert '<a href="live/">live</a>' in answer.read().decode()


def test_the_demo_says_where_the_live_page_is_and_who_may_see_it() -> None:
    said = addresses("http://127.0.0.1:8000", Login("demo", "sesame"))

    assert "live page  http://127.0.0.1:8000/gomq/live/" in said
    assert "log in as  demo, password sesame" in said
