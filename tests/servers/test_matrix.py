from __future__ import annotations

from collections import Counter

import pytest

from tests.servers.configuration import Configuration
from tests.servers.conftest import Observe, skip_if_missing
from tests.servers.matrix import MATRIX
from tests.servers.observing import (
    BRIEF_LIMIT,
    DRAIN_LIMIT,
    HANDLED,
    QUEUED,
    STUCK,
    Observation,
    drains_in,
    handled_by,
    warnings_in,
)
from tests.servers.selection import rows
from tests.servers.ward.rounds import Answer

# What a stop may take beyond the limit of its drain.
STOP_SECONDS = 1.0
# A master looks after its workers about once a second, on a machine that does much
# else. Less than the time that servers give a worker which does not end.
POLL_SECONDS = 20.0


@pytest.fixture(params=rows(MATRIX))
def row(request: pytest.FixtureRequest) -> Configuration:
    configuration: Configuration = request.param
    skip_if_missing(configuration)
    return configuration


@pytest.fixture
def seen(row: Configuration, observed: Observe) -> Observation:
    return observed(row)


def has_bus(answer: Answer) -> bool:
    return any(name.startswith("gomq") for name in answer["threads"])


def test_no_thread_of_the_bus_runs_before_the_first_emit(seen: Observation) -> None:
    assert not any(map(has_bus, seen.slow.before.values()))


def test_consumers_live_in_each_worker_and_nowhere_else(
    row: Configuration, seen: Observation
) -> None:
    assert len(seen.slow.after) == row.workers
    assert all(map(has_bus, seen.slow.after.values()))
    assert seen.slow.others_before == seen.slow.others_after


def test_the_process_that_emitted_handles_and_no_other(seen: Observation) -> None:
    notes = (*seen.slow.ending.journal, *seen.stuck.journal)

    assert notes
    assert all(one.pid == one.emitter for one in notes)


def test_what_is_queued_when_the_signal_comes_is_handled_in_order(
    row: Configuration, seen: Observation
) -> None:
    pid, emitted = seen.slow.emitter["pid"], seen.slow.emitter["emitted"]

    handled = handled_by(seen.slow.ending, pid)

    assert emitted >= QUEUED
    if row.trigger is None:
        assert len(handled) < emitted
    else:
        assert handled == list(range(1, emitted + 1))


def test_each_worker_tells_once_which_trigger_drained(
    row: Configuration, seen: Observation
) -> None:
    drains = drains_in(seen.slow.ending.log)

    if row.trigger is None:
        assert drains == []
        return
    assert Counter(one.pid for one in drains) == Counter(seen.slow.after.keys())
    assert {(one.trigger, one.left) for one in drains} == {(row.trigger, 0)}
    # Something was left to do: it was not the server that waited for the handlers.
    assert max(one.seconds for one in drains) > 0.1


def test_a_stuck_handler_is_left_behind_and_counted_in_one_warning(
    row: Configuration, seen: Observation
) -> None:
    warnings = warnings_in(seen.stuck.log)

    if row.trigger is None:
        assert warnings == []
        return
    (warning,) = warnings
    assert (
        f"left {STUCK - 1} undelivered (ward.round.stuck: {STUCK - 1}), 1 in work"
        in warning
    )
    assert [(one.trigger, one.left) for one in drains_in(seen.stuck.log)] == [
        (row.trigger, STUCK)
    ]


def test_the_exit_code_is_the_servers_own(seen: Observation) -> None:
    assert seen.slow.ending.status == seen.without.status
    assert seen.stuck.status == seen.without.status


def test_the_end_comes_in_time_and_leaves_no_process(seen: Observation) -> None:
    own = seen.without.seconds + STOP_SECONDS + POLL_SECONDS

    assert seen.slow.ending.seconds < DRAIN_LIMIT + own
    assert seen.stuck.seconds < BRIEF_LIMIT + own
    assert not seen.slow.ending.survivors | seen.stuck.survivors


def test_no_traceback_is_written(seen: Observation) -> None:
    assert "Traceback" not in seen.slow.ending.log
    assert "Traceback" not in seen.stuck.log


@pytest.mark.parametrize(
    "row", rows(one for one in MATRIX if one.has_one_page), indirect=True
)
def test_the_page_of_a_lone_worker_counts_what_it_handled(seen: Observation) -> None:
    assert HANDLED.search(seen.slow.page), seen.slow.page
