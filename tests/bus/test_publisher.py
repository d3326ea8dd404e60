"""On the way to a server: one that is away is not waited for, a silent one is said."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from django_gomq.bus import publisher as module
from django_gomq.bus.backend import Backend, BackendContext, Capabilities, Settled
from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import (
    BackendUnavailableError,
    NoConsumerError,
    PublishError,
    PublishUnknownError,
    QueueFullError,
)
from django_gomq.bus.hooks import PROPAGATED
from django_gomq.bus.message import Message
from django_gomq.bus.publisher import MAX_PAUSE, Link
from tests.bus.observing import Watcher
from tests.bus.waiting import run_threads

AWAY = BackendUnavailableError("The server is away.", broker="default")


class Clock:
    """What time it is for a link."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "Clock", clock)
    return clock


def is_refused(link: Link) -> bool:
    return link.refusal("a.b") is not None


def test_as_long_as_nothing_failed_nothing_is_refused() -> None:
    link = Link()

    link.note(None)

    assert not is_refused(link)


def test_a_server_known_to_be_away_refuses_at_once_and_says_why() -> None:
    link = Link()
    link.note(AWAY)

    refusal = link.refusal("a.b")

    assert isinstance(refusal, BackendUnavailableError)
    assert str(refusal) == "The server is away."
    assert (refusal.event, refusal.broker) == ("a.b", "default")


def test_after_a_pause_one_tries_and_all_others_are_refused(clock: Clock) -> None:
    link, refused = Link(), deque[bool]()
    link.note(AWAY)
    clock.now += MAX_PAUSE

    run_threads(*[lambda: refused.append(is_refused(link))] * 8)

    assert Counter(refused) == {False: 1, True: 7}


def test_one_that_tried_and_never_came_back_is_followed_by_another(
    clock: Clock,
) -> None:
    link = Link()
    link.note(AWAY)
    clock.now += MAX_PAUSE
    assert not is_refused(link)

    clock.now += MAX_PAUSE

    assert not is_refused(link)


def pause_of(link: Link, clock: Clock) -> float:
    """Return after how long the next one tries."""
    began = clock.now
    while is_refused(link):
        clock.now += 1 / 128
    return clock.now - began


def test_the_pause_grows_up_to_a_bound_and_begins_anew_after_a_success(
    clock: Clock,
) -> None:
    link, pauses = Link(), list[float]()
    for _ in range(8):
        link.note(AWAY)
        pauses.append(pause_of(link, clock))
    link.note(None)
    assert not is_refused(link)

    link.note(AWAY)

    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(MAX_PAUSE, abs=0.02)
    assert pause_of(link, clock) == pytest.approx(pauses[0], abs=0.02)


@pytest.mark.parametrize(
    ("answer", "is_back"),
    [
        (None, True),
        (QueueFullError("it answers, at least"), True),
        (PublishUnknownError("it did not answer"), False),
        (AWAY, False),
    ],
    ids=repr,
)
def test_a_server_is_back_when_it_has_answered(
    clock: Clock, answer: PublishError | None, is_back: bool
) -> None:
    link = Link()
    link.note(AWAY)
    clock.now += MAX_PAUSE
    assert not is_refused(link)

    link.note(answer)

    assert is_refused(link) is not is_back


# ------------------------------------------------------------------ on a broker


class Server(Backend):
    """Answers every publish in the same way."""

    name = "server"

    def __init__(self) -> None:
        self.capabilities = Capabilities(durable=True, transactional=True)
        self.answer: PublishError | None = None
        self.asked: list[int] = []
        self.written: list[str] = []
        self.woken = 0

    def open(self, context: BackendContext) -> None: ...

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        self.asked.append(len(messages))
        return [self.answer] * len(messages)

    def publish_in_transaction(
        self, messages: Sequence[Message[Any]], using: str
    ) -> None:
        if self.answer is not None:
            raise self.answer
        self.written += [message.type for message in messages]

    def wake(self) -> None:
        self.woken += 1

    def settle(self, settlements: Sequence[Any]) -> list[Settled]:
        return [Settled.DONE] * len(settlements)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def broker(server: Server, watcher: Watcher) -> Any:
    broker = Broker(lambda: server, hooks=[watcher], may_start=lambda: False)
    yield broker
    broker.close(timeout=0)


def publish(broker: Broker) -> PublishError | None:
    try:
        broker.publish(Message("a.b"))
    except PublishError as error:
        return error
    return None


def publish_two(broker: Broker) -> PublishError | None:
    first, second = broker.publish_many([Message("a.b"), Message("a.b")])
    assert type(first) is type(second)
    return first


WAYS = pytest.mark.parametrize(
    ("way", "count"), [(publish, 1), (publish_two, 2)], ids=["one", "many"]
)
Way = Callable[[Broker], PublishError | None]


@WAYS
def test_what_outlives_the_process_is_published_where_nothing_runs(
    broker: Broker, server: Server, way: Way, count: int
) -> None:
    assert way(broker) is None

    assert (server.asked, broker.is_started) == ([count], False)


@WAYS
def test_what_outlives_the_process_is_published_though_no_thread_can_start(
    server: Server, monkeypatch: pytest.MonkeyPatch, way: Way, count: int
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    broker = Broker(lambda: server)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert way(broker) is None
    is_started = broker.is_started

    assert way(broker) is None  # and tries again

    assert (is_started, broker.is_started) == (False, True)
    assert server.asked == [count] * 2
    broker.close()


@WAYS
def test_a_server_that_is_away_is_asked_once_and_each_refusal_is_counted(
    broker: Broker, server: Server, watcher: Watcher, clock: Clock, way: Way, count: int
) -> None:
    server.answer = AWAY

    answers = [way(broker) for _ in range(3)]

    assert server.asked == [count]
    assert {type(answer) for answer in answers} == {BackendUnavailableError}
    assert broker.stats().queues["a.b"].refused == {"unavailable": 3 * count}
    broker.hooks.flush()
    assert watcher.named("refused") == [("a.b", "unavailable")] * 3 * count
    server.answer = None
    clock.now += MAX_PAUSE
    assert way(broker) is None


@WAYS
def test_what_was_not_answered_in_time_is_counted_as_unknown_not_as_refused(
    broker: Broker, server: Server, watcher: Watcher, way: Way, count: int
) -> None:
    server.answer = PublishUnknownError("no answer")

    answers = [way(broker) for _ in range(2)]

    numbers = broker.stats().queues["a.b"]
    assert server.asked == [count] * 2  # not known to be away
    assert {type(answer) for answer in answers} == {PublishUnknownError}
    assert (numbers.unknown, numbers.refused) == (2 * count, {})
    broker.hooks.flush()
    assert watcher.named("unknown") == [("a.b", "unknown")] * 2 * count
    ends = [type(end) for end in watcher.named("published")]
    assert ends == [PublishUnknownError] * 2 * count


def test_a_backend_that_raises_ends_every_watch(
    broker: Broker, server: Server, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("a bug")

    monkeypatch.setattr(server, "publish_many", fail)

    with pytest.raises(OSError, match="a bug"):
        publish_two(broker)

    assert len(watcher.named("published")) == len(watcher.named("publishing")) == 2


def test_what_watchers_need_not_see_they_are_not_shown(
    broker: Broker, server: Server, watcher: Watcher
) -> None:
    messages = [Message[Any]("a.b"), Message[Any]("a.b")]

    broker.hand_over_many(messages, None, [PROPAGATED, PROPAGATED])
    unseen = watcher.named("publishing")
    broker.hand_over_many(messages, None, [PROPAGATED, ("parent",)])

    assert unseen == []
    assert watcher.named("publishing") == [("a.b", "parent")]


@pytest.mark.parametrize("answer", [None, QueueFullError("full")], ids=repr)
def test_what_is_written_into_a_transaction_is_watched(
    broker: Broker, server: Server, watcher: Watcher, answer: PublishError | None
) -> None:
    server.answer = answer
    messages = [Message[Any]("a.b"), Message[Any]("a.c")]

    if answer is None:
        broker.publish_in_transaction(messages, "default")
    else:
        with pytest.raises(QueueFullError):
            broker.publish_in_transaction(messages, "default")

    assert server.written == ([] if answer else ["a.b", "a.c"])
    assert watcher.named("published") == [answer] * 2


def test_the_reader_is_woken_after_the_commit_and_not_before(
    broker: Broker, server: Server
) -> None:
    broker.publish_in_transaction([Message("a.b")], "default")
    before = server.woken

    broker.count_committed("a.b")

    assert (before, server.woken) == (0, 1)


def test_a_closed_broker_writes_into_no_transaction(
    broker: Broker, server: Server
) -> None:
    broker.close()

    with pytest.raises(PublishError, match="closed"):
        broker.publish_in_transaction([Message("a.b")], "default")

    assert server.written == []


def test_a_publish_of_nothing_asks_nobody(broker: Broker, server: Server) -> None:
    server.answer = AWAY
    assert publish(broker) is not None
    server.answer = None

    assert broker.publish_many([]) == []

    assert server.asked == [1]
    assert publish(broker) is not None  # it is still known to be away


def test_a_server_that_is_away_for_some_of_many_is_away(
    broker: Broker, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [AWAY, NoConsumerError("nobody")]  # which no server was asked for
    monkeypatch.setattr(server, "publish_many", lambda *_: answers)
    assert broker.publish_many([Message("a.b"), Message("a.c")]) == answers
    monkeypatch.undo()

    assert publish(broker) is not None

    assert server.asked == []
