from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from threading import Barrier, Thread
from typing import Any

import pytest

from django_gomq.bus.delivery import DropReason, RetryAfter, RetryLater
from django_gomq.bus.errors import PublishError, PublishUnknownError, QueueFullError
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.bus.stats import Remainder
from django_gomq.observability.logs import LogHook
from django_gomq.observability.logs.hook import (
    MAX_LINES,
    MAX_SUBJECTS,
    Limiter,
    Subject,
)

from .conftest import MakeBroker
from .live import WAIT_SECONDS, do_nothing, publish, wait_until

AT_ONCE = Retry(attempts=2, min_delay=0.0)
FULL = QueueFullError("The queue of 'a' is full (1).", event="a", broker="default")
MESSAGE: Message[Any] = Message(type="a")
OTHER_MESSAGE: Message[Any] = Message(type="a")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hook(clock: Clock) -> LogHook:
    return LogHook(clock=clock)


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gomq")


def extras(record: logging.LogRecord) -> dict[str, Any]:
    return {
        name.removeprefix("gomq_"): value
        for name, value in vars(record).items()
        if name.startswith("gomq_")
    }


def counts(caplog: pytest.LogCaptureFixture) -> list[int]:
    warned = (one for one in caplog.records if one.levelno >= logging.WARNING)
    return [extras(record)["count"] for record in warned]


def drop(hook: LogHook, number: int = 1) -> None:
    hook.dropped("default", "audit", [MESSAGE] * number, DropReason.CHANNEL_FULL)


def give_up(
    hook: LogHook, error: BaseException, message: Message[Any] = MESSAGE
) -> None:
    hook.dead_lettered("default", "audit", message, 5, error)


def retry(hook: LogHook, error: BaseException | None) -> None:
    hook.retrying("default", "audit", MESSAGE, 1, RetryAfter(2.0, error))


def test_a_refusal_is_a_warning_that_says_what_and_why(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.refused("default", "a", FULL)

    [record] = caplog.records
    assert (record.name, record.levelname) == ("gomq.publish", "WARNING")
    assert record.getMessage() == (
        "Broker default refused 1 of a: QueueFullError: The queue of 'a' is full (1)."
    )
    assert extras(record) == {
        "kind": "refused",
        "broker": "default",
        "event": "a",
        "consumer": "",
        "reason": "queue_full",
        "count": 1,
    }


def test_what_a_server_did_not_answer_is_a_warning_and_no_refusal(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        hook.unknown("default", "a", PublishUnknownError("No answer in 5 s."))

    [record] = caplog.records
    assert (record.name, record.levelname) == ("gomq.publish", "WARNING")
    assert record.getMessage() == (
        "The server of broker default may have taken 1 of a, or not: "
        "PublishUnknownError: No answer in 5 s."
    )
    assert extras(record)["kind"] == "unknown"


TO_DO = (
    "raise its concurrency or capacity, make it overflow='backpressure', or emit with "
    "a timeout, which waits for room"
)


@pytest.mark.parametrize(
    "reason", [one for one in DropReason if one is not DropReason.SHUTDOWN]
)
def test_a_drop_says_what_to_do(
    hook: LogHook, caplog: pytest.LogCaptureFixture, reason: DropReason
) -> None:
    hook.dropped("default", "audit", [MESSAGE], reason)

    assert "raise its concurrency" in caplog.messages[0]


def test_a_long_drain_says_how_many_are_left_and_how_to_end_it(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.draining("default", 7, 5.004)

    [record] = caplog.records
    assert (record.name, record.levelname) == ("gomq.bus", "WARNING")
    assert record.getMessage() == (
        "Broker default has 7 messages left and handles them before it stops, for 5 s "
        "so far; Ctrl-C or SIGTERM ends that sooner, and DRAIN_TIMEOUT bounds it"
    )
    assert extras(record)["count"] == 7


def test_a_drop_is_a_warning_for_each_event_type(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    messages = [MESSAGE, Message(type="b"), MESSAGE]

    hook.dropped("default", "audit", messages, DropReason.EVICTED)

    assert [record.getMessage() for record in caplog.records] == [
        f"Consumer audit will not see {count_of} (newer ones took its place: {TO_DO})"
        for count_of in ("2 of a: evicted", "1 of b: evicted")
    ]
    assert {record.name for record in caplog.records} == {"gomq.consumer"}


FLOODS: dict[str, Callable[[LogHook], None]] = {
    "refused": lambda hook: hook.refused("default", "a", FULL),
    "dropped": drop,
    "retrying": lambda hook: retry(hook, ValueError()),
    "dead": lambda hook: give_up(hook, ValueError()),
    "batch": lambda hook: hook.batch_failed("default", "audit", 7, ValueError()),
    "overran": lambda hook: hook.overran("default", "audit", 7.0),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_is_told_at_once_and_then_every_ten_seconds(
    kind: str, hook: LogHook, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for moment in (0.0, 1.0, 9.9, 10.0, 10.1, 21.0):
        clock.now = moment
        FLOODS[kind](hook)

    assert counts(caplog) == [1, 3, 2]


def test_a_blocked_loop_is_told_with_where_it_stands(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        hook.loop_blocked("audit", 1.5, "sleep (x.py:1)")

    [line] = caplog.records
    assert "audit blocks the event loop" in line.getMessage()
    assert "for 1.5 s so far, in sleep (x.py:1)" in line.getMessage()


def test_what_is_about_something_else_is_not_held_back(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    drop(hook)
    hook.dropped("other", "audit", [MESSAGE], DropReason.CHANNEL_FULL)
    hook.dropped("default", "other", [MESSAGE], DropReason.CHANNEL_FULL)
    hook.dropped("default", "audit", [Message(type="b")], DropReason.CHANNEL_FULL)
    hook.dropped("default", "audit", [MESSAGE], DropReason.EXPIRED)
    drop(hook)

    assert len(caplog.records) == 5


def test_what_a_stop_left_in_the_database_is_no_loss_and_is_told(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    hook.stopped("default", Remainder(dropped={}, in_flight=0, seconds=1, spilled=7))

    (line,) = [one for one in caplog.records if one.levelno >= logging.INFO]
    assert line.levelno == logging.INFO
    assert "left 7 messages in the table of spilled ones" in line.getMessage()
    assert line.gomq_spilled == 7  # type: ignore[attr-defined]


def test_what_was_held_back_is_told_at_the_stop(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    drop(hook, 2)
    drop(hook, 5)
    hook.dropped("other", "audit", [MESSAGE], DropReason.CHANNEL_FULL)
    hook.dropped("other", "audit", [MESSAGE], DropReason.CHANNEL_FULL)
    caplog.clear()

    hook.stopped("default", Remainder(dropped={}, in_flight=0, seconds=0.1))
    hook.stopped("default", Remainder(dropped={}, in_flight=0, seconds=0.1))

    told = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert len(told) == 1
    assert told[0].getMessage() == (
        "5 more since the last such line: dropped, event a, consumer audit, "
        "channel_full"
    )
    assert extras(told[0])["count"] == 5


def test_a_retried_attempt_is_a_warning_without_traceback(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    retry(hook, ValueError("no such row"))

    [record] = caplog.records
    assert (record.name, record.levelname) == ("gomq.consumer", "WARNING")
    assert record.exc_info is None
    assert record.getMessage() == (
        "Consumer audit failed in attempt 1 of a, again in 2.000 s (1 like it): "
        "ValueError: no such row"
    )
    assert extras(record)["attempt"] == 1
    assert extras(record)["message_id"] == MESSAGE.id
    assert extras(record)["error"] == "ValueError: no such row"


def test_asking_for_another_time_is_no_warning(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    retry(hook, None)

    assert [record.levelname for record in caplog.records] == ["DEBUG"]


def test_asking_for_ever_for_another_time_is_a_warning_at_each_doubling(
    hook: LogHook, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for times in range(1, 70):
        outcome = RetryAfter(9.0, None, times=times)
        hook.retrying("default", "audit", MESSAGE, 1, outcome)
        clock.now += 9.0

    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [extras(record)["times"] for record in warnings] == [16, 32, 64]
    assert "asks for a message of a again for the 16th time" in warnings[0].getMessage()
    assert "raise Reject" in warnings[0].getMessage()
    assert extras(warnings[0])["message_id"] == MESSAGE.id


def test_a_dead_letter_is_an_error_with_its_traceback(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError("no such row")

    give_up(hook, error)

    [record] = caplog.records
    assert (record.name, record.levelname) == ("gomq.consumer", "ERROR")
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert record.getMessage() == (
        f"Consumer audit gave up on a in attempt 5, message {MESSAGE.id} "
        "(1 like it): ValueError: no such row"
    )


def test_a_dead_letter_that_is_held_back_is_no_line_unless_somebody_asks(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gomq.consumer")

    for _ in range(3):
        give_up(hook, ValueError())

    assert len(caplog.records) == 1


def test_a_dead_letter_that_is_held_back_is_a_line_for_who_asks_for_each(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    for message in (MESSAGE, OTHER_MESSAGE):
        give_up(hook, ValueError(), message)

    record = caplog.records[1]
    assert (record.levelname, record.exc_info) == ("DEBUG", None)
    assert extras(record)["message_id"] == str(OTHER_MESSAGE.id)
    assert extras(record)["count"] == 1


def test_a_failed_part_of_the_bus_is_an_error_with_its_traceback(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.failed("dispatcher", ValueError("bug"))
    hook.failed("dispatcher", ValueError("bug"))

    [record] = caplog.records
    assert (record.name, record.levelname) == ("gomq.bus", "ERROR")
    assert record.exc_info
    assert extras(record)["part"] == "dispatcher"


def test_the_last_words_are_one_warning_with_counts_by_type(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.dropped("default", "audit", [MESSAGE] * 3, DropReason.SHUTDOWN)
    hook.stopped(
        "default", Remainder(dropped={"a": 3, "b": 4}, in_flight=1, seconds=10.04)
    )

    [record] = caplog.records
    assert (record.name, record.levelname) == ("gomq.bus", "WARNING")
    assert record.getMessage() == (
        "Broker default stopped in 10.0 s and "
        "left 7 undelivered (a: 3, b: 4), 1 in work"
    )
    assert extras(record)["left"] == {"a": 3, "b": 4}
    assert extras(record)["count"] == 7


@pytest.mark.parametrize(
    ("left", "text"),
    [
        ({"in_flight": 1}, "left 1 in work"),
        ({"dropped": {"a": 2}}, "left 2 undelivered (a: 2)"),
        ({"unsettled": 3}, "left 3 that the server was not told of"),
    ],
)
def test_the_last_words_speak_of_nothing_that_was_not_left(
    hook: LogHook, caplog: pytest.LogCaptureFixture, left: Any, text: str
) -> None:
    nothing: Any = {"dropped": {}, "in_flight": 0, "seconds": 1.0}

    hook.stopped("default", Remainder(**{**nothing, **left}))

    assert caplog.messages[0].endswith(f"stopped in 1.0 s and {text}")


def test_the_last_words_name_the_tasks_that_were_given_up(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = ["send", "later", "send"]
    hook.stopped(
        "default", Remainder(dropped={}, in_flight=0, seconds=1, background=tasks)
    )

    [record] = caplog.records
    assert record.getMessage().endswith(
        "and left 3 tasks that async handlers had started (send: 2, later: 1)"
    )
    assert extras(record)["tasks"] == {"send": 2, "later": 1}


def test_the_last_words_list_no_more_than_ten_names(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    dropped = {f"a.b{number}": 1 for number in range(500)}
    hook.stopped("default", Remainder(dropped=dropped, in_flight=0, seconds=1))

    text = caplog.records[0].getMessage()
    assert text.endswith("a.b9: 1, and 490 more)")
    assert "left 500 undelivered" in text


def test_a_clean_stop_warns_of_nothing(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.stopped("default", Remainder(dropped={}, in_flight=0, seconds=0.1))

    assert [record.levelname for record in caplog.records] == ["DEBUG"]


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            ValueError("a\nERROR forged \x1b[31m"),
            r"ValueError: a\nERROR forged \x1b[31m",
        ),
        (ValueError("größer"), "ValueError: größer"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 5000), f"ValueError: {'x' * 488}..."),
        (UnspeakableError(), "UnspeakableError: (its text cannot be read)"),
    ],
)
def test_the_text_of_an_error_is_one_short_line(
    error: Exception, told: str, hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.dead_lettered("default", "audit", MESSAGE, 1, error)

    assert extras(caplog.records[0])["error"] == told
    assert caplog.records[0].getMessage().endswith(told)


def test_a_name_that_is_no_event_type_breaks_no_line(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.refused("default", "a\nERROR forged", PublishError("no"))

    assert "\n" not in caplog.records[0].getMessage()


def test_lines_about_a_message_name_the_trace_it_was_emitted_in(
    hook: LogHook, caplog: pytest.LogCaptureFixture
) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    traced: Message[Any] = Message(
        type="a", headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    )

    hook.dead_lettered("default", "audit", traced, 1, ValueError())
    hook.dead_lettered("default", "audit", MESSAGE, 1, ValueError())

    assert [vars(one).get("trace_id") for one in caplog.records] == [trace_id, None]


def test_a_running_bus_tells_its_attempts_and_its_loss(
    make_broker: MakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(message: object) -> None:
        raise ValueError("no such row")

    broker = make_broker(hooks=[LogHook()])
    broker.consume("a", fail, name="audit", retry=AT_ONCE)
    broker.consume("b", do_nothing, name="paused", capacity=2)
    broker.pause("paused")
    publish(broker, "a")
    publish(broker, "b", 5)
    broker.close(timeout=WAIT_SECONDS)

    told = [
        (record.levelname, extras(record).get("kind", "stopped"))
        for record in caplog.records
    ]
    assert told.count(("WARNING", "retrying")) == 1
    assert told.count(("ERROR", "dead_lettered")) == 1
    assert ("WARNING", "dropped") in told
    assert told[-1] == ("WARNING", "stopped")
    assert extras(caplog.records[-1])["left"] == {"b": 2}


def test_the_payload_is_never_logged(
    make_broker: MakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(message: Any) -> None:
        raise ValueError

    def postpone(message: object) -> None:
        raise RetryLater(60.0)

    broker = make_broker(hooks=[LogHook()], capacity=2)
    broker.consume("a", fail, name="batch", batch=2, linger=60.0, retry=AT_ONCE)
    broker.consume("a", fail, name="fails", retry=AT_ONCE)
    broker.consume("a", postpone, name="postpones")
    broker.consume("a", do_nothing, name="drops", capacity=1)
    broker.pause("drops")
    secret = {"body": b'"S3CRET"', "key": "S3CRET", "headers": {"h": "S3CRET"}}
    publish(broker, "a", 2, **secret)

    def have_ended() -> bool:
        consumers = broker.stats().consumers
        failed = [consumers[name].dead_lettered for name in ("fails", "batch")]
        return [*failed, consumers["postpones"].scheduled] == [2, 2, 2]

    wait_until(have_ended)
    broker.close(timeout=0.2)

    assert len(caplog.records) >= 5
    for record in caplog.records:
        text = logging.Formatter().format(record)
        assert "S3CRET" not in f"{text} {vars(record)}"


@pytest.fixture
def _threads_change_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_threads_change_often")
def test_no_count_is_lost_between_threads() -> None:
    limiter = Limiter(seconds=0.0)
    subject = Subject("dropped", "default")
    told: list[int] = []
    start = Barrier(4)

    def count() -> None:
        start.wait()
        told.extend(limiter.admit(subject) for _ in range(10_000))

    threads = [Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(told) + sum(limiter.take_pending("default").values()) == 40_000


def told_of(limiter: Limiter, numbers: range, kind: str = "retrying") -> list[int]:
    """Have it hear of one error of each of so many classes."""
    subjects = (
        Subject(kind, "default", "a", "audit", f"Error{number}") for number in numbers
    )
    return [count for count in map(limiter.admit, subjects) if count]


def test_lines_about_one_consumer_are_bounded_whatever_its_errors_are(
    clock: Clock,
) -> None:
    limiter = Limiter(clock=clock)

    told = told_of(limiter, range(100))
    at_once = len(told), len(told_of(limiter, range(100)))
    clock.now += 10.0
    later = told_of(limiter, range(100, 200))

    assert at_once == (MAX_LINES + 1, 0)
    assert len(later) == MAX_LINES + 1
    pending = limiter.take_pending("default")
    assert sum(told) + sum(later) + sum(pending.values()) == 300


def test_known_subjects_share_the_lines_of_their_consumer(clock: Clock) -> None:
    limiter = Limiter(clock=clock)
    for step in range(5):
        told_of(limiter, range(10 * step, 10 * step + 10))
        clock.now += 10.0

    told = told_of(limiter, range(50))

    assert len(told) == MAX_LINES


def test_what_is_said_of_one_consumer_leaves_others_their_lines(clock: Clock) -> None:
    limiter = Limiter(clock=clock)
    told_of(limiter, range(100))

    assert limiter.admit(Subject("retrying", "default", "a", "other", "E")) == 1
    assert len(told_of(limiter, range(5), kind="dead_lettered")) == 5


def test_names_made_from_data_do_not_fill_the_memory(clock: Clock) -> None:
    limiter = Limiter(clock=clock)

    for number in range(2 * MAX_SUBJECTS):
        limiter.admit(Subject("refused", "default", f"made.from_{number}"))
        clock.now += 5.0

    assert len(limiter._silences) == MAX_SUBJECTS + 1


def test_the_stop_tells_what_was_held_back_in_few_lines(
    hook: LogHook, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(30):
        retry(hook, type(f"E{number}", (Exception,), {})())
        clock.now += 3.0
    for number in range(30):
        for _ in range(1 + number % 3):
            retry(hook, type(f"E{number}", (Exception,), {})())
    caplog.clear()

    hook.stopped("default", Remainder(dropped={}, in_flight=0, seconds=0.1))

    lines = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == MAX_LINES + 1
    assert (
        lines[-1].getMessage().endswith("_other, event _other, consumer _other, _other")
    )
