"""Slices of work: what a thread takes, handles and settles, counted one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.bus.backend import Capabilities
from django_gomq.bus.broker import Broker
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.counts import ConsumerCounts, HistogramState
from django_gomq.bus.delivery import Chunk, Delivery, Reject, RetryLater, Verdict
from django_gomq.bus.hooks import Hook, Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.bus.worker.environment import Environment
from django_gomq.bus.worker.processor import Processor
from django_gomq.bus.worker.runner import ConsumerRunner
from django_gomq.bus.worker.settler import Settler
from tests.bus.observing import Watcher
from tests.bus.waiting import wait_until, wait_until_settled

# Powers of two, so that times add up exactly, and values lie exactly on bounds.
BUCKETS = (2**-10, 2**-6, 2**-2)
NOW = 4096.0
SOON = Retry(attempts=3, min_delay=0, max_delay=0.001)


class Clock:
    """What time it is for the bus; it goes on when a handler says so."""

    def __init__(self) -> None:
        self.now = NOW

    def monotonic(self) -> float:
        return self.now


@contextmanager
def clocked() -> Iterator[Clock]:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        for module in ("worker.runner", "worker.processor", "message"):
            patch.setattr(f"django_gomq.bus.{module}.Clock", clock)
        yield clock


def serve(
    handler: Callable[[Any], object],
    types: Sequence[str] = ("a.b",),
    hooks: Sequence[Hook] = (),
    **options: Any,
) -> ConsumerRunner:
    """Return a runner of a consumer of whose deliveries nobody has to be told."""
    consumer = make_consumer(list(types), handler, name="c", options=options)
    told = Hooks(hooks)
    counts = ConsumerCounts(BUCKETS, BUCKETS)
    subscription = Subscription("default", consumer, hooks=told, counts=counts)
    processor = Processor(
        consumer,
        broker="default",
        backend="memory",
        hooks=told,
        environment=Environment(),
    )
    settler = Settler(subscription, Capabilities(), keep=lambda _: None)
    return ConsumerRunner(subscription, settler, processor, threads=8)


def work_off(runner: ConsumerRunner) -> int:
    """Serve slice after slice until nothing waits; return how many those were."""
    slices = 0
    while batch := runner.subscription.take(runner.share()):
        runner.serve(batch)
        slices += 1
    return slices


def naive(values: Sequence[float]) -> tuple[int, ...]:
    counts = Counter(
        next((index for index, bound in enumerate(BUCKETS) if value <= bound), 3)
        for value in values
    )
    return tuple(counts[index] for index in range(4))


def agrees(state: HistogramState, values: Sequence[float]) -> None:
    assert state.within(BUCKETS).counts == naive(values)
    assert state.sum_seconds == pytest.approx(sum(max(0.0, one) for one in values))


# Seconds, many of them on a bound, or just beside it.
SPENT = st.sampled_from([0.0, 2**-12, 2**-10, 2**-9, 2**-6, 2**-5, 2**-2, 2.0])
SINCE = st.sampled_from([-1.0, 0.0, 2**-11, 2**-10, 2**-9, 2**-6, 2**-2, 9.0])
DOINGS = st.sampled_from(["ok", "ok", "ok", "ok", "fail", "reject", "later", "exit"])
MESSAGES = st.lists(
    st.tuples(DOINGS, SPENT, SINCE, st.booleans(), st.integers(0, 2)),
    min_size=1,
    max_size=30,
)
ENDS: dict[str, Verdict | None] = {
    "ok": Verdict.SUCCESS,
    "fail": Verdict.ERROR,
    "exit": Verdict.ERROR,
    "reject": Verdict.REJECTED,
    "later": None,
}


class Books:
    """What the handler saw, to compare with what the bus counts."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.began: list[tuple[str, float]] = []
        """The type and the moment of each attempt."""
        self.spent: list[float] = []
        self.handled: list[str] = []

    def handle(self, message: Message[Any]) -> None:
        doing, spent = message.data
        self.began.append((message.type, self.clock.now))
        self.spent.append(spent)
        self.handled.append(message.id)
        self.clock.now += spent
        match doing:
            case "fail":
                raise ValueError
            case "exit":
                raise SystemExit
            case "reject":
                raise Reject("no")
            case "later":
                raise RetryLater(60)


@given(
    MESSAGES,
    st.lists(st.integers(1, 9), min_size=1, max_size=9),
    st.sampled_from([("a.b",), ("a.*",), ("a.b", "a.c")]),
    st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_slices_count_as_one_by_one(  # noqa: PLR0915 - one registry
    plan: list[tuple[str, float, float, bool, int]],
    sizes: list[int],
    types: tuple[str, ...],
    is_watched: bool,
) -> None:
    with clocked() as clock:
        books = Books(clock)
        hooks: list[Hook] = [Watcher()] if is_watched else []
        runner = serve(books.handle, types, hooks, capacity=100)
        subscription = runner.subscription
        expected: Counter[tuple[str, Verdict]] = Counter()
        waiting: list[float] = []
        items: list[Any] = []
        for doing, spent, since, is_message, again in plan:
            body = b'["%s", %r]' % (doing.encode(), spent)
            event = "a.c" if "a.b" not in types[:1] and again else "a.b"
            available = NOW - since
            message = Message[Any](event, body, made_here=available)
            one: Any = message if is_message else Delivery(message, available)
            for _ in range(1 + again):  # the same one may be published twice
                items.append(one)
                waiting.append(available)
                verdict = ENDS[doing]
                if verdict is not None:
                    expected[event, verdict] += 1
        # In runs of one type, as the dispatcher makes them.
        start, step = 0, 0
        while start < len(items):
            size = sizes[step % len(sizes)]
            run = items[start : start + size]
            same = [one for one in run if one.message.type == run[0].message.type]
            run = run[: len(same)] if run[: len(same)] == same else run[:1]
            subscription.offer(Chunk(run))
            start, step = start + len(run), step + 1

        work_off(runner)

    counts, stats = subscription.counts, subscription.stats()
    assert books.handled == [one.message.id for one in items]
    assert counts.processed == expected
    assert (counts.succeeded, stats.dead_lettered) == (
        sum(n for (_, verdict), n in expected.items() if verdict is Verdict.SUCCESS),
        sum(
            n for (_, verdict), n in expected.items() if verdict is not Verdict.SUCCESS
        ),
    )
    later = len(items) - sum(expected.values())
    assert (stats.retries, stats.scheduled) == (later, later)
    assert sum(counts.dispatched.values()) == len(items)
    agrees(stats.duration, books.spent)
    waits = [
        moment - since for (_, moment), since in zip(books.began, waiting, strict=True)
    ]
    agrees(stats.wait, waits)
    assert (subscription.channel.held, stats.in_flight, stats.depth) == (later, 0, 0)
    assert (stats.unaccounted, subscription.unstarted) == (0, {})


@pytest.mark.parametrize("fails", [{0}, {1}, {0, 2}, {0, 1, 2}, {1, 2, 3}])
def test_a_message_that_was_published_twice_is_two_deliveries(fails: set[int]) -> None:
    calls: list[int] = []

    def handle(message: Message[Any]) -> None:
        calls.append(1)
        if len(calls) - 1 in fails:
            raise ValueError

    runner = serve(handle)
    message: Any = Message("a.b")
    runner.subscription.offer(Chunk([message] * 4))

    work_off(runner)

    stats = runner.subscription.stats()
    assert (stats.succeeded, stats.dead_lettered) == (4 - len(fails), len(fails))
    assert (stats.unaccounted, stats.depth) == (0, 0)
    assert runner.subscription.channel.held == 0


def test_a_message_that_was_published_twice_and_fails_once_is_settled_twice(
    broker: Broker,
) -> None:
    calls: list[int] = []

    def handle(message: Message[Any]) -> None:
        calls.append(1)
        if len(calls) % 2:
            raise ValueError

    broker.consume("a.b", handle, name="c")
    broker.pause("c")
    broker._current_runtime().subscription(
        "c"
    ).mean_seconds = 1e-9  # a slice takes all of them
    message: Message[Any] = Message("a.b")
    for _ in range(6):
        broker.publish(message)
    wait_until(lambda: broker.stats().consumers["c"].depth == 6)

    broker.resume("c")
    wait_until_settled(broker)

    stats = broker.stats().consumers["c"]
    assert (stats.succeeded, stats.dead_lettered) == (3, 3)


# ------------------------------------------------------------- what is taken and left


def deliveries(count: int) -> Chunk:
    return Chunk(
        Delivery(Message("a.b", b"%d" % number), 0.0) for number in range(count)
    )


@pytest.mark.parametrize("hooks", [[], [Watcher()]], ids=["plain", "watched"])
def test_what_is_not_started_in_time_is_the_next_of_another_slice(
    hooks: list[Hook],
) -> None:
    handled: list[int] = []
    with clocked() as clock:

        def handle(message: Message[Any]) -> None:
            handled.append(message.data)
            clock.now += 1

        runner = serve(handle, hooks=hooks)
        runner.subscription.mean_seconds = 1e-9
        runner.subscription.offer(deliveries(5))

        runner.serve(runner.subscription.take(5))
        once = list(handled)
        slices = work_off(runner)

    assert once == [0]
    assert (handled, slices) == ([0, 1, 2, 3, 4], 4)
    assert runner.subscription.channel.held == 0


def test_a_thread_handles_what_it_took_while_another_one_takes_the_rest() -> None:
    handled: list[int] = []
    stolen: list[Delivery] = []

    def handle(message: Message[Any]) -> None:
        handled.append(message.data)
        if message.data == 1:
            stolen.extend(runner.subscription.take_all())

    runner = serve(handle)
    runner.subscription.offer(deliveries(5))

    with clocked():
        runner.serve(runner.subscription.take(5))

    assert handled == [0, 1]
    assert [one.message.data for one in stolen] == [2, 3, 4]
    stats = runner.subscription.stats()
    assert (stats.succeeded, stats.in_flight) == (2, 0)
    assert runner.subscription.channel.held == 3  # in the hands of who took them


def test_a_slice_of_which_a_stop_took_all_settles_nothing() -> None:
    runner = serve(print)
    runner.subscription.offer(deliveries(2))

    class Emptied(list[Delivery]):
        def __iter__(self) -> Iterator[Delivery]:
            return iter(())

    runner.serve(Emptied(runner.subscription.take(2)))

    stats = runner.subscription.stats()
    assert (stats.succeeded, stats.in_flight, runner.subscription.mean_seconds) == (
        0,
        0,
        0,
    )
    assert sum(stats.duration.counts) == 0


@pytest.mark.parametrize("hooks", [[], [Watcher()]], ids=["plain", "watched"])
def test_a_delivery_in_work_is_in_flight_and_the_rest_of_its_slice_waits(
    hooks: list[Hook],
) -> None:
    seen: list[tuple[int, int]] = []

    def handle(message: Message[Any]) -> None:
        stats = runner.subscription.stats()
        seen.append((stats.in_flight, stats.depth))

    runner = serve(handle, hooks=hooks)
    runner.subscription.offer(deliveries(3))

    with clocked():  # else a busy machine may part the slice
        runner.serve(runner.subscription.take(3))

    assert [in_flight for in_flight, _ in seen] == [1, 1, 1]
    assert seen[0] == (1, 2)
    assert runner.subscription.stats().in_flight == 0


def test_a_batch_is_in_flight_as_a_whole() -> None:
    seen: list[int] = []
    runner = serve(
        lambda batch: seen.append(runner.subscription.stats().in_flight), batch=3
    )
    runner.subscription.offer(deliveries(3))

    runner.serve(runner.subscription.take(runner.share()))

    assert seen == [3]
    assert runner.subscription.stats().in_flight == 0


# ------------------------------------------------------------------- bugs elsewhere


@pytest.mark.parametrize("hooks", [[], [Watcher()]], ids=["plain", "watched"])
@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_an_outcome_that_cannot_be_decided_loses_no_delivery(
    monkeypatch: pytest.MonkeyPatch, hooks: list[Hook], error: type[BaseException]
) -> None:
    decide, decided = Processor.decide, list[int]()

    def fail_once(*arguments: Any) -> Any:
        decided.append(1)
        if len(decided) == 1:
            raise error("injected")
        return decide(*arguments)

    def handle(message: Message[Any]) -> None:
        if message.data == 1:
            raise ValueError

    monkeypatch.setattr(Processor, "decide", fail_once)
    runner = serve(handle, hooks=hooks, retry=SOON)
    runner.subscription.offer(deliveries(3))

    while runner.subscription.has_work:
        serve_safely(runner)

    stats = runner.subscription.stats()
    assert (stats.succeeded, stats.retries + stats.dead_lettered) == (2, 1)
    assert (stats.in_flight, stats.depth, stats.unaccounted) == (0, 0, 0)


def serve_safely(runner: ConsumerRunner) -> None:
    """Serve what waits, as a thread of the worker does that outlives any bug."""
    batch = runner.subscription.take(3)
    try:
        if batch:
            runner.serve(batch)
    except (RuntimeError, SystemExit):
        pass  # the worker reports it, and goes on


@pytest.mark.parametrize("error", [OSError, SystemExit])
def test_a_host_that_fails_after_a_handler_loses_nothing(
    error: type[BaseException],
) -> None:
    class ThreadScope:
        is_needed = True

        def before(self) -> None: ...

        def after(self) -> None:
            raise error("injected")

    runner = serve(lambda _: None)
    runner.processor._environment.thread_scope = ThreadScope  # type: ignore[method-assign,assignment]
    runner.subscription.offer(deliveries(3))

    while runner.subscription.has_work:
        serve_safely(runner)

    stats = runner.subscription.stats()
    assert stats.succeeded + stats.dead_lettered == 3
    assert (stats.in_flight, stats.depth, stats.unaccounted) == (0, 0, 0)
