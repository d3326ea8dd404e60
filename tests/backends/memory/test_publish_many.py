"""Many messages in one call: runs of equals go at once, and nobody can tell."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.bus.errors import (
    BrokerClosedError,
    NotRunningError,
    PublishError,
    PublishTimeoutError,
    QueueFullError,
)
from django_gomq.bus.message import Message
from django_gomq.bus.stats import QueueStats
from tests.backends.memory.opening import open_backend, subscribe
from tests.bus.waiting import LONG, run_threads, wait_until

Answers = list[PublishError | None]


def still(capacity: int) -> Any:
    """Return a backend that is up, and whose queues nobody empties."""
    backend: Any = open_backend(capacity=capacity)
    subscribe(backend, "a.b", "a.c", "b.*")
    subscribe(backend, "keys.x", name="k", ordered_by_key=True)
    backend._dispatcher.loop.is_up = True
    return backend


def codes(answers: Answers) -> list[str | None]:
    return [None if answer is None else answer.code for answer in answers]


def queued(backend: Any) -> dict[str, list[Message[Any]]]:
    return {queue.label: queue.take(10_000) for queue in backend._queues.all()}


def delayed(backend: Any) -> list[Message[Any]]:
    return [message for _, message in backend._publisher._delayed.take_all()]


def numbered(count: int, event: str = "a.b", **fields: Any) -> list[Message[Any]]:
    return [Message(event, b"%d" % number, **fields) for number in range(count)]


MIXED = st.lists(
    st.builds(
        Message,
        st.sampled_from(["a.b", "a.b", "a.c", "b.x", "nobody.x", "keys.x"]),
        delay=st.sampled_from([0.0, 0.0, 0.0, 60.0]),
        priority=st.sampled_from([5, 5, 5, 9]),
    ).filter(lambda m: m.type != "keys.x" or (not m.delay and m.priority == 5)),
    max_size=25,
)


def counted(backend: Any) -> dict[str, QueueStats]:
    """Return the numbers of each queue, but for its age, which grows meanwhile."""
    return {
        event: msgspec.structs.replace(found, oldest_age=0.0)
        for event, found in backend.queue_stats().items()
    }


@given(MIXED, st.integers(1, 8), st.booleans())
@settings(deadline=None, max_examples=200)
def test_many_are_answered_and_queued_as_one_by_one(
    messages: list[Message[Any]], capacity: int, twice: bool
) -> None:
    many, single = still(capacity), still(capacity)
    if twice:
        messages = messages * 2

    answers = many.publish_many(messages, None)

    expected = [single._publisher.try_put(message, None, None) for message in messages]
    assert codes(answers) == codes(expected)
    assert counted(many) == counted(single)
    assert delayed(many) == delayed(single)
    assert queued(many) == queued(single)


def test_a_run_fills_the_room_there_is_and_the_rest_is_refused() -> None:
    backend, messages = still(3), numbered(5)

    answers = backend.publish_many(messages, None)

    assert codes(answers) == [None] * 3 + ["queue_full"] * 2
    assert queued(backend)["a.b"] == messages[:3]


def test_all_that_find_no_room_within_a_timeout_say_so() -> None:
    backend = still(1)

    answers = backend.publish_many(numbered(4), 0.01)

    assert codes(answers) == [None] + ["timeout"] * 3


def test_delayed_messages_wait_apart_and_hold_their_room() -> None:
    backend = still(4)
    messages = [*numbered(2), *numbered(2, delay=60.0), *numbered(1)]

    answers = backend.publish_many(messages, None)

    stats = backend.queue_stats()["a.b"]
    assert codes(answers) == [None] * 4 + ["queue_full"]
    assert (stats.depth, stats.delayed, stats.published) == (2, 2, 4)


def test_the_list_of_the_caller_is_neither_changed_nor_kept() -> None:
    backend, messages = still(9), numbered(3)
    given_ones = list(messages)

    backend.publish_many(messages, None)
    messages.clear()

    assert queued(backend)["a.b"] == given_ones


def test_a_dispatcher_that_is_down_refuses_them_all() -> None:
    backend = still(9)
    backend.publish_many(numbered(1), None)
    backend._dispatcher.loop.is_up = False

    answers = backend.publish_many(numbered(3), None)

    assert [type(answer) for answer in answers] == [NotRunningError] * 3
    assert backend.queue_stats()["a.b"].published == 1


def test_a_close_refuses_them_all() -> None:
    backend = still(9)
    backend.publish_many(numbered(1), None)
    backend.make_reader().stop_fetching()

    answers = backend.publish_many(numbered(3), None)

    assert [type(answer) for answer in answers] == [BrokerClosedError] * 3


def test_a_close_in_the_midst_of_a_run_refuses_the_rest() -> None:
    backend, answers = still(2), list[Any]()

    def publish() -> None:
        answers.extend(backend.publish_many(numbered(5), LONG))

    def close() -> None:
        queue = backend._queues.open("a.b")
        wait_until(lambda: queue._waiters)  # two are in, the third waits
        backend.make_reader().stop_fetching()

    run_threads(publish, close)

    assert codes(answers) == [None, None, "closed", "closed", "closed"]


def test_room_that_comes_while_one_waits_is_used_for_the_rest() -> None:
    backend, answers, taken = still(2), list[Any](), list[Message[Any]]()
    messages = numbered(9)

    def publish() -> None:
        answers.extend(backend.publish_many(messages, LONG))

    def drain() -> None:
        queue = backend._queues.open("a.b")
        while len(taken) < 9:
            batch = queue.take(10)
            taken.extend(batch)
            queue.end_dispatch(len(batch))

    run_threads(publish, drain)

    assert codes(answers) == [None] * 9
    assert taken == messages


def test_a_timeout_bounds_the_call_and_names_itself() -> None:
    backend = still(2)
    backend.publish_many(numbered(2), None)
    began = time.monotonic()

    answers = backend.publish_many(numbered(20), 0.05)

    assert 0.05 <= time.monotonic() - began < 5
    assert isinstance(answers[0], PublishTimeoutError)
    # The time is up: for what follows nobody waits.
    assert {type(answer) for answer in answers[1:]} <= {
        PublishTimeoutError,
        QueueFullError,
    }
    assert len(answers) == 20
