from __future__ import annotations

import pytest
from django.db import connections
from django.test import Client

from django_gomq import get_broker
from tests.django_site.clinic.events import RecordSaved
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Seen, listen, wait_quiet

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def seen(live_site: UseSite) -> Seen:
    seen = listen(RecordSaved)
    live_site()
    return seen


@pytest.fixture
def _atomic_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = connections["default"].settings_dict
    monkeypatch.setitem(settings, "ATOMIC_REQUESTS", True)


def test_a_view_without_a_transaction_publishes_at_once(seen: Seen) -> None:
    response = Client().get("/save?record=1")

    seen.wait_for(1)
    assert response.json()["state"] == "accepted"


@pytest.mark.usefixtures("_atomic_requests")
def test_an_atomic_request_publishes_when_its_view_is_left(seen: Seen) -> None:
    response = Client().get("/save?record=1")

    seen.wait_for(1)
    assert response.json()["state"] == "pending"


@pytest.mark.usefixtures("_atomic_requests")
def test_an_atomic_request_that_fails_publishes_nothing(seen: Seen) -> None:
    response = Client(raise_request_exception=False).get("/fail?record=1")
    Client().get("/save?record=2")

    seen.wait_for(1)
    wait_quiet()
    assert response.status_code == 500
    assert [one.record_id for one in seen.data] == [2]
    assert get_broker().stats().queues["clinic.record.saved"].rolled_back == 1
