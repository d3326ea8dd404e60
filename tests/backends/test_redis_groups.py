"""Streams and groups at Redis: made, lost, renamed, trimmed, and gone."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from django_gomq.backends.redis import RedisBackend, upkeep
from django_gomq.bus.backend import REPLAYED, HistoryFilter
from django_gomq.bus.errors import ConfigurationError, NoConsumerError
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.testing.conformance.site import (
    CONSUMER,
    EVENT,
    LONG,
    Notes,
    Process,
    Site,
    wait_until,
)
from tests.backends.redis_servers import LEASE, RedisHarness, make_older

STREAM = f"{{gomq}}:e:{EVENT}"
OLD, NEW = "suite.old", "suite.new"


def set_up(site: Site, handler: object, name: str, **options: Any) -> Process:
    """Have a process that has set a consumer up, and does not run."""
    process = site.process(may_start=lambda: False)
    process.broker.consume([EVENT], handler, name=name, **options)
    process.broker.setup()
    return process


def backend_of(process: Process) -> RedisBackend:
    backend = process.broker.backend
    assert isinstance(backend, RedisBackend)
    return backend


def test_a_new_consumer_starts_now_or_at_what_is_kept(redis_site: Site) -> None:
    first = set_up(redis_site, Notes(), "suite.first")
    first.send(1, 2)
    now, earliest = redis_site.process(), redis_site.process()
    new, all_ = Notes(), Notes()

    now.consume(new, name="suite.now")
    earliest.consume(all_, name="suite.earliest", start="earliest")
    first.send(3)

    wait_until(lambda: (new.numbers, all_.numbers) == ([3], [1, 2, 3]))


def test_a_type_is_read_from_its_first_event_by_who_matches_it(
    redis_site: Site,
) -> None:
    process, notes = redis_site.process(), Notes()
    process.consume(notes, "suite.*")

    process.send(1, type="suite.born")
    process.send_many([2, 3])  # another one that nobody has named
    process.send(4, type="suite.delayed", delay=0.1)

    wait_until(lambda: sorted(notes.numbers) == [1, 2, 3, 4])


def test_who_could_not_see_what_there_is_to_read_looks_again(
    redis_site: Site, redis_client: Any
) -> None:
    process, notes = redis_site.process(), Notes()
    process.consume(notes, starts=False)
    # It knows that something is new, and what that is it cannot be told.
    redis_client.execute_command("ACL", "SETUSER", "default", "-smembers")
    try:
        process.broker.start()
        wait_until(lambda: any(call.failed for call in process.calls.of("fetch")))
    finally:
        redis_client.execute_command("ACL", "SETUSER", "default", "+smembers")

    process.send(1)

    wait_until(lambda: notes.numbers == [1])


def test_nothing_is_kept_of_a_type_that_nobody_consumes(
    redis_site: Site, redis_client: Any
) -> None:
    process = set_up(redis_site, Notes(), CONSUMER)

    for options in ({}, {"delay": 60.0}):
        with pytest.raises(NoConsumerError):
            process.send(1, type="nobody.listens", **options)

    assert not redis_client.keys("*nobody*")


def test_every_key_is_in_one_slot_of_a_cluster(
    redis_site: Site, redis_client: Any
) -> None:
    def fail(message: Message[Any]) -> None:
        raise ValueError

    process = redis_site.process()
    process.consume(fail)
    process.send(1)
    process.send(2, delay=60.0)
    wait_until(process.broker.dead_letters)

    keys = redis_client.keys("*")

    assert len(keys) >= 8
    assert {key[: len(b"{gomq}:")] for key in keys} == {b"{gomq}:"}


def test_groups_that_are_lost_are_made_again_and_read_from_the_start(
    redis_site: Site, redis_client: Any
) -> None:
    process, notes = redis_site.process(), Notes()
    process.consume(notes)
    process.send(1)
    wait_until(lambda: notes.numbers == [1])

    redis_client.flushall()

    wait_until(lambda: redis_client.exists(STREAM))
    process.send(2)
    wait_until(lambda: notes.numbers == [1, 2])


def test_a_group_that_somebody_destroyed_is_made_again(
    redis_site: Site, redis_client: Any
) -> None:
    process, notes = redis_site.process(), Notes()
    process.consume(notes)
    process.send(1)
    wait_until(lambda: process.stats().succeeded == 1)

    redis_client.xgroup_destroy(STREAM, CONSUMER)
    process.send(2)

    wait_until(lambda: 2 in notes.numbers)


def test_a_consumer_that_was_removed_is_not_made_again_by_its_reader(
    redis_site: Site, redis_client: Any
) -> None:
    process, other = redis_site.process(), set_up(redis_site, Notes(), OLD)
    process.consume(Notes())
    process.send(1)
    wait_until(lambda: process.stats().succeeded == 1)

    assert other.broker.backend.remove(CONSUMER, discard=True) == 0

    before = process.calls.done("fetch")
    wait_until(lambda: process.calls.done("fetch") > before + 10)
    assert [group["name"] for group in redis_client.xinfo_groups(STREAM)] == [
        OLD.encode()
    ]
    assert CONSUMER not in other.broker.backend.stats().consumers


def test_what_waits_for_a_removed_consumer_becomes_dead_letters(
    redis_site: Site, redis_client: Any
) -> None:
    one = set_up(redis_site, Notes(), OLD)
    one.send(1, 2)
    holder, gate = redis_site.process(), redis_site.gate()
    holder.consume(gate, name=OLD, capacity=1)
    wait_until(lambda: gate.entered)

    assert one.broker.backend.remove(OLD, discard=False) == 2

    letters = one.broker.dead_letters()
    assert [letter.message.data for letter in letters] == [1, 2]
    assert "removed" in letters[0].error
    assert not redis_client.exists(STREAM)
    with pytest.raises(NoConsumerError):
        one.send(3)


def test_what_waits_for_a_removed_consumer_may_be_discarded(redis_site: Site) -> None:
    one = set_up(redis_site, Notes(), OLD)
    one.send(1)

    assert one.broker.backend.remove(OLD, discard=True) == 1

    assert one.broker.dead_letters() == []


def test_a_consumer_that_nobody_set_up_is_named(redis_site: Site) -> None:
    backend = set_up(redis_site, Notes(), OLD).broker.backend

    with pytest.raises(ConfigurationError, match=f"no consumer 'nobody'.*{OLD}"):
        backend.remove("nobody", discard=True)
    with pytest.raises(ConfigurationError, match="no consumer 'nobody'"):
        backend.replay_history("nobody", HistoryFilter(), dry_run=False)


def test_what_waits_for_a_consumer_follows_it_to_its_new_name(
    redis_site: Site,
) -> None:
    def fail_first(message: Message[Any]) -> None:
        if message.data == 0:
            raise ValueError

    one = set_up(redis_site, Notes(fail_first), OLD)
    one.send(0)
    one.broker.start()
    wait_until(one.broker.dead_letters)
    one.close()
    web = redis_site.process(may_start=lambda: False)
    web.send(1, 2)
    web.send(3, delay=0.1)
    two, notes = redis_site.process(), Notes()

    two.broker.consume([EVENT], notes, name=NEW, aliases=["suite.older", OLD])
    said = two.broker.setup()
    two.broker.start()

    assert "renamed from suite.old" in said[0]
    wait_until(lambda: sorted(notes.numbers) == [1, 2, 3])
    (letter,) = two.broker.dead_letters()
    assert two.broker.replay([letter.id]) == 1
    wait_until(lambda: 0 in notes.numbers)
    assert OLD not in two.broker.backend.stats().consumers
    assert "renamed" not in two.broker.setup()[0]


def test_replayed_events_keep_their_id_and_say_that_they_are(redis_site: Site) -> None:
    seen: list[tuple[str, str | None]] = []

    def note(message: Message[Any]) -> None:
        seen.append((message.id, message.headers.get(REPLAYED)))

    process = redis_site.process()
    process.consume(note)
    process.send(1, 2)
    wait_until(lambda: process.stats().succeeded == 2)
    replay = process.broker.backend.replay_history

    assert replay(CONSUMER, HistoryFilter(until=0.0), dry_run=False) == 0
    assert replay(CONSUMER, HistoryFilter(), dry_run=True) == 2
    assert replay(CONSUMER, HistoryFilter(since=0.0), dry_run=False) == 2

    wait_until(lambda: len(seen) == 4)
    assert [each[0] for each in seen[:2]] == [each[0] for each in seen[2:]]
    assert [each[1] for each in seen] == [None, None, "true", "true"]


def test_what_waits_anyway_is_not_replayed(redis_site: Site) -> None:
    process, gate = redis_site.process(), redis_site.gate()
    process.consume(gate, capacity=1)
    process.send(1, 2)
    wait_until(lambda: gate.entered)

    replay = process.broker.backend.replay_history

    assert replay(CONSUMER, HistoryFilter(), dry_run=False) == 0


def test_only_what_nobody_needs_is_trimmed(redis_site: Site, redis_client: Any) -> None:
    process, gate = redis_site.process(), redis_site.gate(9)
    process.consume(gate, concurrency=2)
    behind = set_up(redis_site, Notes(), OLD)
    process.send_many(range(10))
    wait_until(lambda: 9 in [number for number, _ in gate.entered])
    process.send_many(range(10, 20))  # beside one that is pending
    wait_until(lambda: process.stats().succeeded == 19)
    backend = backend_of(process)

    assert backend.prune(0.0) == 0  # nobody has read it for the other consumer
    behind.broker.backend.remove(OLD, discard=True)

    assert backend.prune(3600.0) == 0  # younger
    assert backend.prune(0.0) == 9
    (waiting,) = redis_client.xpending_range(STREAM, CONSUMER, "-", "+", 10)
    assert redis_client.xrange(STREAM)[0][0] == waiting["message_id"]
    gate.open()
    wait_until(lambda: process.stats().succeeded == 20)


def test_what_somebody_trims_away_unread_is_told(
    redis_site: Site, redis_client: Any
) -> None:
    process = set_up(redis_site, Notes(), CONSUMER)
    process.send_many(range(10))
    redis_client.xtrim(STREAM, maxlen=3, approximate=False)
    told: list[BaseException] = []
    backend = backend_of(process)
    backend._context.inbox.report = told.append  # type: ignore[method-assign, assignment]

    backend.stats()
    backend.stats()

    assert ["7 entries were trimmed" in str(error) for error in told] == [True]


def test_the_name_of_a_dead_process_goes_when_it_holds_nothing(
    redis_site: Site, redis_client: Any
) -> None:
    victim, gate = redis_site.process(), redis_site.gate()
    victim.consume(gate)
    victim.send(1)
    wait_until(lambda: gate.entered)
    (name,) = (each["name"] for each in redis_client.xinfo_consumers(STREAM, CONSUMER))
    victim.cut()
    redis_client.zadd("{gomq}:workers", {name: 1.0})
    living, notes = redis_site.process(), Notes()
    backend = backend_of(living)

    def names() -> set[bytes]:
        consumers = redis_client.xinfo_consumers(STREAM, CONSUMER)
        return {each["name"] for each in consumers}

    def look() -> None:
        with backend._connections.borrow() as connection:
            upkeep.forget_dead(connection, backend._keys, LEASE)

    look()
    assert name in names()  # it would take its message along
    make_older(redis_client, STREAM.encode(), CONSUMER.encode(), 2 * LEASE)
    living.consume(notes)
    wait_until(lambda: living.stats().succeeded == 1)
    look()

    assert name not in names()
    assert notes.numbers == [1]


def test_a_process_takes_its_name_along_at_a_stop(
    redis_site: Site, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.bus.runtime.STOP_SECONDS", LONG)
    process = redis_site.process()
    process.consume(Notes())
    process.send(1)
    wait_until(lambda: process.stats().succeeded == 1)

    process.close()

    assert redis_client.xinfo_consumers(STREAM, CONSUMER) == []
    assert redis_client.zrange("{gomq}:workers", 0, -1) == []


def test_what_came_as_nobody_read_any_more_goes_to_others_at_a_stop(
    redis_site: Site, redis_client: Any
) -> None:
    one, notes = redis_site.process(), Notes()
    one.consume(notes)
    one.send(1)
    wait_until(lambda: one.stats().succeeded == 1)
    (known,) = redis_client.xinfo_consumers(STREAM, CONSUMER)
    held_up, closing = threading.Event(), threading.Event()

    def hold_up(name: str, given: Any) -> None:
        if name in ("fetch", "wait"):
            held_up.set()
            closing.wait(LONG)

    one.calls.before = hold_up
    assert held_up.wait(LONG)
    redis_site.process(may_start=lambda: False).send(2)
    # Into the read that is under way, or one more.
    redis_client.xreadgroup(CONSUMER, known["name"], {STREAM: ">"})
    wait_until(lambda: redis_client.xpending(STREAM, CONSUMER)["pending"] == 1)

    backend_of(one).close(LONG)
    closing.set()

    two = redis_site.process()
    two.consume(notes)
    wait_until(lambda: notes.numbers == [1, 2])
    assert notes.handled == [(1, 1), (2, 1)]


def test_a_process_holds_no_more_than_there_is_room_for(
    redis_site: Site, redis_client: Any
) -> None:
    process, gate = redis_site.process(), redis_site.gate()
    types = [f"suite.t{number}" for number in range(3)]
    process.consume(gate, *types, capacity=2, starts=False)
    for event_type in types:
        process.send(*range(5), type=event_type)

    process.broker.start()

    def held_here() -> int:
        stats = process.stats()
        return stats.depth + stats.in_flight

    wait_until(lambda: held_here() == 2)
    fetches = process.calls.done("fetch")
    wait_until(lambda: process.calls.done("fetch") > fetches + 1)
    held = [redis_client.xpending(f"{{gomq}}:e:{each}", CONSUMER) for each in types]
    assert sum(each["pending"] for each in held) == 2
    gate.open()
    wait_until(lambda: process.stats().succeeded == 15)


def test_what_waits_is_counted_by_where_it_is(redis_site: Site) -> None:
    def fail(message: Message[Any]) -> None:
        if message.data == 0:
            raise ValueError
        gate.handle(message)

    process, gate = redis_site.process(), redis_site.gate()
    process.consume(fail, capacity=1)
    process.send(0)
    wait_until(process.broker.dead_letters)
    process.send(1, 2, 3)
    process.send(4, delay=600.0)
    wait_until(lambda: gate.entered)

    found = process.broker.backend.stats().consumers[CONSUMER]

    counts = (found.ready, found.held, found.scheduled, found.dead, found.workers)
    assert counts == (2, 1, 1, 1, 1)
    assert found.oldest_age is not None
    assert found.oldest_age < 60


@pytest.mark.parametrize(
    ("policy", "is_safe"), [("allkeys-lru", 0), ("volatile-lru", 1)]
)
def test_a_server_that_would_evict_messages_is_refused(
    redis_site: Site, redis_client: Any, policy: str, is_safe: int
) -> None:
    process = set_up(redis_site, Notes(), CONSUMER)
    assert process.broker.check_server() == []
    redis_client.config_set("maxmemory-policy", policy)
    try:
        if is_safe:
            assert process.broker.check_server() == []
            return
        (problem,) = process.broker.check_server()
        assert "noeviction" in problem
        with pytest.raises(ConfigurationError, match="maxmemory-policy"):
            process.broker.setup()
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")


def test_a_server_that_keeps_no_log_is_told(
    redis_site: Site, redis_client: Any
) -> None:
    process = set_up(redis_site, Notes(), CONSUMER)
    assert len(process.broker.setup()) == 1
    redis_client.config_set("appendonly", "no")
    try:
        assert "appendonly" in process.broker.setup()[-1]
    finally:
        redis_client.config_set("appendonly", "yes")
        wait_until(
            lambda: not redis_client.info("persistence")["aof_rewrite_in_progress"]
        )


def test_the_rights_that_the_docs_name_are_enough(
    redis_site: Site, redis_client: Any
) -> None:
    def fail(message: Message[Any]) -> None:
        if message.attempt < 3:
            raise ValueError

    page = Path(__file__).parents[2] / "docs" / "backends.md"
    (connection,) = re.findall(r"^ACL SETUSER .*$", page.read_text(), re.MULTILINE)
    redis_client.execute_command(*connection.split())
    harness = redis_site.harness
    assert isinstance(harness, RedisHarness)
    harness.options["url"] = harness.options["url"].replace("//", "//gomq:secret@")
    try:
        process = redis_site.process()
        again = Retry(attempts=2, min_delay=0.01, max_delay=0.01)
        process.consume(fail, "suite.*", retry=again)
        process.send(1, 2, delay=0.01)
        wait_until(lambda: len(process.broker.dead_letters()) == 2)
        backend = backend_of(process)
        backend._upkeep_at = 0.0
        first, second = process.broker.dead_letters()

        assert process.broker.check_server() == []
        assert process.broker.replay([first.id]) == 1
        assert process.broker.discard([second.id]) == 1
        assert backend.replay_history(CONSUMER, HistoryFilter(), dry_run=False) >= 1
        wait_until(process.broker.dead_letters)
        set_up(redis_site, Notes(), NEW, aliases=[CONSUMER])
        assert backend.remove(NEW, discard=False) >= 0
        assert not [call for call in process.calls.of("fetch") if call.failed]
        process.close()
    finally:
        redis_client.acl_deluser("gomq")


def test_a_consumer_that_is_not_set_up_is_a_problem(redis_site: Site) -> None:
    process = redis_site.process(may_start=lambda: False)
    process.broker.consume([EVENT], print, name=CONSUMER)

    assert process.broker.check_server() == [
        f"Not set up: {CONSUMER}. Run manage.py gomq setup."
    ]


def test_a_type_that_a_consumer_drops_is_kept_while_some_of_it_is_left(
    redis_site: Site, redis_client: Any
) -> None:
    old = redis_site.process(may_start=lambda: False)
    old.broker.consume([EVENT, "suite.more"], Notes(), name=CONSUMER)
    old.broker.setup()
    old.send(1, type="suite.more")

    new = set_up(redis_site, Notes(), CONSUMER)

    said = new.broker.setup()
    assert "suite.more" in said[1]
    old.broker.start()
    wait_until(lambda: old.stats().succeeded == 1)
    old.close()
    assert len(new.broker.setup()) == 1
    assert not redis_client.exists("{gomq}:e:suite.more")
