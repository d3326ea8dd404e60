"""Consumers that come, are renamed and go, and what the kept history is for."""

from __future__ import annotations

from typing import Any

import pytest

from django_gomq.bus.backend import REPLAYED, HistoryFilter
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.message import Message
from django_gomq.bus.patterns import Pattern
from django_gomq.testing.conformance.site import (
    EVENT,
    Notes,
    Process,
    Site,
    wait_until,
)
from tests.backends.databases import execute

OLD, NEW = "suite.old", "suite.new"


def set_up(site: Site, handler: object, name: str, **options: Any) -> Process:
    """Have a process that has recorded a consumer, and does not run."""
    process = site.process(may_start=lambda: False)
    process.broker.consume([EVENT], handler, name=name, **options)
    process.broker.setup()
    return process


def dispatch(site: Site) -> None:
    """Have everything in the outbox dispatched, by a process that is gone then."""
    other = site.process()
    other.consume(Notes(), name="suite.dispatcher")
    wait_until(lambda: not execute("SELECT 1 FROM gomq_outbox"))
    wait_until(lambda: not waiting("suite.dispatcher"))
    other.close()


def waiting(name: str) -> int:
    ((count,),) = execute(
        "SELECT count(*) FROM gomq_delivery JOIN gomq_consumer "
        "ON gomq_consumer.id = gomq_delivery.consumer_id WHERE name = %s",
        name,
    )
    return int(count)


def run(process: Process, notes: Notes, count: int) -> list[Any]:
    """Start a process; return the numbers that it has handled, once it is quiet."""
    process.broker.start()
    wait_until(lambda: len(notes.handled) >= count)
    process.wait_until_quiet()
    return notes.numbers


def test_what_waits_for_a_consumer_follows_it_to_its_new_name(processes: Site) -> None:
    set_up(processes, Notes(), OLD).send(1, 2, 3)
    dispatch(processes)
    notes = Notes()

    two = processes.process()
    two.broker.consume([EVENT], notes, name=NEW, aliases=["suite.older", OLD])
    said = two.broker.setup()

    assert said == [f"{NEW}: renamed from {OLD}"]
    assert run(two, notes, 3) == [1, 2, 3]
    assert "suite.dispatcher" in two.broker.backend.stats().consumers
    assert OLD not in two.broker.backend.stats().consumers


def test_dead_letters_follow_a_consumer_to_its_new_name(processes: Site) -> None:
    def fail(message: object) -> None:
        raise ValueError

    one = set_up(processes, Notes(fail), OLD)
    one.broker.start()
    one.send(1)
    wait_until(one.broker.dead_letters)
    one.close()
    two = set_up(processes, notes := Notes(), NEW, aliases=[OLD])

    [letter] = two.broker.dead_letters()
    assert letter.consumer == NEW
    assert two.broker.replay([letter.id]) == 1
    assert run(two, notes, 1) == [1]


def test_a_worker_of_the_old_name_goes_on_through_a_rename(processes: Site) -> None:
    old = set_up(processes, notes := Notes(), OLD)
    old.broker.start()
    old.send(1)
    wait_until(lambda: notes.numbers == [1])

    set_up(processes, Notes(), NEW, aliases=[OLD])
    old.send(2)

    wait_until(lambda: notes.numbers == [1, 2])


def test_set_up_again_a_renamed_consumer_stays_as_it_is(processes: Site) -> None:
    set_up(processes, Notes(), OLD)
    two = set_up(processes, Notes(), NEW, aliases=[OLD])

    assert two.broker.setup() == [f"{NEW}: recorded in database 'suite'"]


def test_an_alias_that_is_recorded_beside_its_new_name_stays(processes: Site) -> None:
    set_up(processes, Notes(), NEW)
    set_up(processes, Notes(), OLD)
    two = set_up(processes, Notes(), NEW, aliases=[OLD])

    assert {OLD, NEW} <= set(two.broker.backend.stats().consumers)


def test_a_new_consumer_gets_what_is_kept_if_it_starts_at_the_earliest(
    processes: Site,
) -> None:
    one = set_up(processes, Notes(), OLD)
    one.send(1, 2)
    dispatch(processes)
    one.send(3)
    two = processes.process()
    notes = Notes()
    two.broker.consume([EVENT], notes, name=NEW, start="earliest")

    said = two.broker.setup()

    assert said == [f"{NEW}: recorded in database 'suite', with 2 kept"]
    assert sorted(run(two, notes, 3)) == [1, 2, 3]
    assert two.broker.setup() == [f"{NEW}: recorded in database 'suite'"]
    two.wait_until_quiet()
    assert len(notes.numbers) == 3


def test_a_new_consumer_starts_now_unless_it_says_otherwise(processes: Site) -> None:
    one = set_up(processes, Notes(), OLD)
    one.send(1)
    dispatch(processes)

    two = set_up(processes, notes := Notes(), NEW)
    one.send(2)

    assert run(two, notes, 1) == [2]


def test_kept_events_of_a_key_come_in_their_order(processes: Site) -> None:
    one = set_up(processes, Notes(), OLD)
    one.send_many(range(20), key="one")
    dispatch(processes)

    notes = Notes()
    two = set_up(
        processes, notes, NEW, start="earliest", ordered_by_key=True, concurrency=4
    )

    assert run(two, notes, 20) == list(range(20))


class Headed(Notes):
    """Notes the ids and the header of what was replayed, too."""

    def __init__(self) -> None:
        super().__init__(self.note)
        self.ids: list[str] = []
        self.headers: list[str | None] = []

    def note(self, message: Message[Any]) -> None:
        self.ids.append(message.id)
        self.headers.append(message.headers.get(REPLAYED))


def test_replayed_events_keep_their_id_and_say_that_they_are(processes: Site) -> None:
    one = set_up(processes, notes := Headed(), NEW)
    one.send(1, 2)
    run(one, notes, 2)

    assert one.broker.backend.replay_history(NEW, HistoryFilter(), dry_run=True) == 2
    assert one.broker.backend.replay_history(NEW, HistoryFilter(), dry_run=False) == 2

    assert run(one, notes, 4) == [1, 2, 1, 2]
    assert notes.ids[:2] == notes.ids[2:]
    assert notes.headers == [None, None, "true", "true"]


def test_what_waits_anyway_is_not_replayed(processes: Site) -> None:
    one = set_up(processes, notes := Notes(), NEW)
    one.send(1, 2)
    dispatch(processes)

    assert one.broker.backend.replay_history(NEW, HistoryFilter(), dry_run=True) == 0
    assert one.broker.backend.replay_history(NEW, HistoryFilter(), dry_run=False) == 0

    assert run(one, notes, 2) == [1, 2]


@pytest.mark.parametrize(
    ("kept", "count"),
    [
        (HistoryFilter(), 2),
        (HistoryFilter(patterns=(Pattern("suite.*"),)), 2),
        (HistoryFilter(patterns=(Pattern("other.*"),)), 0),
        (HistoryFilter(since=0.0, until=2e9), 2),
        (HistoryFilter(since=150.0), 1),
        (HistoryFilter(until=150.0), 1),
        (HistoryFilter(since=100.0, until=100.0), 0),
    ],
)
def test_replayed_is_what_was_asked_for(
    processes: Site, kept: HistoryFilter, count: int
) -> None:
    assert EVENT.startswith("suite.")
    one = set_up(processes, Notes(), NEW)
    one.send(1, 2)
    dispatch(processes)
    execute("DELETE FROM gomq_delivery")
    ((first,),) = execute("SELECT min(id) FROM gomq_event")
    execute("UPDATE gomq_event SET made = 200")
    execute("UPDATE gomq_event SET made = 100 WHERE id = %s", first)

    for dry_run in (True, False):
        found = one.broker.backend.replay_history(NEW, kept, dry_run=dry_run)
        assert found == count


def test_a_kept_event_that_nobody_can_read_is_a_dead_letter_again(
    processes: Site,
) -> None:
    one = set_up(processes, Notes(), NEW)
    one.send(1)
    dispatch(processes)
    execute("DELETE FROM gomq_delivery")
    execute("UPDATE gomq_event SET envelope = %s", b"\xff")

    assert one.broker.backend.replay_history(NEW, HistoryFilter(), dry_run=False) == 1
    one.broker.start()

    wait_until(one.broker.dead_letters)


def test_history_is_pruned_but_for_what_somebody_waits_for(processes: Site) -> None:
    one = set_up(processes, notes := Notes(), NEW)
    one.send(*range(3))
    dispatch(processes)
    backend = one.broker.backend
    assert backend.prune(0.0) == 0

    run(one, notes, 3)
    wait_until(lambda: not waiting(NEW))

    assert backend.prune(1000.0) == 0
    assert backend.prune(-1.0) == 3
    assert backend.replay_history(NEW, HistoryFilter(), dry_run=True) == 0


def test_what_waits_for_a_removed_consumer_becomes_dead_letters(
    processes: Site,
) -> None:
    one = set_up(processes, Notes(), OLD)
    one.send(1, 2)
    dispatch(processes)

    assert one.broker.backend.remove(OLD, discard=False) == 2

    letters = one.broker.dead_letters()
    assert [letter.message.data for letter in letters] == [1, 2]
    assert {letter.consumer for letter in letters} == {OLD}
    assert "removed" in letters[0].error
    assert OLD not in one.broker.backend.stats().consumers
    assert not execute("SELECT 1 FROM gomq_delivery")


def test_what_waits_for_a_removed_consumer_may_be_discarded(processes: Site) -> None:
    one = set_up(processes, Notes(), OLD)
    one.send(1)
    dispatch(processes)

    assert one.broker.backend.remove(OLD, discard=True) == 1

    assert one.broker.dead_letters() == []
    assert OLD not in one.broker.backend.stats().consumers
    one.send(2)
    dispatch(processes)
    assert not execute("SELECT 1 FROM gomq_delivery")


def test_a_consumer_that_nobody_recorded_is_named(processes: Site) -> None:
    backend = set_up(processes, Notes(), OLD).broker.backend

    with pytest.raises(ConfigurationError, match=f"no consumer 'nobody'.*{OLD}"):
        backend.remove("nobody", discard=True)
    with pytest.raises(ConfigurationError, match="no consumer 'nobody'"):
        backend.replay_history("nobody", HistoryFilter(), dry_run=False)
