"""An outbox before any backend with a server: what it adds, what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from django_gomq.backends.database import DatabaseBackend
from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.backend import Backend
from django_gomq.bus.errors import (
    BackendUnavailableError,
    ConfigurationError,
    MessageTooLargeError,
    PublishError,
)
from django_gomq.bus.message import Message
from django_gomq.bus.wire import WireMessage
from django_gomq.relay import table
from django_gomq.relay.backend import OutboxBackend
from django_gomq.relay.delegating import DelegatingBackend
from django_gomq.testing.conformance.site import EVENT, Notes, Site, wait_until
from tests.backends.databases import ALIAS, DatabaseHarness, execute
from tests.backends.fakes.lease import LeaseBackend, LeaseHarness
from tests.backends.vendors import VENDORS

Answer = Callable[[Message[Any]], PublishError | None]


class Choosy(LeaseBackend):
    """Takes what a test lets it take, and notes what it was asked at once."""

    answer: Answer = staticmethod(lambda message: None)
    asked: list[list[int]]

    def forward(
        self, events: Sequence[WireMessage], timeout: float
    ) -> list[PublishError | None]:
        self.asked.append([int(event.message.body) for event in events])
        found = [self.answer(event.message) for event in events]
        taken = [
            event for event, error in zip(events, found, strict=True) if error is None
        ]
        super().forward(taken, timeout)
        return found


class ChoosyHarness(LeaseHarness):
    def __init__(self) -> None:
        super().__init__()
        self.database = DatabaseHarness()
        self.asked: list[list[int]] = []
        self.answer: Answer = lambda message: None

    def make_backend(self) -> Backend:
        backend = Choosy(self.server)
        backend.asked, backend.answer = self.asked, self.answer
        return OutboxBackend(backend, ALIAS)

    def close(self) -> None:
        self.database.close()

    @contextmanager
    def atomic(self) -> Iterator[str]:
        with self.database.atomic() as using:
            yield using


@pytest.fixture(scope="module")
def _database(
    tmp_path_factory: pytest.TempPathFactory, queries_allowed: None
) -> Iterator[None]:
    with VENDORS["sqlite"](tmp_path_factory.mktemp("sqlite")):
        yield


@pytest.fixture
def harness(_database: None) -> ChoosyHarness:
    return ChoosyHarness()


@pytest.fixture
def site(harness: ChoosyHarness) -> Iterator[Site]:
    made = Site(harness, lambda verdict, feature: None)
    yield made
    made.close()


def publish(site: Site, *numbers: int, key: str | None = None) -> Notes:
    """Emit these in one transaction, and then have them forwarded and handled."""
    process, notes = site.process(), Notes()
    process.consume(notes, concurrency=1, starts=False)
    with transaction.atomic(using=ALIAS):
        process.send_many(numbers, key=key)
    process.broker.start()
    return notes


def test_every_call_of_the_contract_goes_to_the_backend_behind() -> None:
    contract = {
        name
        for name, member in vars(Backend).items()
        if callable(member) and not name.startswith("_")
    }

    assert contract - vars(DelegatingBackend).keys() == {"publish"}  # by publish_many


@pytest.mark.usefixtures("_database")
def test_what_the_backend_says_of_itself_stays() -> None:
    behind = LeaseHarness().make_backend()

    found = OutboxBackend(behind, ALIAS)

    assert (found.name, found.database, found.relays) == ("lease", ALIAS, True)
    assert found.capabilities.transactional
    assert found.capabilities.lease == behind.capabilities.lease


@pytest.mark.parametrize("make", [MemoryBackend, DatabaseBackend])
def test_a_backend_without_a_server_of_its_own_has_no_outbox(
    make: Callable[[], Backend],
) -> None:
    with pytest.raises(ConfigurationError, match="leave outbox out"):
        OutboxBackend(make(), "default")


def test_a_database_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'nowhere'"):
        OutboxBackend(LeaseHarness().make_backend(), "nowhere")


def test_a_backend_that_keeps_no_order_gets_one_of_a_key_at_a_time(
    site: Site, harness: ChoosyHarness
) -> None:
    notes = publish(site, 1, 2, 3, key="k")

    wait_until(lambda: notes.numbers == [1, 2, 3])
    assert harness.asked == [[1], [2], [3]]


def test_what_has_no_key_goes_at_once(site: Site, harness: ChoosyHarness) -> None:
    notes = publish(site, 1, 2, 3)

    wait_until(lambda: notes.numbers == [1, 2, 3])
    assert harness.asked == [[1, 2, 3]]


def test_one_that_is_refused_for_now_is_not_overtaken(
    site: Site, harness: ChoosyHarness
) -> None:
    refusals = [BackendUnavailableError("not now")] * 2

    def answer(message: Message[Any]) -> PublishError | None:
        return refusals.pop() if message.body == b"2" and refusals else None

    harness.answer = answer

    notes = publish(site, 1, 2, 3, key="k")

    wait_until(lambda: notes.numbers == [1, 2, 3])
    assert harness.asked == [[1], [2], [2], [2], [3]]


def test_one_that_no_server_can_carry_is_found_and_set_aside(
    site: Site, harness: ChoosyHarness
) -> None:
    def answer(message: Message[Any]) -> PublishError | None:
        if message.body == b"2":
            raise MessageTooLargeError("far too large")
        return None

    harness.answer = answer

    notes = publish(site, 1, 2, 3)

    wait_until(lambda: sorted(notes.numbers) == [1, 3])
    wait_until(lambda: execute("SELECT 1 FROM gomq_dead_letter"))
    ((consumer, error),) = execute("SELECT consumer, error FROM gomq_dead_letter")
    assert (consumer, error) == (
        table.RELAY,
        "MessageTooLargeError: far too large",
    )


def test_tables_that_are_missing_are_told(site: Site, tmp_path: Path) -> None:
    process = site.process()
    process.consume(Notes(), EVENT, starts=False)
    execute("ALTER TABLE gomq_relay RENAME TO elsewhere")
    try:
        (problem,) = process.broker.check_server()
    finally:
        execute("ALTER TABLE elsewhere RENAME TO gomq_relay")

    assert "lacks gomq_relay: run manage.py migrate gomq" in problem
    assert process.broker.check_server() == []
