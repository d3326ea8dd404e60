from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet

import pytest
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete
from django.test import override_settings
from pytest_django import DjangoDbBlocker, Settings

from django_gomq import outgoing, site
from django_gomq.bus.registry import registry
from django_gomq.emit import _told
from django_gomq.site import Site, brokers
from django_gomq.testing import live
from tests.django_site import databases, postgres

SIGNALS = (post_save, pre_delete, post_delete, m2m_changed)
UseSite = Callable[..., Site]


@pytest.fixture(autouse=True)
def _forget_warnings() -> None:
    outgoing._warned.clear()
    _told.clear()


@pytest.fixture(autouse=True)
def _leave_no_async_connection(request: pytest.FixtureRequest) -> Iterator[None]:
    """All async code shares one thread, and who has no database may not use it."""
    yield
    if request.node.get_closest_marker("django_db"):
        databases.close_async_connections()


@pytest.fixture
def own_registry() -> Iterator[None]:
    """Starts with no consumer, and goes back to the site's own."""
    with registry.isolated():
        yield
    site.renew()


@pytest.fixture
def own_event_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets the classes of other tests, which live until they are collected."""
    monkeypatch.setattr("django_gomq.bus.event._classes", WeakSet())


@pytest.fixture
def own_receivers() -> Iterator[None]:
    """Forgets the receivers of signals that the test connects."""
    before = [list(signal.receivers) for signal in SIGNALS]
    yield
    for signal, receivers in zip(SIGNALS, before, strict=True):
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


@pytest.fixture
def without_the_app(own_registry: None) -> Iterator[None]:
    """A project that does not have django_gomq in INSTALLED_APPS."""
    brokers.set_up(None)
    with override_settings(INSTALLED_APPS=[]):
        yield


@pytest.fixture
def use_site(own_registry: None, settings: Settings) -> Iterator[UseSite]:
    """Makes a site of these settings and of the consumers registered so far."""

    # By the fixture that tests change other settings with: what is overridden is put
    # back in the reverse order, or some of it would stay.
    def use(**gomq: Any) -> Site:
        settings.GOMQ = {"DRAIN_TIMEOUT": 1.0, **gomq}
        assert brokers.site is not None
        return brokers.site

    yield use
    site.close()


@pytest.fixture
def live_site(use_site: UseSite) -> Iterator[UseSite]:
    """Like ``use_site``, and events are really published."""
    with live():
        yield use_site


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[dict[str, object]]:
    with postgres.serving() as server:
        yield server


@pytest.fixture
def postgres_database(
    postgres_server: dict[str, object], django_db_blocker: DjangoDbBlocker
) -> Iterator[str]:
    """The alias of a PostgreSQL database whose connections live on and are checked."""
    with (
        databases.allowed(django_db_blocker),
        databases.postgres_alias(
            postgres_server, CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True
        ) as alias,
    ):
        databases.wait_alone()
        yield alias
