from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event

import pytest
from django.db import connections, transaction
from django.test import TestCase, TransactionTestCase, override_settings

from django_gomq import ConfigurationError, Message, Retry, consumer, emit, get_broker
from django_gomq.backends.database import DatabaseBackend
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.registry import registry
from django_gomq.capturing import LIVE
from django_gomq.site import renew
from django_gomq.testing import LiveBus, assert_nothing_emitted, capture, live
from django_gomq.testing.captured import opened
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Held, hold, listen
from tests.django_site.waiting import wait_until


def test_a_live_block_inside_another_ends_nothing(use_site: UseSite) -> None:
    seen = listen("page.viewed")
    use_site()

    with live():
        with live():
            emit("page.viewed", 1)
        emit("page.viewed", 2)
        seen.wait_for(2)

    assert seen.data == [1, 2]


def test_live_publishes_for_real_and_ends_what_it_started(use_site: UseSite) -> None:
    seen = listen("page.viewed")
    use_site()

    with live():
        emit("page.viewed", 1)
        broker = get_broker()
        seen.wait_for(1)

    assert broker.is_closed
    assert not get_broker().is_started
    assert emit("page.viewed", 2)
    assert seen.data == [1]


class InATestCase(TestCase):
    def test_live_is_refused_with_what_to_do(self) -> None:
        with (
            pytest.raises(ConfigurationError, match="Use TransactionTestCase, or"),
            live(),
        ):
            pass

    def test_an_emit_is_refused_where_the_block_came_after(self) -> None:
        # As if live() had been entered before the database.
        with (
            opened(LIVE),
            pytest.raises(ConfigurationError, match=r"inline\(\)"),
        ):
            emit("clinic.visit.made")


@pytest.mark.django_db
def test_live_is_refused_where_pytest_never_commits() -> None:
    with (
        pytest.raises(ConfigurationError, match=r"django_db\(transaction=True\)"),
        live(),
    ):
        pass


@pytest.mark.django_db(transaction=True)
def test_a_drain_waits_for_what_a_commit_published(use_site: UseSite) -> None:
    seen = listen("page.viewed")
    use_site()

    with live() as bus:
        with transaction.atomic():
            for number in range(100):
                emit("page.viewed", number)
        bus.drain(60)

        assert seen.data == list(range(100))


DATABASE = "django_gomq.backends.database.DatabaseBackend"
ON_DATABASE = {"default": {"BACKEND": DATABASE}}


class OnADatabase(TransactionTestCase):
    """Django empties all tables after each test, also that of recorded consumers."""

    databases = {"default", "other"}  # noqa: RUF012 - Django's way to say it

    def setUp(self) -> None:
        self.addCleanup(renew)
        self.enterContext(registry.isolated())
        self.seen = listen("page.viewed")

    def test_its_consumers_run(self) -> None:
        with override_settings(GOMQ={"BROKERS": ON_DATABASE}), live() as bus:
            emit("page.viewed", 1)
            bus.drain(60)

            assert self.seen.data == [1]

    def test_they_run_again_in_the_next_test(self) -> None:
        self.test_its_consumers_run()

    def test_they_run_where_the_broker_comes_inside_the_block(self) -> None:
        with live() as bus, override_settings(GOMQ={"BROKERS": ON_DATABASE}):
            with transaction.atomic():
                emit("page.viewed", 1)
            bus.drain(60)

            assert self.seen.data == [1]

    def test_an_explicit_setup_is_harmless(self) -> None:
        with override_settings(GOMQ={"BROKERS": ON_DATABASE}), live() as bus:
            get_broker().setup()
            emit("page.viewed", 1)
            bus.drain(60)

            assert self.seen.data == [1]

    def test_where_none_may_run_none_is_recorded(self) -> None:
        never = {"default": {"BACKEND": DATABASE, "RUN": "never"}}
        with override_settings(GOMQ={"BROKERS": never}), live():
            emit("page.viewed", 1)

            assert not get_broker().backend.stats().consumers

    def test_a_drain_names_a_consumer_that_nobody_has_recorded(self) -> None:
        self.enterContext(registry.isolated())
        with override_settings(GOMQ={"BROKERS": ON_DATABASE}), live() as bus:
            listen("page.read", name="late")
            emit("page.read")
            with pytest.raises(AssertionError, match="late is not recorded there"):
                bus.drain(0.2)


class AwayForSetup(DatabaseBackend):
    def setup(self, consumers: Sequence[Consumer]) -> list[str]:
        raise ConnectionError("the server is away")


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_a_drain_tells_why_a_server_could_not_be_set_up(use_site: UseSite) -> None:
    listen("page.viewed")
    use_site(BROKERS={"default": {"BACKEND": f"{__name__}.AwayForSetup"}})

    with live() as bus:
        emit("page.viewed")
        with pytest.raises(AssertionError, match="ConnectionError: the server is away"):
            bus.drain(0.2)


def test_a_broker_whose_database_the_test_may_not_use_keeps_no_other(
    use_site: UseSite,
) -> None:
    seen = listen("page.viewed")
    use_site(
        BROKERS={"default": {}, "stored": {"BACKEND": DATABASE}},
        ROUTES={"stored.*": "stored"},
    )

    with live() as bus:
        emit("page.viewed", 1)
        bus.drain(60)

    assert seen.data == [1]


def test_consumers_of_tests_are_not_recorded_in_the_sites_own_database(
    use_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[str] = []

    def note(backend: DatabaseBackend, consumers: Sequence[Consumer]) -> list[str]:
        recorded.extend(consumer.name for consumer in consumers)
        return []

    monkeypatch.setattr(DatabaseBackend, "setup", note)
    monkeypatch.setattr(
        "django_gomq.dead_letters.store._names",
        {"default": connections["default"].settings_dict["NAME"]},
    )
    monkeypatch.setitem(connections["default"].settings_dict, "TEST", {"NAME": None})
    listen("page.viewed")
    use_site(BROKERS=ON_DATABASE)

    with live():
        pass

    assert recorded == []


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_a_drain_waits_for_what_the_database_has(use_site: UseSite) -> None:
    handled: list[int] = []

    @consumer("page.viewed", name="pages", retry=Retry(min_delay=0.2, max_delay=0.2))
    def handle(message: Message) -> None:
        if message.attempt == 1:
            raise RuntimeError
        handled.append(message.data)

    use_site(BROKERS=ON_DATABASE)
    with live() as bus:
        for number in range(3):
            with transaction.atomic():
                emit("page.viewed", number)
        bus.drain(60)

        assert sorted(handled) == [0, 1, 2]


def test_a_drain_waits_for_retries_and_for_what_handlers_emit(
    use_site: UseSite,
) -> None:
    second = listen("page.read")

    @consumer("page.viewed", name="first", retry=Retry(min_delay=0.01))
    def first(message: Message) -> None:
        if message.attempt < 3:
            raise RuntimeError
        emit("page.read", message.attempt)

    use_site()
    with live() as bus:
        emit("page.viewed")
        bus.drain(60)

        assert second.data == [3]


def test_a_drain_of_nothing_returns_at_once(use_site: UseSite) -> None:
    use_site()

    with live() as bus:
        bus.drain(0)
    LiveBus().drain(0)


def _in_a_handler(held: Held) -> None:
    emit("page.viewed")
    held.entered.wait(60)


def _paused(held: Held) -> None:
    broker = get_broker()
    broker.start()
    broker.pause("held")
    emit("page.viewed")
    wait_until(lambda: broker.stats().consumers["held"].depth == 1, "its channel")


def _delayed(held: Held) -> None:
    emit("page.viewed", delay=200)


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (_in_a_handler, "held has 1 in its handler"),
        (_paused, "held (paused) has 1 waiting"),
        (_delayed, "page.viewed has 1 delayed"),
    ],
)
def test_a_drain_that_runs_out_of_time_names_what_is_left(
    use_site: UseSite, work: Callable[[Held], None], told: str
) -> None:
    held = hold("page.viewed")
    use_site(DRAIN_TIMEOUT=0.1)

    with live() as bus:
        work(held)
        with pytest.raises(AssertionError, match="there is still work") as caught:
            bus.drain(0.2)
        held.release.set()

    assert told in str(caught.value)


def test_a_drain_names_the_broker_where_there_are_several(use_site: UseSite) -> None:
    @consumer("page.viewed", name="later", retry=Retry(min_delay=60, max_delay=60))
    def later(message: Message) -> None:
        raised.set()
        raise RuntimeError

    raised = Event()
    use_site(BROKERS={"default": {}, "other": {}}, DRAIN_TIMEOUT=0.1)
    with live() as bus:
        emit("page.viewed")
        raised.wait(60)
        numbers = get_broker().stats
        wait_until(lambda: numbers().consumers["later"].scheduled == 1, "its retry")
        with pytest.raises(AssertionError, match="default: later has 1 scheduled"):
            bus.drain(0.2)


def test_the_innermost_of_live_and_capture_holds(use_site: UseSite) -> None:
    seen = listen("page.viewed")
    use_site()

    with capture() as around, live() as bus:
        emit("page.viewed", 1)
        with capture() as inside:
            emit("page.viewed", 2)
        bus.drain(60)
        with pytest.raises(AssertionError, match="published, not captured"):
            assert_nothing_emitted()

    assert list(around) == []
    assert [message.data for message in inside] == [2]
    assert seen.data == [1]
