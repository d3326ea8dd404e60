"""What a server says, or fails to say, beside the messages that it hands out."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from django_gomq.bus.backend import (
    Backend,
    BackendContext,
    Capabilities,
    ConsumerState,
    Settled,
)
from django_gomq.bus.broker import Broker
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.errors import PublishError
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.readers import HeldDeliveries, PullReader
from tests.bus.observing import Recorder
from tests.bus.waiting import wait_until


class Server(Backend):
    """Hands nothing out, and may fail at whatever else it is asked."""

    name = "server"
    capabilities = Capabilities()

    def __init__(self) -> None:
        self.fails: set[str] = set()
        self.error: BaseException = ConnectionError()
        self.desired: dict[str, ConsumerState] = {}
        self.fetched = threading.Event()

    def _answer(self, name: str) -> None:
        if name in self.fails:
            self.error.args = (name,)
            raise self.error

    def open(self, context: BackendContext) -> None: ...

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        return [None] * len(messages)

    def fetch(self, wants: Sequence[Any]) -> Sequence[Any]:
        self._answer("fetch")
        self.fetched.set()
        return ()

    def settle(self, settlements: Sequence[Any]) -> list[Settled]:
        return [Settled.DONE] * len(settlements)

    def desired_state(self) -> Mapping[str, ConsumerState]:
        self._answer("desired_state")
        return self.desired

    def close(self, timeout: float) -> None:
        self._answer("close")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def broker(server: Server, recorder: Recorder) -> Iterator[Broker]:
    broker = Broker(lambda: server, hooks=[recorder])
    broker.consume("a.b", print, name="c", capacity=9)
    yield broker
    server.fails.clear()
    broker.close(timeout=0)


def failures(recorder: Recorder) -> list[tuple[str, str]]:
    return [(part, str(error)) for part, error in recorder.named("failed")]


def test_what_an_operator_wants_is_taken_over_as_far_as_it_is_said_and_known(
    server: Server, broker: Broker
) -> None:
    server.desired = {
        "of another site": ConsumerState(paused=True),
        "c": ConsumerState(capacity=5),
    }

    broker.start()

    wait_until(lambda: broker.stats().consumers["c"].capacity == 5)
    assert not broker.stats().consumers["c"].paused


def test_a_look_that_fails_is_reported_and_keeps_nothing_from_being_fetched(
    server: Server, broker: Broker, recorder: Recorder
) -> None:
    server.fails = {"desired_state"}

    broker.start()

    wait_until(server.fetched.is_set)
    wait_until(lambda: ("reader", "desired_state") in failures(recorder))


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("call", ["fetch", "desired_state"])
def test_whatever_a_client_raises_the_reader_goes_on(
    server: Server, broker: Broker, recorder: Recorder, error: BaseException, call: str
) -> None:
    server.fails, server.error = {call}, error
    broker.start()
    wait_until(lambda: ("reader", call) in failures(recorder))

    server.fails = set()

    wait_until(server.fetched.is_set)
    assert broker.stats().reader_up


def test_a_server_that_is_away_keeps_no_stop_from_its_end(
    server: Server, broker: Broker, recorder: Recorder
) -> None:
    broker.start()
    server.fails = {"close"}

    remainder = broker.close()

    assert remainder.is_clean
    assert failures(recorder) == [("stop", "close")]


def test_a_retry_of_what_was_given_to_somebody_else_is_not_held() -> None:
    consumer = make_consumer(["a.b"], print, name="c", options={})
    subscription = Subscription("default", consumer, hooks=Hooks())
    first, again = (Delivery(Message("a.b"), 0.0) for _ in range(2))
    held = HeldDeliveries()
    held.hold([first], subscription)

    exchanged = held.exchange(first, again)
    held.let_go([again])  # its lease is lost
    once_more = held.exchange(again, first)

    assert (exchanged, once_more, dict(held.all())) == (True, False, {})


def test_a_reader_that_runs_starts_no_second_thread(server: Server) -> None:
    reader = PullReader(server, Hooks())

    for _ in range(2):
        reader.start(lambda call: False)

    threads = [t for t in threading.enumerate() if t.name == "gomq-server-reader"]
    reader.stop()
    assert len(threads) == 1
