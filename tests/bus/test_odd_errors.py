"""An error whose class does what it likes is a dead letter like any other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.delivery import BatchFailed, Verdict
from django_gomq.bus.errors import describe_error, error_class_name
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.bus.stats import ConsumerStats
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder, Watcher
from tests.bus.odd_errors import ODD, make_odd
from tests.bus.waiting import LONG, wait_until, wait_until_settled

COUNT = 30


@pytest.fixture(autouse=True)
def _long_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each text be read, however long a busy machine takes."""
    monkeypatch.setattr("django_gomq.bus.errors.TEXT_SECONDS", LONG)


def sync(broker: Broker, fail: Callable[[Any], None], **options: Any) -> None:
    broker.consume("a.b", fail, name="c", **options)


def coroutine(broker: Broker, fail: Callable[[Any], None], **options: Any) -> None:
    async def handle(message: Any) -> None:
        fail(message)

    broker.consume("a.b", handle, name="c", **options)


def batch(broker: Broker, fail: Callable[[Any], None], **options: Any) -> None:
    def handle(messages: list[Any]) -> None:
        for message in messages:
            fail(message)

    broker.consume("a.b", handle, name="c", batch=4, **options)


def aged(broker: Broker, fail: Callable[[Any], None], **options: Any) -> None:
    broker.consume("a.b", fail, name="c", max_age=600.0, **options)


def publish_some(broker: Broker) -> ConsumerStats:
    broker.publish_many([Message("a.b", b"%d" % n) for n in range(COUNT)])
    wait_until_settled(broker)
    return broker.stats().consumers["c"]


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("consume", [sync, coroutine, batch, aged])
@pytest.mark.parametrize("hooks", [[], [Watcher()]], ids=["unwatched", "watched"])
def test_it_is_counted_and_kept_with_its_neighbours(
    make_broker: MakeBroker, kind: str, consume: Any, hooks: list[Watcher]
) -> None:
    error = make_odd()[kind]

    def fail(message: Message[Any]) -> None:
        if message.data % 3 == 0:
            raise error

    broker = make_broker(hooks=hooks)
    consume(broker, fail)

    stats = publish_some(broker)

    assert stats.succeeded == COUNT * 2 // 3
    assert (stats.dead_lettered, stats.handed_back) == (COUNT // 3, 0)
    assert stats.processed["a.b", Verdict.ERROR] == COUNT // 3
    assert stats.exceptions == {error_class_name(error): COUNT // 3}
    letters = broker.dead_letters()
    assert [letter.error for letter in letters] == [describe_error(error)] * 10


@pytest.mark.parametrize("kind", ODD)
def test_its_neighbours_keep_their_attempts(make_broker: MakeBroker, kind: str) -> None:
    error, attempts = make_odd()[kind], Counter[int]()

    def fail(message: Message[Any]) -> None:
        attempts[message.data] += 1
        raise error if message.data == 5 else ConnectionError

    retry = Retry(attempts=3, min_delay=0.0, give_up_on=(type(error),))
    broker = make_broker()
    broker.consume("a.b", fail, name="c", retry=retry)

    stats = publish_some(broker)

    assert attempts == {n: 1 if n == 5 else 3 for n in range(COUNT)}
    assert stats.dead_lettered == COUNT


@pytest.mark.parametrize("kind", ODD)
def test_blamed_on_one_of_a_batch_it_fails_that_one_alone(
    make_broker: MakeBroker, kind: str
) -> None:
    error = make_odd()[kind]

    def blame(messages: list[Message[Any]]) -> None:
        bad = {message.id: error for message in messages if message.data == 5}
        if bad:
            raise BatchFailed(bad)

    broker = make_broker()
    broker.consume("a.b", blame, name="c", batch=10)

    stats = publish_some(broker)

    assert (stats.succeeded, stats.dead_lettered) == (COUNT - 1, 1)


class Asking(type):
    def __subclasscheck__(cls, kind: type) -> bool:
        raise SystemExit(1)


def test_an_error_that_a_retry_cannot_ask_for_is_given_up_and_told_as_a_bug(
    make_broker: MakeBroker,
) -> None:
    transient: Any = Asking("Transient", (Exception,), {})
    recorder, error = Recorder(), ValueError("why")

    def fail(message: object) -> None:
        raise error

    broker = make_broker(hooks=[recorder])
    retry = Retry(attempts=5, retry_on=(transient,))
    broker.consume("a.b", fail, name="c", retry=retry)
    broker.publish(Message("a.b"))
    wait_until_settled(broker)
    wait_until(lambda: recorder.named("dead_lettered"))

    assert [part for part, _ in recorder.named("failed")] == ["processor"]
    assert recorder.named("dead_lettered") == [("c", 1, error)]
