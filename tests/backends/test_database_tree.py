"""The tree of a message, out of the tables of each vendor."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_gomq.backends.database import DatabaseBackend
from django_gomq.bus.backend import HistoryFilter
from django_gomq.bus.delivery import Reject
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.bus.worker.causes import name_cause
from django_gomq.history.tree import Tree, find_in
from django_gomq.models import HistoryEvent
from django_gomq.testing.conformance.site import (
    CONSUMER,
    EVENT,
    Notes,
    Process,
    Site,
    wait_until,
)
from tests.backends.databases import ALIAS, execute


def emit(process: Process, event: str, number: int = 0) -> Message[Any]:
    message: Message[Any] = Message(event, b"%d" % number)
    name_cause(message)
    process.broker.publish(message)
    return message


def run_a_chain(site: Site, process: Process) -> Message[Any]:
    """Handle one message that causes two, of which the last is a dead letter."""

    def follow(message: Message[Any]) -> None:
        for number in (1, 2):
            emit(process, "suite.followed", number)
        site.harness.leave_thread()

    def reject(message: Message[Any]) -> None:
        if message.data == 2:
            raise Reject("not mine")

    process.consume(follow, starts=False)
    process.consume(reject, "suite.followed", name="suite.later")
    root = emit(process, EVENT)
    wait_until(lambda: execute("SELECT 1 FROM gomq_dead_letter"))
    process.wait_until_quiet()
    return root


def shape(tree: Tree | None) -> list[tuple[int, str]]:
    assert tree is not None
    return [(node.depth, node.type) for node in tree.nodes]


def told(tree: Tree | None, number: int = 0) -> list[str]:
    """Return what is told of the consumers of one node, without the time it took."""
    assert tree is not None
    node = tree.nodes[number]
    found = [f"{one.consumer} {one.told}" for one in node.handlings]
    found += [f"nothing of {name}" for name in node.untold]
    return [re.sub(r"after [\d.]+(e-\d+)? s\b", "after N", text) for text in found]


def handle_one(process: Process, handler: Any, **options: Any) -> Message[Any]:
    """Have one message handled until nothing is left to do."""
    process.consume(handler, starts=False, **options)
    message = emit(process, EVENT)
    process.broker.start()
    wait_until(lambda: execute("SELECT 1 FROM gomq_event"))
    wait_until(lambda: not execute("SELECT 1 FROM gomq_delivery"))
    return message


def test_a_tree_has_what_handlers_emitted_and_what_became_of_it(
    processes: Site,
) -> None:
    root = run_a_chain(processes, processes.process())

    tree = find_in(ALIAS, root.id)

    assert shape(tree) == [(0, EVENT), (1, "suite.followed"), (1, "suite.followed")]
    assert tree is not None
    assert (tree.nodes[0].id, tree.lost_cause, tree.is_cut) == (root.id, None, False)
    assert told(tree, 0) == [f"{CONSUMER} handled it after N, in attempt 1"]
    assert told(tree, 1) == ["suite.later handled it after N, in attempt 1"]
    (gave_up,) = tree.nodes[2].handlings
    assert (gave_up.consumer, gave_up.told) == (
        "suite.later",
        "gave up in attempt 1: Reject",
    )
    below = find_in(ALIAS, tree.nodes[1].id)
    assert shape(below) == [(0, EVENT), (1, "suite.followed")]


def test_a_dead_letter_that_is_replayed_after_its_history_is_found_again(
    processes: Site,
) -> None:
    process = processes.process()
    root = run_a_chain(processes, process)
    (letter,) = process.broker.dead_letters()
    execute("DELETE FROM gomq_event")
    assert find_in(ALIAS, letter.message.id) is None

    process.broker.replay([letter.id])

    tree = find_in(ALIAS, letter.message.id)
    assert shape(tree) == [(0, "suite.followed")]
    assert tree is not None
    assert tree.lost_cause == root.id


def test_a_tree_tells_the_attempt_and_the_time_of_what_was_handled(
    processes: Site,
) -> None:
    def fail_once(message: Message[Any]) -> None:
        if message.attempt == 1:
            raise ValueError("not yet")

    retry = Retry(attempts=3, min_delay=1.5)
    message = handle_one(processes.process(), fail_once, retry=retry)

    tree = find_in(ALIAS, message.id)

    assert told(tree) == [f"{CONSUMER} handled it after N, in attempt 2"]
    assert tree is not None
    seconds = re.findall(r"[\d.]+(?= s)", tree.nodes[0].handlings[0].told)
    assert float(seconds[0]) >= 1.5


def test_a_tree_tells_what_was_too_old(processes: Site) -> None:
    publisher = processes.process(may_start=lambda: False)
    publisher.consume(Notes(), starts=False, max_age=0.05)
    message = emit(publisher, EVENT)
    wait_until(lambda: time.time() > message.made + 1)
    processes.process().consume(Notes(), max_age=0.05)
    wait_until(lambda: execute("SELECT 1 FROM gomq_ended_delivery"))

    tree = find_in(ALIAS, message.id)

    assert told(tree) == [f"{CONSUMER} dropped it as too old after N, in attempt 1"]


def test_a_dead_letter_that_was_discarded_is_told_of_still(processes: Site) -> None:
    process = processes.process()
    run_a_chain(processes, process)
    (letter,) = process.broker.dead_letters()
    process.broker.discard([letter.id])

    tree = find_in(ALIAS, letter.message.id)

    assert told(tree, -1) == ["suite.later gave up after N, in attempt 1"]


def test_what_is_replayed_is_told_of_as_it_ended_last(processes: Site) -> None:
    process, attempts = processes.process(), list[int]()

    def fail_at_first(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        if len(attempts) == 1:
            raise ValueError("not yet")

    retry = Retry(attempts=3, min_delay=0.1)
    message = handle_one(process, fail_at_first, retry=retry)
    first = told(find_in(ALIAS, message.id))
    process.backend.replay_history(CONSUMER, HistoryFilter(), dry_run=False)
    wait_until(lambda: len(attempts) == 3)
    wait_until(lambda: not execute("SELECT 1 FROM gomq_delivery"))

    assert first == [f"{CONSUMER} handled it after N, in attempt 2"]
    assert told(find_in(ALIAS, message.id)) == [
        f"{CONSUMER} handled it after N, in attempt 1"
    ]


def test_who_has_lost_a_message_does_not_tell_how_it_ended(processes: Site) -> None:
    process, gate = processes.process(), processes.gate()
    process.consume(gate, starts=False, concurrency=2)
    messages = [emit(process, EVENT, number) for number in range(2)]
    process.broker.start()
    wait_until(lambda: len(gate.entered) == 2)
    ((last,),) = execute("SELECT max(event_id) FROM gomq_delivery")
    execute("DELETE FROM gomq_delivery WHERE event_id = %s", last)
    gate.open()
    process.wait_until_quiet()

    assert [told(find_in(ALIAS, message.id)) for message in messages] == [
        [f"{CONSUMER} handled it after N, in attempt 1"],
        [f"nothing of {CONSUMER}"],
    ]


def test_without_outcomes_a_tree_says_that_nothing_is_kept(
    processes: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = DatabaseBackend(using=ALIAS, outcomes=False)
    monkeypatch.setattr(processes.harness, "make_backend", lambda: backend)

    message = handle_one(processes.process(), Notes())

    assert told(find_in(ALIAS, message.id)) == [f"nothing of {CONSUMER}"]
    assert execute("SELECT 1 FROM gomq_ended_delivery") == []


def test_how_it_ended_is_kept_as_long_as_its_event(processes: Site) -> None:
    process = processes.process()
    handle_one(process, Notes())

    assert process.backend.prune(1000.0) == 0
    assert len(execute("SELECT 1 FROM gomq_ended_delivery")) == 1
    assert process.backend.prune(-1.0) == 1
    assert execute("SELECT 1 FROM gomq_ended_delivery") == []


def test_an_index_finds_what_a_tree_asks_for(processes: Site, vendor: str) -> None:
    HistoryEvent.objects.using(ALIAS).bulk_create(
        HistoryEvent(
            id=10_000 + number,
            type="a.b",
            made=0,
            envelope=b"",
            message_hash=number,
            causation_hash=number // 2 if number % 2 else None,
        )
        for number in range(4000)
    )
    execute("ANALYZE TABLE gomq_event" if vendor == "mariadb" else "ANALYZE")

    for field, index in (
        ("message_hash", "gomq_event_message"),
        ("causation_hash", "gomq_event_cause"),
    ):
        asked = HistoryEvent.objects.using(ALIAS).filter(**{f"{field}__in": [7, 900]})
        assert index in asked.values_list("id", flat=True)[:500].explain(), field


def test_a_tree_asks_no_more_where_more_is_kept(processes: Site) -> None:
    process = processes.process()
    root = run_a_chain(processes, process)

    def count() -> int:
        with CaptureQueriesContext(connections[ALIAS]) as queries:
            assert find_in(ALIAS, root.id) is not None
        return len(queries)

    before = count()
    notes = Notes()
    process.consume(notes, "suite.other", name="suite.other")
    for number in range(50):
        emit(process, "suite.other", number)
    wait_until(lambda: len(notes.handled) == 50)

    assert count() == before <= 10


@pytest.mark.parametrize("message_id", ["", "\x00", "a'b", "01a2" * 50, "Zoë"])
def test_an_id_that_nobody_has_has_no_tree(processes: Site, message_id: str) -> None:
    assert find_in(ALIAS, message_id) is None


def test_a_database_that_misses_the_migration_of_causes_is_told_to_migrate(
    processes: Site,
) -> None:
    process = processes.process(may_start=lambda: False)
    process.consume(Notes(), starts=False)
    execute("ALTER TABLE gomq_outbox DROP COLUMN message_hash")
    try:
        problems = process.broker.check_server()
    finally:
        execute("ALTER TABLE gomq_outbox ADD COLUMN message_hash bigint NULL")

    assert problems == [
        (
            f"Database '{ALIAS}' lacks gomq_outbox.message_hash: "
            f"run manage.py migrate gomq --database {ALIAS}."
        )
    ]
    assert process.broker.check_server() == []
