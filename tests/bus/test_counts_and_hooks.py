from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_gomq.bus.counts import (
    MAX_ERROR_TYPES,
    MAX_UNDECLARED_TYPES,
    ConsumerCounts,
    Histogram,
    Labels,
    RefusalCounts,
)
from django_gomq.bus.delivery import ACK, DropReason, Verdict
from django_gomq.bus.errors import QueueFullError
from django_gomq.bus.hooks import Attempt, Hook, Hooks, Watch
from django_gomq.bus.message import Message
from django_gomq.bus.stats import Remainder
from tests.bus.observing import Recorder, Watcher, hand_over
from tests.bus.waiting import fast_switching, run_threads


def test_a_value_belongs_to_the_first_bucket_that_holds_it() -> None:
    histogram = Histogram((0.001, 0.1))

    histogram.observe_all([0.001, 0.001_001, 0.1, 0.2])
    histogram.observe_all([])

    state = histogram.state()
    assert state.counts == (1, 2, 1)
    assert state.sum_seconds == pytest.approx(0.302001)


@given(st.lists(st.lists(st.integers(0, 10**4).map(lambda ms: ms / 1000))))
def test_a_histogram_counts_every_value_once(batches: list[list[float]]) -> None:
    histogram = Histogram((0.001, 0.1, 1))
    values = [one for batch in batches for one in batch]

    for batch in batches:
        histogram.observe_all(list(batch))

    edges = [0.0, 0.001, 0.1, 1.0]
    expected = [
        sum(low < one <= high or one == low == 0 for one in values)
        for low, high in zip(edges, [*edges[1:], 11.0], strict=True)
    ]
    assert list(histogram.state().counts) == expected


def test_a_bucket_keeps_its_latest_exemplar() -> None:
    histogram = Histogram((0.001, 0.1))

    for trace_id in ("old", "new"):
        histogram.keep_exemplar(0.05, trace_id)

    assert {
        index: (one.value, one.trace_id)
        for index, one in histogram.state().exemplars.items()
    } == {1: (0.05, "new")}


def test_error_types_beyond_a_number_share_a_label() -> None:
    counts = ConsumerCounts()

    for number in range(MAX_ERROR_TYPES + 5):
        error = type(f"E{number}", (Exception,), {})()
        counts.count_failure("a.b", Verdict.ERROR, error)

    assert len(counts.exceptions) == MAX_ERROR_TYPES + 1
    assert counts.exceptions["_other"] == 5


def test_types_that_nobody_declared_share_a_label_beyond_a_number() -> None:
    counts = RefusalCounts(Labels(["declared"]))

    for number in range(MAX_UNDECLARED_TYPES + 5):
        counts.count_refused(f"t{number}", "closed")
    counts.count_refused("declared", "closed")

    state = counts.state()
    assert len(state) == MAX_UNDECLARED_TYPES + 2
    assert state["_other"].refused == {"closed": 5}
    assert state["declared"].refused == {"closed": 1}


def test_a_consumer_of_patterns_counts_under_labels_too() -> None:
    counts = ConsumerCounts(labels=Labels())
    types = [f"t{number}" for number in range(MAX_UNDECLARED_TYPES + 5)]

    for name in types:
        counts.count_dispatched(name, 2)
        counts.add_drop(name, DropReason.EXPIRED)
        counts.count_successes(name, 1)
    counts.count_dropped(types, DropReason.EVICTED)
    counts.count_lost_leases(types)
    counts.count_failure(types[-1], Verdict.ERROR, ValueError())

    assert counts.dispatched["_other"] == 10
    assert counts.dropped["_other", DropReason.EXPIRED] == 5
    assert counts.dropped["_other", DropReason.EVICTED] == 5
    assert counts.processed["_other", Verdict.SUCCESS] == 5
    assert counts.processed["_other", Verdict.ERROR] == 1
    assert counts.lost_leases["_other"] == 5
    assert counts.handed_back == len(types)
    assert len(counts.dispatched) == MAX_UNDECLARED_TYPES + 1


def test_a_label_that_came_meanwhile_is_not_given_twice() -> None:
    class SeenTooLate(set[str]):
        looks = 0

        def __contains__(self, name: object) -> bool:
            self.looks += 1
            return self.looks > 1 and super().__contains__(name)

    labels = Labels()
    labels._known = SeenTooLate({"a.b"})

    assert labels.of("a.b") == "a.b"
    assert labels._room == MAX_UNDECLARED_TYPES


def test_racing_threads_find_one_label() -> None:
    labels, found = Labels(), list[str]()

    def look() -> None:
        found.extend(labels.of(f"t{number}") for number in range(300))

    with fast_switching():
        run_threads(look, look, look)

    assert len(labels.all()) == MAX_UNDECLARED_TYPES
    assert found.count("_other") == 300


def test_what_was_not_taken_is_counted_by_kind() -> None:
    counts = RefusalCounts(Labels(["quiet"]))

    counts.count_refused("a", "queue_full")
    counts.count_unconsumed("b")
    counts.count_rolled_back("c", 1)

    state = counts.state()
    assert state["a"].refused == {"queue_full": 1}
    assert state["b"].unconsumed == 1
    assert state["c"].rolled_back == 1
    assert state["quiet"].refused == {}


class Broken(Hook):
    watches_publishing = True
    watches_attempts = True

    def __getattribute__(self, name: str) -> Any:
        if name.startswith(("_", "watches")):
            return super().__getattribute__(name)

        def fail(*_: object) -> None:
            raise ValueError(name)

        return fail


def test_a_hook_that_raises_is_logged_once_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder()
    hooks = Hooks([Broken(), recorder])

    with caplog.at_level(logging.ERROR, "gomq.hooks"):
        for _ in range(3):
            hooks.notify(lambda hook: hook.unconsumed("b", "a.b"))

    assert +hooks.errors == {"Broken": 3}
    assert len(caplog.records) == 1
    assert recorder.named("unconsumed") == ["a.b"] * 3


def test_a_broken_watcher_disturbs_no_publisher() -> None:
    watcher = Watcher()
    hooks = Hooks([Broken(), watcher])

    hand_over(hooks, parents=hooks.capture_contexts())

    assert watcher.named("publishing") == [("a.b", "here")]
    assert watcher.named("published") == [None]


def test_a_watcher_hears_of_a_refusal() -> None:
    watcher, error = Watcher(), QueueFullError("full")
    hooks = Hooks([watcher])

    with pytest.raises(QueueFullError):
        hand_over(hooks, error)

    assert watcher.named("published") == [error]


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


def test_a_watcher_without_an_interest_is_left_alone() -> None:
    class Picky(Watcher):
        def publishing(self, *_: object) -> None: ...  # type: ignore[override]
        def attempting(self, attempt: Attempt) -> None: ...  # type: ignore[override]

    hooks = Hooks([Picky()])
    attempt: Any = None

    hand_over(hooks)

    assert hooks.attempting(attempt) == []
