"""From deliveries to outcomes: each in a context, with a message, of its own."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.delivery import (
    ACK,
    DeadLettered,
    Delivery,
    Outcome,
    Reject,
    RetryAfter,
    RetryLater,
    Verdict,
)
from django_gomq.bus.errors import DecodeError
from django_gomq.bus.event import Event
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.bus.worker import processor as module
from django_gomq.bus.worker.causes import InWork
from django_gomq.bus.worker.environment import Environment, ThreadScope
from django_gomq.bus.worker.processor import Processor, SliceResult
from tests.bus.observing import Recorder, Watcher

NEVER = float("inf")
RETRY = Retry(attempts=3, min_delay=1, factor=1, jitter=False)
variable = contextvars.ContextVar("variable", default="fresh")


class Saved(Event, type="processor.saved"):
    number: int


def make(
    handler: Callable[[Any], Any],
    environment: Environment | None = None,
    hook: Recorder | None = None,
    types: Sequence[Any] = ("a.b",),
    **options: Any,
) -> Processor:
    consumer = make_consumer(list(types), handler, name="c", options=options)
    return Processor(
        consumer,
        broker="default",
        backend="memory",
        hooks=Hooks([hook] if hook else []),
        environment=environment or Environment(),
    )


def deliveries(*bodies: bytes, attempt: int = 1) -> list[Delivery]:
    return [Delivery(Message("a.b", body), 0.0, attempt) for body in bodies]


def three() -> list[Delivery]:
    return deliveries(b"0", b"1", b"2")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The moment that it is, for the processor."""
    now = [100.0]

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    with monkeypatch.context() as patch:
        patch.setattr(module, "Clock", Clock)
        yield now


# ----------------------------------------------------------------- one after the other


def test_deliveries_are_handled_in_their_order() -> None:
    handled: list[Any] = []
    hand = iter(three())

    passage = make(lambda m: handled.append(m.data)).process_many(hand, NEVER)

    assert handled == [0, 1, 2]
    assert (len(passage.times), passage.ended, passage.exemplars) == (4, [], [])


def test_an_empty_hand_has_a_beginning_and_no_end() -> None:
    passage = make(print).process_many(iter([]), NEVER)

    assert (len(passage.times), passage.ended) == (1, [])


def test_times_are_the_beginning_and_the_end_of_each_attempt(
    clock: list[float],
) -> None:
    def handle(message: Message[Any]) -> None:
        clock[0] += message.data
        if message.data == 2:
            raise ValueError

    passage = make(handle).process_many(iter(deliveries(b"1", b"2", b"4")), NEVER)

    assert passage.times == [100, 101, 103, 107]


def test_it_stops_after_the_first_that_ends_late_and_leaves_the_rest(
    clock: list[float],
) -> None:
    def handle(message: Message[Any]) -> None:
        clock[0] += 1

    hand = iter(deliveries(b"0", b"1", b"2", b"3"))

    passage = make(handle).process_many(hand, until=101.5)

    assert passage.times == [100, 101, 102]
    assert [one.message.data for one in hand] == [2, 3]


def test_one_is_handled_however_late_it_is(clock: list[float]) -> None:
    hand = iter(three())

    passage = make(lambda _: None).process_many(hand, until=0)

    assert len(passage.times) == 2
    assert len(list(hand)) == 2


def test_a_handler_gets_a_message_at_its_attempt() -> None:
    seen: list[tuple[int, bool]] = []
    processor = make(lambda m: seen.append((m.attempt, isinstance(m, Message))))

    processor.process_many(iter(deliveries(b"1", attempt=3)), NEVER)

    assert seen == [(3, True)]


def test_data_is_typed_where_the_consumer_names_the_event() -> None:
    seen: list[Any] = []
    processor = make(lambda m: seen.append(m.data), types=[Saved, "a.*"])
    typed = Delivery(Message("processor.saved", b'{"number": 7}'), 0.0)

    processor.process_many(iter([typed, *deliveries(b"1")]), NEVER)

    assert seen == [Saved(number=7), 1]


def test_what_another_thread_takes_meanwhile_is_not_handled() -> None:
    handled: list[Any] = []
    hand = iter(three())

    def handle(message: Message[Any]) -> None:
        handled.append(message.data)
        list(hand)  # as a stop does

    passage = make(handle).process_many(hand, NEVER)

    assert handled == [0]
    assert len(passage.times) == 2


# ---------------------------------------------------------------------------- failures


def outcomes(passage: SliceResult) -> list[Outcome]:
    return [outcome for _, outcome in passage.ended]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_handler_that_raises_fails_alone(error: type[BaseException]) -> None:
    def handle(message: Message[Any]) -> None:
        if message.data == 1:
            raise error

    batch = three()

    passage = make(handle).process_many(iter(batch), NEVER)

    ((delivery, outcome),) = passage.ended
    assert delivery is batch[1]
    assert isinstance(outcome, DeadLettered)
    assert isinstance(outcome.error, error)
    assert len(passage.times) == 4


def test_failures_keep_their_order_and_are_decided_each_by_itself() -> None:
    errors = [ValueError("again"), Reject("never"), RetryLater(7), None]

    def handle(message: Message[Any]) -> None:
        error = errors[message.data]
        if error is not None:
            raise error

    processor = make(handle, retry=RETRY)

    passage = processor.process_many(iter(deliveries(b"0", b"1", b"2", b"3")), NEVER)

    assert [one.message.data for one, _ in passage.ended] == [0, 1, 2]
    assert outcomes(passage) == [
        RetryAfter(1, errors[0]),
        DeadLettered(errors[1], Verdict.REJECTED),  # type: ignore[arg-type]
        RetryAfter(7, None, times=1),
    ]


def test_the_last_attempt_of_a_retry_is_a_dead_letter() -> None:
    def fail(message: Message[Any]) -> None:
        raise ValueError

    hand = iter(deliveries(b"1", attempt=3))

    (outcome,) = outcomes(make(fail, retry=RETRY).process_many(hand, NEVER))

    assert isinstance(outcome, DeadLettered)


def test_a_body_that_cannot_be_decoded_is_rejected_where_it_is_looked_at() -> None:
    processor = make(lambda message: message.data, retry=RETRY)

    (first,) = outcomes(processor.process_many(iter(deliveries(b"{")), NEVER))

    assert isinstance(first, DeadLettered)
    assert isinstance(first.error, DecodeError)
    assert first.verdict is Verdict.REJECTED


def test_what_a_handler_returns_is_no_matter() -> None:
    passage = make(lambda _: [1]).process_many(iter(three()), NEVER)

    assert passage.ended == []


def test_a_coroutine_that_a_sync_handler_returns_is_closed_and_fails() -> None:
    made: list[Any] = []

    async def work() -> None: ...

    def handle(message: Message[Any]) -> Any:
        made.append(work())
        return made[-1]

    passage = make(handle).process_many(iter(three()), NEVER)

    assert len(passage.ended) == 3
    for outcome in outcomes(passage):
        assert isinstance(outcome, DeadLettered)
        assert "make it 'async def'" in str(outcome.error)
    assert {inspect.getcoroutinestate(one) for one in made} == {inspect.CORO_CLOSED}


# ---------------------------------------------------------------------------- contexts


def leave_a_value(message: Message[Any]) -> None:
    variable.set("used")


def leave_a_value_and_fail(message: Message[Any]) -> None:
    variable.set("used")
    raise ValueError


def leave_a_value_and_exit(message: Message[Any]) -> None:
    variable.set("used")
    raise SystemExit


def leave_a_value_and_a_coroutine(message: Message[Any]) -> Any:
    variable.set("used")
    return asyncio.sleep(0)


def take_a_value_back(message: Message[Any]) -> None:
    variable.reset(variable.set("used"))


def leave_two_values(message: Message[Any]) -> None:
    variable.set("used")
    contextvars.ContextVar[int](f"other{message.number}").set(1)


def run_a_loop(message: Message[Any]) -> None:
    async def work() -> None:
        variable.set("used in a task")
        await asyncio.sleep(0)

    variable.set("used")
    asyncio.run(work())


def touch_nothing(message: Message[Any]) -> None: ...


HABITS = [
    touch_nothing,
    leave_a_value,
    leave_a_value_and_fail,
    leave_a_value_and_exit,
    leave_a_value_and_a_coroutine,
    take_a_value_back,
    leave_two_values,
]


@given(st.lists(st.sampled_from([*HABITS, run_a_loop]), max_size=12), st.booleans())
@settings(deadline=None, max_examples=60)
def test_each_handler_begins_in_a_fresh_context_whatever_the_one_before_did(
    habits: list[Callable[[Message[Any]], Any]],
    watched: bool,
) -> None:
    seen: list[tuple[str, int]] = []
    left = iter(habits)

    def handle(message: Message[Any]) -> Any:
        seen.append((variable.get(), len(contextvars.copy_context())))
        return next(left)(message)

    batch = deliveries(*[b"1"] * len(habits))
    variable.set("the caller's")
    processor = make(handle, hook=Watcher() if watched else None)

    if watched:  # the general way, which has to agree
        for one in batch:
            processor.process(one)
    else:
        processor.process_many(iter(batch), NEVER)

    assert seen == [("fresh", len(InWork().new_context()))] * len(habits)
    assert variable.get() == "the caller's"


def test_a_context_that_a_handler_kept_is_not_used_again() -> None:
    kept: list[contextvars.Context] = []

    def keep(message: Message[Any]) -> None:
        variable.set(f"of {message.data}")
        kept.append(contextvars.copy_context())

    make(keep).process_many(iter(three()), NEVER)

    assert [one[variable] for one in kept] == ["of 0", "of 1", "of 2"]


def test_a_handler_may_process_deliveries_of_another_consumer() -> None:
    seen: list[tuple[str, str]] = []

    def inner(message: Message[Any]) -> None:
        seen.append(("inner", variable.get()))
        variable.set("inner's")

    def outer(message: Message[Any]) -> None:
        variable.set("outer's")
        make(inner).process_many(iter(three()[:2]), NEVER)
        seen.append(("outer", variable.get()))

    passage = make(outer).process_many(iter(three()[:2]), NEVER)

    assert passage.ended == []
    assert seen == [("inner", "fresh"), ("inner", "fresh"), ("outer", "outer's")] * 2


# ------------------------------------------------------------------ one way or another

BODIES = st.lists(
    st.sampled_from([b"1", b'"fail"', b'"reject"', b'"later"', b'"exit"', b"{"]),
    max_size=12,
)


def behave(message: Message[Any]) -> None:
    variable.set("used")
    match message.data:
        case "fail":
            raise ValueError
        case "reject":
            raise Reject("no")
        case "later":
            raise RetryLater(3)
        case "exit":
            raise SystemExit


def text_of(outcome: Outcome) -> str:
    return repr(outcome)


@given(BODIES, st.integers(1, 3))
@settings(deadline=None)
def test_all_at_once_decides_as_one_by_one(bodies: list[bytes], attempt: int) -> None:
    batch = deliveries(*bodies, attempt=attempt)
    processor = make(behave, retry=RETRY)

    passage = processor.process_many(iter(batch), NEVER)

    singly = [(one, processor.process(one)[0]) for one in batch]
    failed = [(one, text_of(how)) for one, how in singly if how is not ACK]
    assert [(one, text_of(how)) for one, how in passage.ended] == failed
    assert passage.times == sorted(passage.times)
    assert len(passage.times) == len(batch) + 1


@pytest.mark.parametrize(
    ("hook", "options", "is_plain"),
    [
        (None, {}, True),
        (Recorder(), {"retry": RETRY}, True),
        (Watcher(), {}, False),
        (None, {"max_age": 9}, False),
    ],
)
def test_only_who_needs_no_more_than_the_handler_is_plain(
    hook: Recorder | None, options: dict[str, Any], is_plain: bool
) -> None:
    assert make(print, hook=hook, **options).is_plain is is_plain


# --------------------------------------------------------------------- lent contexts


class Lender(Watcher):
    """Lends a context for odd numbers, and watches the others."""

    has_unsampled_path = True
    trace_id: str | None = "kept"

    def enter_unsampled(
        self, message: Message[Any], context: contextvars.Context
    ) -> bool:
        if message.data % 2 == 0:
            return False
        context.run(variable.set, f"lent to {message.data}")
        return True


def numbers(count: int) -> list[Delivery]:
    return deliveries(*(b"%d" % number for number in range(count)))


def test_a_handler_runs_unwatched_in_the_context_that_it_was_lent() -> None:
    hook, seen = Lender(), list[str]()

    def handle(message: Message[Any]) -> None:
        seen.append(variable.get())
        leave_a_value(message)

    make(handle, hook=hook).process_many(iter(deliveries(b"1", b"3")), NEVER)

    assert seen == ["lent to 1", "lent to 3"]
    assert hook.named("attempting") == []


def test_a_handler_that_is_lent_no_context_is_watched_in_a_fresh_one() -> None:
    hook, seen = Lender(), list[tuple[int, str]]()

    def handle(message: Message[Any]) -> None:
        seen.append((message.data, variable.get()))
        leave_a_value(message)

    passage = make(handle, hook=hook).process_many(iter(numbers(4)), NEVER)

    lent = {0: "fresh", 1: "lent to 1", 2: "fresh", 3: "lent to 3"}
    assert seen == list(lent.items())
    assert [one.messages[0].data for one in hook.named("attempting")] == [0, 2]
    assert hook.named("end") == [[ACK], [ACK]]
    assert [trace_id for _, trace_id in passage.exemplars] == ["kept"] * 2
    assert (len(passage.times), passage.ended) == (5, [])


def test_a_watch_without_a_trace_has_none_to_show() -> None:
    hook = Lender()
    hook.trace_id = None

    passage = make(lambda _: None, hook=hook).process_many(iter(numbers(2)), NEVER)

    assert passage.exemplars == []


def test_failures_count_once_whether_they_are_watched_or_not() -> None:
    def fail(message: Message[Any]) -> None:
        raise Reject(str(message.data))

    hook, batch = Lender(), numbers(4)

    passage = make(fail, hook=hook).process_many(iter(batch), NEVER)

    assert [one for one, _ in passage.ended] == batch
    assert [str(how.error) for how in outcomes(passage)] == list("0123")  # type: ignore[union-attr]
    assert len(hook.named("end")) == 2


def test_who_lends_contexts_goes_the_plain_way() -> None:
    assert make(print, hook=Lender()).is_plain
    assert not make(print, hook=Lender(), max_age=9).is_plain


def test_a_lender_that_raises_fails_no_attempt() -> None:
    class Broken(Watcher):
        has_unsampled_path = True

        def enter_unsampled(
            self, message: Message[Any], context: contextvars.Context
        ) -> bool:
            raise LookupError

    handled: list[Any] = []
    processor = make(lambda m: handled.append(m.data), hook=Broken())

    passage = processor.process_many(iter(numbers(2)), NEVER)

    assert handled == [0, 1]
    assert passage.ended == []


# -------------------------------------------------------------------------------- scope


class Caring(Environment, ThreadScope):
    """Notes what it does, and fails where it is told to."""

    def __init__(self, fails_in: str = "", error: BaseException | None = None) -> None:
        self.is_needed = True
        self.log: list[str] = []
        self._fails_in = fails_in
        self._error = error or OSError(fails_in)

    def thread_scope(self) -> ThreadScope:
        return self

    def before(self) -> None:
        self._act("before")

    def after(self) -> None:
        self._act("after")

    def _act(self, name: str) -> None:
        self.log.append(name)
        if name == self._fails_in:
            raise self._error


Way = Callable[[Processor, list[Delivery]], list[tuple[Delivery, Outcome]]]


def together(
    processor: Processor, batch: list[Delivery]
) -> list[tuple[Delivery, Outcome]]:
    return processor.process_many(iter(batch), NEVER).ended


def singly(
    processor: Processor, batch: list[Delivery]
) -> list[tuple[Delivery, Outcome]]:
    found = [(one, processor.process(one)[0]) for one in batch]
    return [pair for pair in found if pair[1] is not ACK]


ways = pytest.mark.parametrize("way", [together, singly])


@ways
def test_a_host_cares_around_each_handler(way: Way) -> None:
    environment = Caring()

    way(make(lambda _: environment.log.append("handle"), environment), three()[:2])

    assert environment.log == ["before", "handle", "after"] * 2


@ways
def test_a_host_cares_after_a_handler_that_raises(way: Way) -> None:
    environment = Caring()

    def fail(message: Message[Any]) -> None:
        environment.log.append("handle")
        raise ValueError

    assert len(way(make(fail, environment), three()[:2])) == 2
    assert environment.log == ["before", "handle", "after"] * 2


@ways
def test_a_host_with_nothing_due_is_left_alone(way: Way) -> None:
    environment = Caring("before")
    environment.is_needed = False

    assert way(make(lambda _: None, environment), three()) == []
    assert environment.log == []


@ways
def test_care_that_becomes_due_within_a_handler_is_taken_after_it(way: Way) -> None:
    environment = Caring()
    environment.is_needed = False

    def connect(message: Message[Any]) -> None:
        environment.log.append("handle")
        environment.is_needed = True

    way(make(connect, environment), three()[:2])

    assert environment.log == ["handle", "after", "before", "handle", "after"]


@ways
def test_a_host_that_fails_after_a_handler_changes_no_outcome(way: Way) -> None:
    environment, recorder = Caring("after"), Recorder()

    ended = way(make(lambda _: None, environment, recorder), three())

    assert ended == []
    assert [part for part, _ in recorder.named("failed")] == ["environment"] * 3


def test_a_host_that_fails_before_a_handler_fails_the_attempt() -> None:
    environment, handled = Caring("before"), list[int]()

    passage = make(handled.append, environment).process_many(iter(three()), NEVER)

    assert handled == []
    assert environment.log == ["before", "after"] * 3
    assert [type(how.error) for how in outcomes(passage)] == [OSError] * 3  # type: ignore[union-attr]


@ways
def test_the_host_is_outside_the_context_of_the_handler(way: Way) -> None:
    seen: list[str] = []

    class Looking(Caring):
        def after(self) -> None:
            seen.append(variable.get())

    token = variable.set("the thread's")
    try:
        way(make(leave_a_value, Looking()), three())
    finally:
        variable.reset(token)

    assert seen == ["the thread's"] * 3
