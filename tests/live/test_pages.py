"""The live page on a site: who may look, what it shows, and what a poll costs."""

from __future__ import annotations

from pathlib import Path

from tests.live.programs import found


def test_it_is_closed_to_all_but_staff_who_may_view_consumers(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        """
PAGES = ["", "map/", "dead-letters/", "consumers/default/cache.warm/"]
codes = {name: [client.get(LIVE + page).status_code for page in PAGES]
    for name, client in (("anna", anna), ("vera", vera), ("nils", nils),
        ("guest", guest), ("nobody", nobody))}
login = nobody.get(LIVE).headers["Location"]
blind = user("blind", "view_recordedconsumer")
tell(codes=codes, login=login,
    blind=[blind.get(LIVE + page).status_code for page in PAGES],
    tab=["Dead letters" in text(one.get(LIVE)) for one in (vera, blind)],
    posted=[client.post(LIVE + page).status_code for client in (nobody, nils, guest)
        for page in ("dead-letters/act/",)],
    got=anna.get(LIVE + "dead-letters/act/").status_code)
""",
    )

    assert told == {
        "codes": {
            "anna": [200] * 4,
            "vera": [200] * 4,
            "nils": [403] * 4,
            "guest": [403] * 4,
            "nobody": [302] * 4,
        },
        "login": "/admin/login/?next=/gomq/live/",
        "blind": [200, 200, 403, 200],
        "tab": [True, False],
        "posted": [302, 403, 403],
        "got": 405,
    }


def test_a_user_of_a_model_without_staff_is_refused(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        """
from types import SimpleNamespace
from django.core.exceptions import PermissionDenied
from django.test import RequestFactory, override_settings
from django.urls import resolve
def answer(path):
    request = RequestFactory().get(path)
    request.user = SimpleNamespace(is_authenticated=True, is_active=True)
    match = resolve(path)
    try:
        return match.func(request, *match.args, **match.kwargs).status_code
    except PermissionDenied:
        return 403
tell(live=answer(LIVE))
""",
    )

    assert told == {"live": 403}


def test_it_shows_what_the_bus_does(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        """
from django_gomq import get_broker
vera.get(LIVE)
for _ in range(20):
    nobody.get("/visit?times=2")
wait(lambda: get_broker().stats().consumers["cache.warm"].succeeded == 40)
pages = [""]
SAID = ("page.viewed: 40 emitted", "Running",
    "cache.warm, last 5 minutes: 40 handled, 0 failed, 0 dropped")
def all_are_there():
    pages.append(text(vera.get(LIVE)))
    return all(words in pages[-1] for words in SAID)
wait(all_are_there)
page = pages[-1]
tell(
    said=[word in page for word in ("cache.warm", "page.viewed", "Running")],
    # Once it has told the table what it does, it is one of those.
    scope="This process only" in page or "1 process" in page,
    goes_to="cache.warm, search.index" in page,
)
""",
    )

    assert told == {"said": [True] * 3, "scope": True, "goes_to": True}


def test_a_site_without_time_zones_has_it_in_its_own_time(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        """
from django.test import override_settings
with override_settings(USE_TZ=False, TIME_ZONE="Asia/Kathmandu"):
    pages = ["", "messages/", "dead-letters/", "consumers/default/cache.warm/"]
    tell(codes=[anna.get(LIVE + page).status_code for page in pages])
""",
    )

    assert told == {"codes": [200] * 4}


def test_a_poll_gets_what_is_in_the_page_and_a_visit_all_of_it(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        """
whole, part = vera.get(LIVE), vera.get(LIVE, headers=POLL)
tell(whole=[mark in text(whole) for mark in ("<html", "hx-get", "g-tiles")],
    part=[mark in text(part) for mark in ("<html", "hx-get", "g-tiles")],
    headers=["HX-Request" in part.headers["Vary"], part.headers["Cache-Control"]])
""",
    )

    assert told["whole"] == [True, True, True]
    assert told["part"] == [False, False, True]
    assert told["headers"][0] is True
    assert "no-store" in told["headers"][1]


def test_nothing_inline_stands_in_any_page(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        """
letter = bury(event_id=None, consumer="billing.ledger")
pages = ["", "map/", "dead-letters/", f"dead-letters/{letter.pk}/",
    "consumers/default/billing.ledger/"]
tell(broken=[broken_rules(text(anna.get(LIVE + page))) for page in pages],
    codes=[anna.get(LIVE + page).status_code for page in pages])
""",
    )

    assert told == {"broken": [[]] * 5, "codes": [200] * 5}


def test_a_poll_of_forty_consumers_stays_small(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        """
import gzip
from tests.live.crowd import crowd
from unittest.mock import patch
bury(event_id=None)
with patch("django_gomq.live.pages.read", crowd):
    anna.get(LIVE)
    with CaptureQueriesContext(connection) as queries:
        page = anna.get(LIVE, headers=POLL).content
tell(kilobytes=len(gzip.compress(page, 6)) / 1000, queries=len(queries),
    rows=page.count(b'<tr id="row-'))
""",
    )

    assert told["rows"] == 40
    assert told["kilobytes"] <= 10
    # Session, user, two for permissions, dead letters.
    assert told["queries"] <= 6


def test_the_map_tells_who_emits_and_who_listens(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        """
page = text(vera.get(LIVE + "map/"))
own = text(vera.get(LIVE + "consumers/default/lab.analysis/"))
tell(said=["tests/live/clinic/views.py" in page, "lab.analysis" in page,
    "tests/live/clinic/views.py" in own, "lab.requested" in own],
    options=["capacity" in own, "40" in own],
    missing=vera.get(LIVE + "consumers/default/nobody/").status_code)
""",
    )

    assert told == {"said": [True] * 4, "options": [True] * 2, "missing": 404}


def test_a_database_that_lacks_the_tables_is_told_on_each_page(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        """
from django.conf import settings
from django_gomq.site import renew
settings.GOMQ = {**settings.GOMQ, "BROKERS": {"default": {
    "BACKEND": "django_gomq.backends.database.DatabaseBackend", "RUN": "worker"}}}
renew()
call_command("migrate", "gomq", "zero", verbosity=0)
pages = ["", "messages/", "map/", "tree/?id=x", "dead-letters/"]
answers = {page: anna.get(LIVE + page) for page in pages}
poll = anna.get(LIVE, headers=POLL)
act = anna.post(LIVE + "act/", {"pause": "default/cache.warm"}, follow=True)
admin = [anna.get(f"/admin/gomq/{name}/").status_code
    for name in ("storeddeadletter", "consumer")]
tell(codes={page: one.status_code for page, one in answers.items()},
    tree="manage.py migrate gomq" in text(answers["tree/?id=x"]),
    act="cache.warm may be as it was: " in text(act),
    whole=["<html" in text(one) for one in (answers["tree/?id=x"], poll)],
    admin=admin)
""",
    )

    assert told == {
        "codes": {
            "": 200,
            "messages/": 200,
            "map/": 200,
            "tree/?id=x": 503,
            "dead-letters/": 200,
        },
        "tree": True,
        "whole": [True, False],
        "act": True,
        "admin": [403, 200],
    }
