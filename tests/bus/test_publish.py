"""What a broker takes, refuses, counts and tells."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import (
    BrokerClosedError,
    ConfigurationError,
    MessageError,
    NoConsumerError,
    NotRunningError,
    PublishError,
    PublishTimeoutError,
    QueueFullError,
)
from django_gomq.bus.message import Message
from django_gomq.bus.process.clock import Clock
from tests.bus.conftest import MakeBroker
from tests.bus.observing import Recorder, Watcher
from tests.bus.waiting import LONG, wait_until, wait_until_settled


@pytest.fixture
def full(make_broker: MakeBroker) -> Broker:
    """A broker whose queue of a.b is full."""
    broker = make_broker(capacity=1)
    broker.consume("a.b", lambda _: None, name="c", overflow="backpressure", capacity=1)
    broker.pause("c")
    for _ in range(2):
        broker.publish(Message("a.b"), timeout=LONG)
    return broker


def test_a_full_queue_refuses_at_once_and_says_so(full: Broker) -> None:
    with pytest.raises(QueueFullError) as caught:
        full.publish(Message("a.b"))

    assert (caught.value.code, caught.value.event) == ("queue_full", "a.b")
    assert caught.value.broker == "default"
    assert full.stats().queues["a.b"].refused == {"queue_full": 1}


def test_a_wait_for_room_ends_in_a_refusal_of_its_own(full: Broker) -> None:
    with pytest.raises(PublishTimeoutError) as caught:
        full.publish(Message("a.b"), timeout=0.01)

    assert caught.value.code == "timeout"
    assert full.stats().queues["a.b"].refused == {"timeout": 1}


def test_timeouts_may_be_timedeltas(full: Broker) -> None:
    soon = timedelta(milliseconds=10)

    with pytest.raises(PublishTimeoutError):
        full.publish(Message("a.b"), timeout=soon)
    answers = full.publish_many([Message("a.b")], timeout=soon)
    full.close(timeout=soon)

    assert [type(answer) for answer in answers] == [PublishTimeoutError]


@pytest.mark.parametrize(
    "timeout", [-1, float("nan"), "1", True, timedelta(-1)], ids=str
)
def test_a_timeout_that_is_no_span_is_refused(broker: Broker, timeout: Any) -> None:
    for call in (
        lambda: broker.publish(Message("a.b"), timeout=timeout),
        lambda: broker.publish_many([], timeout=timeout),
        lambda: broker.close(timeout),
    ):
        with pytest.raises(ConfigurationError, match="timeout is .*, not a number of"):
            call()


@pytest.mark.parametrize("wrong", ["a.b", b"{}", {"type": "a.b"}, None], ids=repr)
def test_what_is_no_message_is_refused(broker: Broker, wrong: Any) -> None:
    for call in (broker.publish, lambda one: broker.publish_many([one])):
        with pytest.raises(
            ConfigurationError, match="A broker publishes messages, and"
        ):
            call(wrong)


def test_a_publisher_that_waits_gets_the_room_that_comes(full: Broker) -> None:
    threading.Timer(0.01, full.resume, ["c"]).start()

    full.publish(Message("a.b"), timeout=LONG)

    wait_until(lambda: full.stats().consumers["c"].succeeded == 3)
    wait_until_settled(full)


def test_a_handler_that_publishes_into_its_own_full_queue_does_not_wait(
    make_broker: MakeBroker,
) -> None:
    broker, codes = make_broker(capacity=1), list[str]()
    done = threading.Event()

    def handle(message: Message[Any]) -> None:
        if done.is_set():
            return
        for _ in range(9):  # more than queue and channel hold
            try:
                broker.publish(Message("a.b"), timeout=LONG)
            except PublishError as error:
                codes.append(error.code)
        done.set()

    broker.consume("a.b", handle, name="c", overflow="backpressure", capacity=1)
    broker.publish(Message("a.b"))

    assert done.wait(LONG)
    assert codes
    assert set(codes) == {"queue_full"}
    wait_until_settled(broker)
    assert broker.stats().queues["a.b"].refused == {"queue_full": len(codes)}


@pytest.mark.parametrize("way", ["publish", "publish_many", "hand_over", "watched"])
@pytest.mark.parametrize("fields", [{}, {"priority": 9, "headers": {"x": "1"}}])
def test_a_handler_may_pass_its_message_on(
    make_broker: MakeBroker, way: str, fields: dict[str, Any]
) -> None:
    seen: list[Message[Any]] = []
    near = make_broker()
    far = make_broker(hooks=[Watcher()] if way == "watched" else [])

    def pass_on(message: Message[Any]) -> None:
        match way:
            case "publish" | "watched":
                far.publish(message)
            case "publish_many":
                assert far.publish_many([message]) == [None]
            case "hand_over":
                far.hand_over(message, None)

    near.consume("a.b", pass_on, name="near")
    far.consume("a.b", seen.append, name="far")
    far.start()
    message: Message[Any] = Message("a.b", b"[1]", **fields)

    near.publish(message)
    wait_until(lambda: seen)
    wait_until_settled(near)
    wait_until_settled(far)

    (found,) = seen
    assert (found.id, found.data, found.attempt) == (message.id, [1], 1)
    assert (found.priority, found.headers) == (message.priority, message.headers)
    assert far.stats().reader_up
    assert far.stats().consumers["far"].succeeded == 1


@pytest.mark.parametrize("headers", [{}, {"x": "1"}])
def test_headers_that_a_handler_wrote_go_on_with_its_message(
    make_broker: MakeBroker, headers: dict[str, str]
) -> None:
    near, far, seen = make_broker(), make_broker(), list[dict[str, str]]()

    def pass_on(message: Message[Any]) -> None:
        message.headers["hop"] = "near"
        far.publish(message)

    near.consume("a.b", pass_on, name="near")
    near.consume("a.b", lambda m: seen.append(m.headers), name="other")
    far.consume("a.b", lambda m: seen.append(m.headers), name="far")

    near.publish(Message("a.b", headers=headers) if headers else Message("a.b"))
    wait_until(lambda: len(seen) == 2)

    assert sorted(seen, key=len) == [headers, {**headers, "hop": "near"}]


def test_a_message_that_is_passed_on_again_and_again_keeps_its_own_data(
    broker: Broker,
) -> None:
    seen: list[Any] = []

    def pass_on(message: Message[Any]) -> None:
        seen.append(list(message.data))
        message.data.append("changed")
        if len(seen) < 5:
            broker.publish(message)

    broker.consume("a.b", pass_on, name="c")
    broker.publish(Message("a.b", b"[1]"))

    wait_until(lambda: len(seen) == 5)
    wait_until_settled(broker)
    assert seen == [[1]] * 5


def test_a_type_that_nobody_wants_is_refused_and_counted(
    make_broker: MakeBroker,
) -> None:
    recorder = Recorder()
    broker = make_broker(hooks=[recorder])
    broker.consume("a.b", print, name="c")

    with pytest.raises(NoConsumerError) as caught:
        broker.publish(Message("x.y"))

    assert caught.value.code == "no_consumer"
    assert broker.stats().queues["x.y"].unconsumed == 1
    assert recorder.named("unconsumed") == ["x.y"]


def test_a_name_that_is_no_type_is_a_mistake(broker: Broker) -> None:
    broker.consume("*", print, name="c")

    for name in ("A.b", "a b", "a.*"):
        with pytest.raises(ConfigurationError):
            broker.publish(Message(name))


def test_a_message_that_breaks_a_limit_is_a_mistake(make_broker: MakeBroker) -> None:
    broker = make_broker(max_body_bytes=5)
    broker.consume("a.b", print, name="c")

    with pytest.raises(MessageError):
        broker.publish(Message("a.b", b"123456"))
    with pytest.raises(MessageError):
        broker.check(Message("a.b", b"123456"))
    assert broker.stats().queues == {} or not broker.stats().queues["a.b"].refused


def test_a_refusal_is_told_to_the_hooks(make_broker: MakeBroker) -> None:
    recorder = Recorder()
    broker = make_broker(hooks=[recorder])
    broker.consume("a.b", print, name="c")
    broker.close()

    with pytest.raises(BrokerClosedError):
        broker.publish(Message("a.b"))

    assert recorder.named("refused") == [("a.b", "closed")]


def test_a_process_that_handles_nothing_refuses(make_broker: MakeBroker) -> None:
    broker = make_broker(may_start=lambda: False)
    broker.consume("a.b", lambda _: None, name="c")

    with pytest.raises(NotRunningError, match="RUN setting"):
        broker.publish(Message("a.b"))
    assert broker.publish_many([]) == []
    answers = broker.publish_many([Message("a.b")] * 2)

    assert {type(one) for one in answers} == {NotRunningError}
    assert broker.stats().queues["a.b"].refused == {"not_running": 3}
    assert not broker.is_started
    broker.start()
    broker.publish(Message("a.b"))
    wait_until_settled(broker)


def test_a_close_between_the_look_and_the_start_is_a_counted_refusal(
    make_broker: MakeBroker,
) -> None:
    closing: list[Broker] = []

    def close_first() -> bool:
        closing[0].close()
        return True

    broker = make_broker(may_start=close_first)
    closing.append(broker)
    broker.consume("a.b", print, name="c")

    with pytest.raises(BrokerClosedError):
        broker.publish(Message("a.b"))

    assert broker.stats().queues["a.b"].refused == {"closed": 1}


def test_many_messages_go_in_order_and_each_gets_an_answer(
    make_broker: MakeBroker,
) -> None:
    broker, handled = make_broker(capacity=3), list[int]()
    broker.consume(
        "a.b",
        lambda m: handled.append(m.data),
        name="c",
        overflow="backpressure",
        capacity=1,
    )
    broker.pause("c")
    broker.publish(Message("a.b", b"0"))
    wait_until(lambda: broker.stats().consumers["c"].depth == 1)
    wait_until(lambda: broker.stats().queues["a.b"].depth == 0)

    answers = broker.publish_many([Message("a.b", b"%d" % n) for n in range(1, 6)])
    broker.resume("c")

    wait_until_settled(broker)
    assert [type(one) for one in answers[:3]] == [type(None)] * 3
    assert [type(one) for one in answers[3:]] == [QueueFullError] * 2
    assert handled == [0, 1, 2, 3]
    assert broker.stats().queues["a.b"].refused == {"queue_full": 2}


def test_a_timeout_bounds_many_messages_together(full: Broker) -> None:
    began = Clock.monotonic()

    answers = full.publish_many([Message("a.b")] * 200, timeout=0.5)

    assert Clock.monotonic() - began < 50  # it would be 100, if it was for each
    assert {type(one) for one in answers} <= {PublishTimeoutError, QueueFullError}
    assert len(answers) == 200


@pytest.mark.parametrize(
    "wrong", [{"delay": 999.0}, {"type": "B.b"}, {"priority": 11}, {"body": "x"}]
)
def test_of_many_messages_none_is_handed_over_if_one_can_never_work(
    broker: Broker, wrong: dict[str, Any]
) -> None:
    broker.consume("*", print, name="c")
    bad = Message(**{"type": "a.b"} | wrong)

    with pytest.raises((MessageError, ConfigurationError)):
        broker.publish_many([Message("a.b"), bad])

    assert not broker.stats().consumers["c"].dispatched


def test_hooks_may_write_headers_before_the_hand_over(make_broker: MakeBroker) -> None:
    class Stamp(Watcher):
        def publishing(  # type: ignore[override]
            self, broker: str, backend: str, message: Message[Any], parent: object
        ) -> None:
            message.add_headers({"trace": f"{backend}:{parent}"})

    broker, seen = make_broker(hooks=[Stamp()]), list[str]()
    broker.consume("a.b", lambda m: seen.append(m.headers["trace"]), name="c")

    broker.publish(Message("a.b"))
    wait_until_settled(broker)
    parents = [broker.hooks.capture_contexts()]
    broker.hand_over_many([Message("a.b")], None, parents)
    broker.publish_many([Message("a.b")])

    wait_until_settled(broker)
    assert seen == ["memory:None", "memory:here", "memory:None"]


def test_watched_publishers_are_refused_one_by_one(make_broker: MakeBroker) -> None:
    watcher = Watcher()
    broker = make_broker(hooks=[watcher])
    broker.consume("a.b", lambda _: None, name="c")

    answers = broker.publish_many([Message("a.b"), Message("x.y")])
    with pytest.raises(NoConsumerError):
        broker.publish(Message("x.y"))

    assert [type(one) for one in answers] == [type(None), NoConsumerError]
    assert broker.stats().queues["x.y"].unconsumed == 2


def test_refusals_before_there_was_a_message_are_counted_from_nothing(
    broker: Broker,
) -> None:
    broker.count_refused("a.b", "not_made", 0)
    begun = dict(broker.stats().queues["a.b"].refused)
    broker.count_refused("a.b", "not_made")

    assert begun == {"not_made": 0}
    assert broker.stats().queues["a.b"].refused == {"not_made": 1}


def test_a_rollback_is_counted(broker: Broker) -> None:
    broker.count_rolled_back("a.b")

    assert broker.stats().queues["a.b"].rolled_back == 1


def test_an_order_by_key_excludes_priority_and_delay(broker: Broker) -> None:
    broker.consume("a.b", lambda _: None, name="c", ordered_by_key=True)
    broker.consume("x.*", lambda _: None, name="d")

    for fields in ({"priority": 9}, {"delay": 1.0}):
        with pytest.raises(ConfigurationError, match="ordered_by_key"):
            broker.publish(Message("a.b", **fields))
        broker.check(Message("x.y", **fields))
    broker.check(Message("a.b", key="k"))


def test_a_delayed_message_comes_after_its_delay(broker: Broker) -> None:
    handled: dict[str, float] = {}
    broker.consume(
        "a.b", lambda m: handled.update({m.data: Clock.monotonic()}), name="c"
    )

    began = Clock.monotonic()
    broker.publish(Message("a.b", b'"late"', delay=0.03))
    broker.publish(Message("a.b", b'"soon"'))

    wait_until(lambda: len(handled) == 2)
    wait_until_settled(broker)
    assert handled["late"] >= began + 0.03


def test_a_delayed_message_holds_its_room(make_broker: MakeBroker) -> None:
    broker = make_broker(capacity=1)
    broker.consume("a.b", print, name="c")
    broker.publish(Message("a.b", delay=60))

    with pytest.raises(QueueFullError):
        broker.publish(Message("a.b"))

    queue = broker.stats().queues["a.b"]
    assert (queue.delayed, queue.depth, queue.published) == (1, 0, 1)


def test_a_delay_that_outlives_the_process_is_refused_with_advice(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker(max_delay=10)
    broker.consume("a.b", print, name="c")

    with pytest.raises(MessageError, match="broker on the database .* max_delay in"):
        broker.publish(Message("a.b", delay=10.5))


# ----------------------------------------------------------------------- the broker


def test_a_name_can_be_taken_once(broker: Broker) -> None:
    broker.consume("a.b", print, name="c")

    with pytest.raises(ConfigurationError, match="has a consumer 'c' already"):
        broker.consume("a.b", print, name="c")


def test_a_consumer_that_its_backend_cannot_run_may_be_corrected() -> None:
    class Unordered(MemoryBackend):
        def __init__(self) -> None:
            super().__init__()
            self.capabilities = structs.replace(self.capabilities, ordered_by_key=False)

    broker = Broker(Unordered)
    broker.start()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="no order by key"):
            broker.consume("a.b", print, name="c", ordered_by_key=True)

    broker.consume("a.b", lambda _: None, name="c")

    broker.publish(Message("a.b"))
    assert broker.close().is_clean


def test_a_disabled_consumer_gets_nothing(broker: Broker) -> None:
    broker.consume("a.b", print, name="c", enabled=False)
    broker.start()
    broker.consume("a.b", print, name="d", enabled=False)

    with pytest.raises(NoConsumerError):
        broker.publish(Message("a.b"))
    assert broker.consumers == []


def test_an_unknown_consumer_is_named_in_the_error(broker: Broker) -> None:
    broker.consume("a.b", print, name="c")

    for call in (broker.pause, broker.resume, lambda name: broker.resize(name, 1)):
        with pytest.raises(ConfigurationError, match=r"no consumer 'x'; there are c"):
            call("x")


def test_a_broker_says_what_its_backend_is(broker: Broker) -> None:
    assert broker.backend_name == "memory"
    assert broker.capabilities.priority
    assert not broker.is_closed
    assert not broker.is_started


def test_consumers_are_told_at_birth_or_later(make_broker: MakeBroker) -> None:
    first = make_broker().consume("a.b", lambda _: None, name="c")
    broker = make_broker(consumers=[first])

    broker.publish(Message("a.b"))

    wait_until_settled(broker)
    assert broker.stats().consumers["c"].succeeded == 1


def test_a_paused_consumer_starts_nothing_until_it_is_resumed(broker: Broker) -> None:
    handled: list[Any] = []
    broker.consume("a.b", handled.append, name="c")
    broker.pause("c")
    broker.publish(Message("a.b"))
    wait_until(lambda: broker.stats().consumers["c"].depth == 1)
    assert broker.stats().consumers["c"].paused
    assert broker.stats().consumers["c"].oldest_age > 0
    assert not handled

    broker.resume("c")

    wait_until(lambda: handled)


def test_a_resize_changes_how_much_may_wait(broker: Broker) -> None:
    broker.consume("a.b", print, name="c", capacity=1)
    broker.pause("c")
    broker.resize("c", 3)

    for _ in range(5):
        broker.publish(Message("a.b"))

    wait_until(lambda: sum(broker.stats().consumers["c"].dropped.values()) == 2)
    assert broker.stats().consumers["c"].depth == 3
    assert broker.stats().consumers["c"].capacity == 3


def test_a_consumer_that_joins_in_the_midst_of_a_first_publish_is_not_missed(
    broker: Broker,
) -> None:
    broker.consume("a.*", lambda _: None, name="one")
    broker.start()
    registry: Any = broker._current_runtime().backend._queues  # type: ignore[attr-defined]
    match, lock = registry.match, registry._lock

    def join_meanwhile(event: str) -> Any:
        found = match(event)
        if len(broker.consumers) == 1 and not lock.locked():
            broker.consume("a.*", lambda _: None, name="two")
        return found

    registry.match = join_meanwhile
    broker.publish(Message("a.b"))

    wait_until_settled(broker)
    assert broker.stats().consumers["two"].succeeded == 1
