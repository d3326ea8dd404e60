"""Dead letters that a server keeps go to the store once it can have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from django_gomq.bus import dead_letters
from django_gomq.bus.backend import Backend, BackendContext, Capabilities, Settled
from django_gomq.bus.broker import Broker
from django_gomq.bus.dead_letters import (
    DeadLetter,
    Keeping,
    NoStoreError,
    make_dead_letter,
)
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.errors import PublishError
from django_gomq.bus.message import Message
from django_gomq.bus.worker.server_dead_letters import ServerDeadLetters
from tests.bus.observing import Recorder
from tests.bus.test_dead_letter_store import FakeStore
from tests.bus.waiting import wait_until


class Server(Backend):
    """Keeps dead letters, and hands on those of the consumer that it knows."""

    name = "server"
    capabilities = Capabilities(dead_letters=True, moves_dead_letters=True)

    def __init__(self, *bodies: bytes) -> None:
        self.letters = {f"s{body.decode()}": letter(body) for body in bodies}
        self.handed: list[bytes] = []
        self.is_claimed = False
        self.claims: list[float] = []

    def open(self, context: BackendContext) -> None: ...

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        return [None] * len(messages)

    def settle(self, settlements: Sequence[Any]) -> list[Settled]:
        return [Settled.DONE] * len(settlements)

    def dead_letters(self, after: str = "", limit: int = 100) -> list[DeadLetter]:
        ids = [name for name in sorted(self.letters) if name > after]
        return [
            msgspec.structs.replace(self.letters[name], id=name) for name in ids[:limit]
        ]

    def replay(self, ids: Sequence[str]) -> int:
        return self.discard(ids)

    def discard(self, ids: Sequence[str]) -> int:
        return sum(self.letters.pop(name, None) is not None for name in ids)

    def claim_dead_letters(self, seconds: float) -> bool:
        self.claims.append(seconds)
        return not self.is_claimed

    def hand_again(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        taken = [one for one in letters if one.consumer == "known"]
        self.handed += [one.message.body for one in taken]
        return taken


def letter(body: bytes, consumer: str = "known") -> DeadLetter:
    delivery = Delivery(Message[Any]("a.b", body), 0.0, 3)
    return make_dead_letter("default", consumer, delivery, KeyError(1))


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def at(server: Server, store: FakeStore | None) -> ServerDeadLetters:
    return ServerDeadLetters("default", server, store, print)


def bodies(letters: Sequence[DeadLetter]) -> list[bytes]:
    return [one.message.body for one in letters]


def test_they_are_written_and_forgotten_at_the_server_then(store: FakeStore) -> None:
    server = Server(b"1", b"2")

    assert at(server, store).move() == 2

    assert (server.letters, server.claims[-1]) == ({}, 0.0)
    assert bodies(list(store.letters.values())) == [b"1", b"2"]
    assert at(server, store).move() == 0


def test_what_the_store_can_never_keep_stays_and_keeps_no_other_from_it(
    store: FakeStore,
) -> None:
    server = Server(b"1", b"2")
    store.refused = {b"1"}

    assert at(server, store).move() == 1

    assert list(server.letters) == ["s1"]
    assert bodies(at(server, store).list()) == [b"2", b"1"]


def test_one_process_moves_them(store: FakeStore) -> None:
    server = Server(b"1")
    server.is_claimed = True

    assert at(server, store).move() == 0
    assert list(server.letters) == ["s1"]


@pytest.mark.parametrize("error", [NoStoreError(), ConnectionError("away")])
def test_they_stay_at_the_server_while_the_store_is_away(
    store: FakeStore, error: Exception
) -> None:
    server, told = Server(b"1"), list[Exception]()
    store.error = error
    letters = ServerDeadLetters("default", server, store, told.append)

    letters.move_if_due()
    letters.move_if_due()  # it is left alone for a while

    assert list(server.letters) == ["s1"]
    assert told == [error] * (not isinstance(error, NoStoreError))
    assert store.calls == 1


def test_an_outage_of_the_store_is_told_once(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "django_gomq.bus.worker.server_dead_letters.LONGEST_PAUSE", 1e-9
    )
    server, told = Server(b"1"), list[Exception]()
    store.error = ConnectionError("away")
    letters = ServerDeadLetters("default", server, store, told.append)
    for _ in range(3):
        letters.move_if_due()
    assert len(told) == 1
    assert store.calls == 3

    store.error = None
    letters.move_if_due()

    assert bodies(list(store.letters.values())) == [b"1"]


def test_those_of_the_store_are_replayed_by_the_server_that_knows_the_consumer(
    store: FakeStore,
) -> None:
    server = Server(b"1")
    store.keep([letter(b"2"), letter(b"3", "gone")])
    first, second = store.letters
    letters = at(server, store)

    assert letters.replay(["s1"]) == 1
    assert letters.replay([first, second]) == 1

    assert server.handed == [b"2"]
    assert letters.discard([second, "nobody's"]) == 1
    assert letters.list() == []


def test_all_are_read_a_page_at_a_time_and_none_is_missed_that_is_moved_meanwhile(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "PAGE", 2)
    server = Server(b"3", b"4", b"5", b"6", b"7")
    store.keep([letter(b"0"), letter(b"1"), letter(b"2")])
    letters = at(server, store)

    found = []
    for one in letters.all():
        found.append(one.message.body)
        if found[-1] == b"3":
            letters.move()

    first, rest = found[:5], found[5:]
    assert first == [b"0", b"1", b"2", b"3", b"4"]
    assert set(rest) >= {b"5", b"6", b"7"}


def test_without_a_store_the_server_alone_has_them(store: FakeStore) -> None:
    server = Server(b"1", b"2")
    letters = at(server, None)

    letters.move_if_due()

    assert letters.move() == 0
    assert bodies(letters.list()) == [b"1", b"2"]
    assert list(letters.all()) == letters.list()
    assert letters.discard(["s1"]) == 1
    store.error = NoStoreError()
    assert at(server, store).replay(["s2", "7"]) == 1


def test_a_broker_that_runs_moves_them_by_itself(store: FakeStore) -> None:
    server = Server(b"1")
    broker = Broker(lambda: server, keeping=Keeping(store=store))
    broker.consume("a.b", print, name="known")

    broker.start()

    wait_until(lambda: not server.letters)
    (kept,) = broker.dead_letters()
    assert broker.server_letters.hand_again([kept]) == [kept]
    assert broker.server_letters.move() == 0
    assert broker.discard([kept.id]) == 1
    broker.close(timeout=0)


def test_a_broker_tells_where_the_store_fails(store: FakeStore) -> None:
    store.error, recorder = ConnectionError(), Recorder()
    keeping = Keeping(store=store)
    broker = Broker(lambda: Server(b"1"), hooks=[recorder], keeping=keeping)
    broker.consume("a.b", print, name="known")

    broker.start()

    wait_until(lambda: recorder.named("failed"))
    assert recorder.named("failed")[0][0] == "store of dead letters"
    broker.close(timeout=0)
