from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

import pytest

from django_gomq.bus.consumer import Consumer
from django_gomq.bus.delivery import ACK, Outcome
from django_gomq.bus.errors import PublishError, PublishUnknownError, QueueFullError
from django_gomq.bus.hooks import PROPAGATED, Attempt, Hook, Hooks, Watch
from django_gomq.bus.message import Message
from django_gomq.bus.stats import Remainder
from tests.bus.conftest import MakeBroker
from tests.bus.observing import MESSAGE, hand_over
from tests.bus.waiting import wait_until

ATTEMPT = Attempt(
    broker="default",
    backend="memory",
    consumer=Consumer(name="c", types=("a.b",), handler=print),
    messages=[MESSAGE],
    number=1,
    wait_seconds=0.0,
)


class Quiet(Hook):
    """Asks for nothing."""


class Seeing(Hook):
    """Notes what it sees of publishing and of attempts."""

    watches_publishing = True
    watches_attempts = True

    def __init__(self, name: str = "one", log: list[Any] | None = None) -> None:
        self.name = name
        self.log: list[Any] = [] if log is None else log

    def capture_context(self) -> object:
        return f"context of {self.name}"

    def publishing(
        self, broker: str, backend: str, message: Message[Any], parent: object
    ) -> Callable[[Exception | None], None]:
        self.log.append((self.name, broker, backend, message, parent))
        return lambda error: self.log.append((self.name, error))

    def attempting(self, attempt: Attempt) -> Watch:
        return Looking(self)

    def unconsumed(self, broker: str, event: str) -> None:
        self.log.append((self.name, event))


class Looking(Watch):
    def __init__(self, hook: Seeing) -> None:
        self.hook = hook

    def begin(self) -> None:
        self.hook.log.append((self.hook.name, "begin"))

    def end(self, outcomes: Sequence[Outcome]) -> None:
        self.hook.log.append((self.hook.name, list(outcomes)))


class Bored(Seeing):
    """Sees nothing that it would follow."""

    def publishing(self, *_: object) -> None:  # type: ignore[override]
        return None

    def attempting(self, attempt: Attempt) -> None:  # type: ignore[override]
        return None


class Failing(Seeing):
    def _fail(self, *_: object) -> Any:
        raise LookupError

    capture_context = _fail
    publishing = _fail  # type: ignore[assignment]
    attempting = _fail  # type: ignore[assignment]
    unconsumed = _fail  # type: ignore[assignment]


class FailingLater(Seeing):
    def publishing(self, *_: object) -> Callable[[Exception | None], None]:
        return Failing()._fail

    def attempting(self, attempt: Attempt) -> Watch:
        return FailingWatch()


class FailingWatch(Watch):
    def end(self, outcomes: Sequence[Outcome]) -> None:
        raise LookupError


def tell(hooks: Hooks) -> None:
    hooks.notify(lambda hook: hook.unconsumed("default", "a.b"))


def test_every_hook_is_told_in_turn() -> None:
    log: list[Any] = []

    tell(Hooks([Seeing("one", log), Quiet(), Seeing("two", log)]))

    assert log == [("one", "a.b"), ("two", "a.b")]


def test_a_hook_that_raises_keeps_no_other_from_hearing() -> None:
    after = Seeing()

    tell(Hooks([Failing(), after]))

    assert after.log == [("one", "a.b")]


def test_the_errors_of_every_hook_are_counted_from_zero() -> None:
    hooks = Hooks([Quiet(), Failing(), Seeing(), Seeing()])
    before = dict(hooks.errors)

    tell(hooks)
    tell(hooks)

    assert before == {"Quiet": 0, "Failing": 0, "Seeing": 0}
    assert hooks.errors == {"Quiet": 0, "Failing": 2, "Seeing": 0}


def test_a_hook_that_raises_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks([Failing()])

    with caplog.at_level(logging.ERROR, logger="gomq.hooks"):
        tell(hooks)
        tell(hooks)

    (record,) = [each for each in caplog.records if each.name == "gomq.hooks"]
    assert record.exc_info is not None
    assert record.exc_info[0] is LookupError
    assert vars(record)["gomq_hook"] == "Failing"


def test_only_hooks_that_ask_watch_publishing_and_attempts() -> None:
    seeing = Seeing()

    hooks = Hooks([Quiet(), seeing])

    assert (hooks.publish_watchers, hooks.attempt_watchers) == ((seeing,), (seeing,))


def test_what_a_watcher_needs_of_the_emit_is_kept_for_each() -> None:
    hooks = Hooks([Seeing("one"), Failing(), Quiet(), Seeing("two")])

    captured = hooks.capture_contexts()

    assert captured == ("context of one", None, "context of two")


def test_a_watcher_sees_the_message_before_it_is_handed_over() -> None:
    hook, seen = Seeing(), list[Any]()

    hand_over(Hooks([hook]), then=lambda: seen.extend(hook.log))

    assert seen == [("one", "default", "memory", MESSAGE, None)]


def test_each_watcher_gets_its_own_context_of_the_emit() -> None:
    one, two = Seeing(), Seeing()

    hand_over(Hooks([one, two]), parents=("a", "b"))

    assert (one.log[0][-1], two.log[0][-1]) == ("a", "b")


def test_watchers_see_the_end_of_a_hand_over_in_reverse() -> None:
    log: list[Any] = []

    hand_over(Hooks([Seeing("one", log), Bored("two", log), Seeing("three", log)]))

    assert log[-2:] == [("three", None), ("one", None)]


@pytest.mark.parametrize(
    "error", [QueueFullError("full"), PublishError("no"), OSError("away")], ids=repr
)
def test_a_watcher_sees_whatever_the_hand_over_raised(error: Exception) -> None:
    hook = Seeing()

    with pytest.raises(type(error)) as caught:
        hand_over(Hooks([hook]), error)

    assert caught.value is error
    assert hook.log[-1] == ("one", error)


def test_a_watcher_that_raises_disturbs_no_publisher() -> None:
    hook = Seeing()
    hooks = Hooks([FailingLater(), hook, Failing()])

    hand_over(hooks)

    assert hook.log[-1] == ("one", None)
    assert hooks.errors == {"FailingLater": 1, "Seeing": 0, "Failing": 1}


def test_what_the_hand_over_raised_outweighs_what_a_watcher_raises() -> None:
    with pytest.raises(QueueFullError):
        hand_over(Hooks([FailingLater()]), QueueFullError("full"))


def test_a_hand_over_that_nobody_follows_raises_what_it_raises() -> None:
    error = QueueFullError("full")

    with pytest.raises(QueueFullError) as caught:
        hand_over(Hooks([Bored()]), error)

    assert caught.value is error


class Frugal(Seeing):
    """Keeps nothing of messages but of those with a key."""

    has_unsampled_path = True

    def propagate_unsampled(self, message: Message[Any]) -> bool:
        self.log.append("carry")
        return message.key is None

    def enter_unsampled(self, message: Message[Any], context: Context) -> bool:
        return True


@pytest.mark.parametrize(
    ("hooks", "is_asked"),
    [
        ([], False),
        ([Quiet()], False),
        ([Seeing()], False),
        ([Frugal()], True),
        ([Quiet(), Frugal()], True),
        ([Frugal(), Seeing()], False),
        ([Frugal(), Frugal()], False),
    ],
)
def test_a_way_around_is_offered_by_an_only_watcher_that_says_so(
    hooks: list[Hook], *, is_asked: bool
) -> None:
    found = Hooks(hooks)

    assert (found.enter_unsampled is not None) is is_asked
    assert (found.propagate_unsampled is not None) is is_asked


def test_a_hook_offers_no_way_around_unless_it_says_so() -> None:
    assert not Hook().propagate_unsampled(MESSAGE)
    assert not Hook().enter_unsampled(MESSAGE, Context())


@pytest.mark.parametrize("key", [None, "7"])
def test_a_message_of_which_nothing_is_kept_is_published_unwatched(
    make_broker: MakeBroker, key: str | None
) -> None:
    hook, handled = Frugal(), list[object]()
    broker = make_broker(hooks=[hook])
    broker.consume("a.b", lambda m: handled.append(m.key), name="c")

    broker.publish(Message("a.b", key=key))

    wait_until(lambda: handled == [key])
    assert hook.log[0] == "carry"
    assert ("one", None) in hook.log if key else hook.log == ["carry"]


@pytest.mark.parametrize(
    ("hooks", "keys", "expected"),
    [
        ([], [None], PROPAGATED),
        ([Quiet()], [None], PROPAGATED),
        ([Frugal()], [None, None], PROPAGATED),
        ([Frugal()], [None, "7"], ("context of one",)),
        ([Seeing()], [None], ("context of one",)),
    ],
)
def test_what_waits_needs_contexts_only_where_somebody_will_watch(
    hooks: list[Hook], keys: list[str | None], expected: tuple[object, ...]
) -> None:
    messages = [Message[Any]("a.b", key=key) for key in keys]

    assert Hooks(hooks).prepare(messages) == expected


class BrokenCarrier(Frugal):
    def propagate_unsampled(self, message: Message[Any]) -> bool:
        raise LookupError


def test_a_carrier_that_raises_disturbs_no_batch(make_broker: MakeBroker) -> None:
    handled: list[object] = []
    broker = make_broker(hooks=[BrokenCarrier()])
    broker.consume("a.b", handled.append, name="c")

    assert broker.publish_many([Message("a.b"), Message("a.b")]) == [None, None]

    wait_until(lambda: len(handled) == 2)
    assert broker.hooks.errors["BrokenCarrier"] == 1


def test_a_carrier_that_raises_disturbs_no_publisher(make_broker: MakeBroker) -> None:
    handled: list[object] = []
    broker = make_broker(hooks=[BrokenCarrier()])
    broker.consume("a.b", handled.append, name="c")

    for _ in range(2):
        broker.publish(Message("a.b"))

    wait_until(lambda: len(handled) == 2)
    assert broker.hooks.errors["BrokenCarrier"] == 2


def test_watches_surround_an_attempt() -> None:
    log: list[Any] = []
    hooks = Hooks([Seeing("one", log), Bored("two", log), Seeing("three", log)])

    watches = hooks.attempting(ATTEMPT)
    hooks.attempted(watches, [ACK])

    begun = [("one", "begin"), ("three", "begin")]
    assert log == [*begun, ("three", [ACK]), ("one", [ACK])]


def test_a_watch_that_raises_disturbs_no_attempt() -> None:
    hook = Seeing()
    hooks = Hooks([Failing(), hook, FailingLater()])

    hooks.attempted(hooks.attempting(ATTEMPT), [ACK])

    assert hook.log == [("one", "begin"), ("one", [ACK])]
    assert hooks.errors == {"Failing": 1, "Seeing": 0, "FailingLater": 1}


def test_what_ends_the_program_passes_through() -> None:
    def interrupt(hook: Hook) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Hooks([Quiet()]).notify(interrupt)


def test_a_hook_that_overrides_nothing_does_nothing() -> None:
    hook, watch = Hook(), Watch()
    message = Message[Any]("a.b")
    attempt: Any = Attempt("b", "memory", None, [message], 1, 0.0)  # type: ignore[arg-type]
    retry: Any = None

    answers = [
        hook.publishing("b", "memory", message, None),
        hook.capture_context(),
        hook.attempting(attempt),
        watch.begin(),
        watch.end([ACK]),
        hook.refused("b", "a.b", QueueFullError("full")),
        hook.unknown("b", "a.b", PublishUnknownError("late")),
        hook.unconsumed("b", "a.b"),
        hook.dropped("b", "c", [message], retry),
        hook.retrying("b", "c", message, 1, retry),
        hook.dead_lettered("b", "c", message, 1, ValueError()),
        hook.overran("b", "c", 1.0),
        hook.loop_blocked("c", 1.0, "sleep"),
        hook.batch_failed("b", "c", 2, ValueError()),
        hook.failed("loop", ValueError()),
        hook.stopped("b", Remainder(dropped={}, in_flight=0, seconds=0)),
    ]

    assert not any(answers)
