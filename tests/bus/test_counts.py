from __future__ import annotations

import time

import pytest

from django_gomq.bus.counts import (
    FINE_BUCKETS,
    MAX_ERROR_TYPES,
    MAX_UNDECLARED_TYPES,
    OTHER,
    ConsumerCounts,
    Labels,
    PublishCounts,
    PublishNumbers,
)
from django_gomq.bus.delivery import DropReason, Verdict
from tests.bus.waiting import fast_switching, run_threads


@pytest.fixture
def counts() -> ConsumerCounts:
    return ConsumerCounts()


def fail_with(counts: ConsumerCounts, name: str) -> None:
    counts.count_failure("a.b", Verdict.ERROR, type(name, (Exception,), {})())


def test_counts_begin_at_zero(counts: ConsumerCounts) -> None:
    assert not counts.dispatched
    assert not counts.processed
    assert not counts.dropped
    assert (counts.succeeded, counts.retries, counts.dead_lettered) == (0, 0, 0)
    assert (counts.handed_back, counts.last_success) == (0, None)


def test_dispatched_messages_add_up_by_type(counts: ConsumerCounts) -> None:
    for name, count in (("a.b", 2), ("x.y", 1), ("a.b", 3)):
        counts.count_dispatched(name, count)

    assert counts.dispatched == {"a.b": 5, "x.y": 1}


def test_drops_add_up_by_type_and_reason(counts: ConsumerCounts) -> None:
    counts.count_dropped(["a.b", "a.b", "x.y"], DropReason.EXPIRED)
    counts.count_dropped(["a.b"], DropReason.SHUTDOWN)

    assert counts.dropped == {
        ("a.b", DropReason.EXPIRED): 2,
        ("x.y", DropReason.EXPIRED): 1,
        ("a.b", DropReason.SHUTDOWN): 1,
    }


def test_successes_add_up_over_all_types(counts: ConsumerCounts) -> None:
    counts.count_successes("a.b", 2)
    counts.count_successes("x.y", 1)
    counts.count_failure("a.b", Verdict.TIMEOUT, ValueError())

    assert counts.processed["a.b", Verdict.SUCCESS] == 2
    assert counts.succeeded == 3


def test_the_moment_of_the_last_success_is_kept(counts: ConsumerCounts) -> None:
    before = time.time()

    counts.count_successes("a.b", 1)

    assert counts.last_success is not None
    assert before <= counts.last_success <= time.time()


def test_a_failure_counts_its_verdict_and_its_error(counts: ConsumerCounts) -> None:
    counts.count_failure("a.b", Verdict.REJECTED, ValueError())

    assert counts.processed == {("a.b", Verdict.REJECTED): 1}
    assert counts.exceptions == {"ValueError": 1}
    assert counts.last_success is None


def test_errors_of_too_many_kinds_share_one_name(counts: ConsumerCounts) -> None:
    for number in range(MAX_ERROR_TYPES + 5):
        fail_with(counts, f"Error{number}")

    assert counts.exceptions[OTHER] == 5
    assert len(counts.exceptions) == MAX_ERROR_TYPES + 1


def test_a_known_kind_of_error_keeps_its_name(counts: ConsumerCounts) -> None:
    for number in range(MAX_ERROR_TYPES + 5):
        fail_with(counts, f"Error{number}")

    fail_with(counts, "Error3")

    assert counts.exceptions["Error3"] == 2


def test_lost_leases_are_handed_back(counts: ConsumerCounts) -> None:
    counts.count_lost_leases(["a.b", "a.b", "x.y"])
    counts.count_handed_back(4)

    assert counts.lost_leases == {"a.b": 2, "x.y": 1}
    assert counts.handed_back == 7


def test_histograms_have_the_buckets_that_were_asked_for_and_the_fine_ones() -> None:
    counts = ConsumerCounts([1.1], [2.0, 3.0])

    assert set(counts.wait.state().bounds) == {1.1, *FINE_BUCKETS}
    assert set(counts.duration.state().bounds) == {2.0, 3.0, *FINE_BUCKETS}


def test_racing_threads_lose_no_count(counts: ConsumerCounts) -> None:
    def count() -> None:
        for _ in range(500):
            counts.count_dispatched("a.b", 1)
            counts.count_dropped(["a.b"], DropReason.EVICTED)
            counts.count_handed_back(1)

    with fast_switching():
        run_threads(*[count] * 4)

    assert counts.dispatched["a.b"] == 2000
    assert counts.dropped["a.b", DropReason.EVICTED] == 2000
    assert counts.handed_back == 2000


def test_declared_types_have_numbers_from_the_start() -> None:
    assert PublishCounts(Labels(["a.b"])).state() == {
        "a.b": PublishNumbers({}, 0, 0, 0)
    }


def test_refusals_add_up_by_type_and_reason() -> None:
    refusals = PublishCounts(Labels())

    for event, reason in (("a.b", "timeout"), ("a.b", "timeout"), ("a.b", "closed")):
        refusals.count_refused(event, reason)

    assert refusals.state() == {
        "a.b": PublishNumbers({"timeout": 2, "closed": 1}, 0, 0, 0)
    }


def test_what_nobody_consumes_what_is_rolled_back_or_unanswered_is_no_refusal() -> None:
    refusals = PublishCounts(Labels(["a.b"]))

    refusals.count_unconsumed("a.b")
    refusals.count_rolled_back("x.y", 1)
    refusals.count_rolled_back("x.y", 1)
    refusals.count_unknown("y.z")

    assert refusals.state() == {
        "a.b": PublishNumbers({}, 1, 0, 0),
        "x.y": PublishNumbers({}, 0, 2, 0),
        "y.z": PublishNumbers({}, 0, 0, 1),
    }


def test_too_many_undeclared_types_share_one_label() -> None:
    refusals = PublishCounts(Labels(["declared"]))

    for number in range(MAX_UNDECLARED_TYPES + 3):
        refusals.count_refused(f"type{number}", "closed")
    refusals.count_unconsumed("another")
    refusals.count_rolled_back("another", 1)

    state = refusals.state()
    assert len(state) == MAX_UNDECLARED_TYPES + 2
    assert state[OTHER] == PublishNumbers({"closed": 3}, 1, 1, 0)


@pytest.mark.parametrize("event", ["declared", "type0"])
def test_a_known_type_keeps_its_label_when_there_are_too_many(event: str) -> None:
    refusals = PublishCounts(Labels(["declared"]))
    for number in range(MAX_UNDECLARED_TYPES + 3):
        refusals.count_unconsumed(f"type{number}")

    refusals.count_refused(event, "closed")

    assert refusals.state()[event].refused == {"closed": 1}


def test_a_state_does_not_change_later() -> None:
    refusals = PublishCounts(Labels())
    refusals.count_refused("a.b", "closed")
    state = refusals.state()

    refusals.count_refused("a.b", "closed")

    assert state["a.b"].refused == {"closed": 1}


def test_racing_threads_lose_no_refusal() -> None:
    refusals = PublishCounts(Labels())

    def count() -> None:
        for number in range(500):
            refusals.count_refused(f"type{number % 7}", "closed")

    with fast_switching():
        run_threads(*[count] * 4)

    assert sum(event.refused["closed"] for event in refusals.state().values()) == 2000


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
