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
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.readers import HeldDeliveries, PullReader, Sampler
from django_gomq.bus.stats import ServerSample, ServerStats
from tests.bus.observing import Recorder
from tests.bus.waiting import run_threads, wait_until


class Server(Backend):
    """Hands nothing out, and may fail at whatever else it is asked."""

    name = "server"
    capabilities = Capabilities()

    def __init__(self) -> None:
        self.fails: set[str] = set()
        self.error: BaseException = ConnectionError()
        self.desired: dict[str, ConsumerState] = {}
        self.fetched = threading.Event()
        self.sample = ServerSample()
        self.asked: list[str] = []

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

    def stats(self) -> ServerSample:
        self.asked.append(threading.current_thread().name)
        self._answer("stats")
        return self.sample

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


def test_a_server_that_is_fetched_from_again_is_counted_once(
    server: Server, broker: Broker, recorder: Recorder
) -> None:
    server.fails = {"fetch"}
    broker.start()
    wait_until(lambda: ("reader", "fetch") in failures(recorder))
    assert broker.stats().reconnects == 0

    server.fails = set()

    wait_until(lambda: broker.stats().server_up)
    wait_until(lambda: broker.stats().reconnects == 1)
    state = broker.stats().operations["fetch"]
    assert sum(state.counts) >= 2  # what failed took its time, too


@pytest.fixture
def sampled_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_gomq.bus.readers.SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr("django_gomq.bus.readers.SAMPLE_REST", 0)


@pytest.mark.usefixtures("sampled_often")
def test_a_sample_that_fails_is_told_once_and_leaves_the_latest(
    server: Server, broker: Broker, recorder: Recorder
) -> None:
    server.sample = ServerSample(consumers={"c": ServerStats(ready=3)})
    broker.start()
    wait_until(lambda: broker.stats().server == server.sample)
    server.fails, before = {"stats"}, server.sample
    wait_until(lambda: failures(recorder))

    asked = len(server.asked)
    wait_until(lambda: len(server.asked) > asked + 3)
    assert failures(recorder) == [("reader", "stats")]
    assert broker.stats().server == before
    server.sample = ServerSample(outbox_depth=1)
    server.fails = set()
    wait_until(lambda: broker.stats().server.outbox_depth == 1)
    assert set(server.asked) == {"gomq-server-sampler"}


@pytest.mark.usefixtures("sampled_often")
def test_a_consumer_that_was_removed_has_nothing_that_waits(
    server: Server, broker: Broker
) -> None:
    server.sample = ServerSample(consumers={"old": ServerStats(ready=3, workers=0)})
    broker.start()
    wait_until(lambda: broker.stats().server.consumers)

    server.sample = ServerSample(consumers={"c": ServerStats(ready=1)})

    wait_until(lambda: "c" in broker.stats().server.consumers)
    asked = len(server.asked)
    wait_until(lambda: len(server.asked) > asked + 3)
    old = broker.stats().server.consumers["old"]
    assert (old.ready, old.scheduled, old.oldest_age) == (0, 0, 0.0)


def test_a_server_is_asked_rarely_where_the_answer_takes_long(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    stop = threading.Event()

    def wait(pause: float) -> bool:
        pauses.append(pause)
        return len(pauses) == 3

    times, samplers = iter([0.0, 9.0, 200.0, 200.1]), set[int]()
    real_time = Clock.monotonic

    def tell_time() -> float:
        return next(times) if threading.get_ident() in samplers else real_time()

    def sample() -> None:
        samplers.add(threading.get_ident())
        Sampler(server, print)._run(stop)  # which claims the thread

    monkeypatch.setattr(stop, "wait", wait)
    with monkeypatch.context() as patched:
        patched.setattr(Clock, "monotonic", tell_time)
        run_threads(sample)

    first, long, usual = pauses
    assert (first, long) == (0.0, 180.0)
    assert 12.0 <= usual <= 18.0


def test_a_server_that_is_away_keeps_no_stop_from_its_end(
    server: Server, broker: Broker, recorder: Recorder
) -> None:
    broker.start()
    server.fails = {"close"}

    remainder = broker.close()

    assert remainder.is_clean
    wait_until(lambda: failures(recorder))
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
    before = set(threading.enumerate())

    for _ in range(2):
        reader.start(lambda call: False)

    begun = [thread.name for thread in set(threading.enumerate()) - before]
    reader.stop()
    assert begun.count("gomq-server-reader") == 1


def test_what_was_given_to_somebody_else_is_waited_for_until_it_is_let_go() -> None:
    held, delivery, subscription = HeldDeliveries(), Delivery(Message("a.b"), 0.0), None
    held.hold([delivery], subscription)  # type: ignore[arg-type]
    asked = threading.Event()

    def is_lost(one: Delivery) -> bool:
        asked.set()
        return one is delivery

    def let_go() -> None:
        asked.wait()
        held.let_go([delivery])

    thread = threading.Thread(target=let_go)
    thread.start()

    assert held.wait_until_gone(is_lost, 60.0) == []
    thread.join()
