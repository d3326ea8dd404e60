from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.channels.subscription import Subscription
from django_gomq.bus.errors import MessageError
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.bus.stats import ConsumerStats, Remainder
from tests.bus.fake_partition import PartitionBackend
from tests.bus.fake_partition_log import Log
from tests.bus.waiting import wait_until, wait_until_settled


class Member:
    """One process of a site: a broker with a backend of its own."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.backend = PartitionBackend(log)
        self.broker = Broker(lambda: self.backend)

    def consume(self, handler: Any, **options: Any) -> None:
        self.broker.consume("a.*", handler, name="c", **options)
        self.broker.start()

    def commits(self) -> list[tuple[str, str, int, int]]:
        return [one for one in self.log.commits if one[0] == self.backend.member]

    @property
    def subscription(self) -> Subscription:
        return self.broker._current_runtime().subscription("c")

    @property
    def held(self) -> int:
        return self.subscription.channel.held

    @property
    def stats(self) -> ConsumerStats:
        return self.broker.stats().consumers["c"]

    @property
    def lost(self) -> Counter[str]:
        return self.subscription.counts.lost_leases


class Gates:
    """A handler that holds what it is told to hold."""

    def __init__(self, *held: int) -> None:
        self._gates = {number: threading.Event() for number in held}
        self.entered: list[tuple[int, int]] = []
        self.handled: list[tuple[int, int]] = []

    def handle(self, message: Message[Any]) -> None:
        this = message.data, message.attempt
        self.entered.append(this)
        if message.data in self._gates:
            self._gates[message.data].wait(20)
        self.handled.append(this)

    def open(self, *numbers: int) -> None:
        for number in numbers or self._gates:
            self._gates[number].set()

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.handled]


MakeMember = Callable[..., Member]


@pytest.fixture
def start() -> Iterator[MakeMember]:
    members: list[Member] = []

    def make(log: Log) -> Member:
        member = Member(log)
        members.append(member)
        return member

    yield make
    for member in members:
        member.broker.close(timeout=0)


@pytest.fixture
def one_partition() -> Log:
    return Log(partitions=1)


@pytest.fixture
def hold() -> Iterator[Callable[..., Gates]]:
    made: list[Gates] = []

    def make(*held: int) -> Gates:
        made.append(Gates(*held))
        return made[-1]

    yield make
    for gates in made:
        gates.open()


Hold = Callable[..., Gates]


def send(member: Member, *numbers: int, **options: Any) -> None:
    for number in numbers:
        member.broker.publish(Message("a.b", b"%d" % number, **options))


def is_committed(log: Log) -> bool:
    """Whether all is finished and the log knows."""
    return all(
        log.committed("c", number) == len(messages)
        for number, messages in enumerate(log.partitions)
    )


# ------------------------------------------------------------ who gets what


def test_two_members_share_the_partitions_of_a_consumer(start: MakeMember) -> None:
    log = Log(partitions=4)
    one, two = start(log), start(log)
    first, second = Gates(), Gates()
    one.consume(first)
    two.consume(second)
    wait_until(lambda: len(one.backend._assigned[one.subscription]) == 2)
    wait_until(lambda: len(two.backend._assigned[two.subscription]) == 2)

    for number in range(200):
        send(one, number, key=str(number))

    wait_until(lambda: is_committed(log))
    wait_until_settled(one.broker)
    wait_until_settled(two.broker)
    assert sorted(first.numbers + second.numbers) == list(range(200))
    assert first.numbers
    assert second.numbers
    assert one.stats.succeeded == len(first.numbers)


def test_each_consumer_has_offsets_of_its_own(start: MakeMember) -> None:
    log = Log(partitions=2)
    member, mine, others = start(log), Gates(), Gates()
    member.broker.consume("a.b", mine, name="c")
    member.broker.consume("a.*", others, name="d")

    send(member, *range(40))

    wait_until(lambda: is_committed(log))
    wait_until(lambda: log.committed("d", 1) == len(log.partitions[1]))
    wait_until_settled(member.broker)
    assert sorted(mine.numbers) == sorted(others.numbers) == list(range(40))


def test_types_that_nobody_here_consumes_are_passed_over(
    start: MakeMember, one_partition: Log
) -> None:
    member, gates = start(one_partition), Gates()
    member.consume(gates)
    send(member, 1)
    member.broker.publish(Message("b.c"))
    send(member, 2)

    wait_until(lambda: is_committed(one_partition))

    assert gates.numbers == [1, 2]
    assert member.stats.dispatched == {"a.b": 2}


def test_a_member_never_fetches_more_than_its_channel_holds(
    start: MakeMember, one_partition: Log, hold: Hold
) -> None:
    member, gates = start(one_partition), hold(0)
    seen: list[int] = []
    read = one_partition.read

    def watch(partition: int, offset: int, most: int) -> Any:
        found = read(partition, offset, most)
        seen.append(member.held + len(found))
        return found

    one_partition.read = watch  # type: ignore[method-assign]
    member.consume(gates, capacity=3)
    send(member, *range(20))
    wait_until(lambda: member.held == 3)
    gates.open()

    wait_until(lambda: is_committed(one_partition))
    assert max(seen) <= 3


def test_what_a_shrunk_channel_cannot_hold_is_fetched_again(
    start: MakeMember, one_partition: Log, hold: Hold
) -> None:
    member, gates = start(one_partition), hold(0)
    read = one_partition.read

    def shrink_meanwhile(partition: int, offset: int, most: int) -> Any:
        member.broker.resize("c", 2)
        return read(partition, offset, most)

    one_partition.read = shrink_meanwhile  # type: ignore[method-assign]
    member.broker.consume("a.*", gates, name="c", capacity=10)
    member.broker.pause("c")
    send(member, *range(10))
    member.broker.resume("c")
    wait_until(lambda: member.held == 2)

    gates.open()

    wait_until(lambda: is_committed(one_partition))
    assert gates.numbers == list(range(10))


def test_a_delay_is_refused_before_anything_is_published(start: MakeMember) -> None:
    member = start(Log())
    member.consume(print)

    with pytest.raises(MessageError):
        member.broker.publish_many([Message("a.b"), Message("a.b", delay=1)])

    assert not any(member.log.partitions)


# ------------------------------------------------------------ offsets


def test_the_committed_offset_never_passes_an_unfinished_message(
    start: MakeMember, one_partition: Log, hold: Hold
) -> None:
    member, gates = start(one_partition), hold(0, 3)
    member.consume(gates, concurrency=4)
    send(member, *range(6))
    wait_until(lambda: sorted(gates.numbers) == [1, 2, 4, 5])
    wait_until(lambda: member.stats.succeeded == 4)
    assert one_partition.committed("c", 0) == 0

    gates.open(0)
    wait_until(lambda: one_partition.committed("c", 0) == 3)
    gates.open(3)
    wait_until(lambda: one_partition.committed("c", 0) == 6)

    offsets = [offset for *_, offset in one_partition.commits]
    assert offsets == [3, 6]


def test_a_retry_holds_the_offset_back(start: MakeMember, one_partition: Log) -> None:
    member = start(one_partition)

    def fail_first(message: Message[Any]) -> None:
        if message.data == 0:
            raise ValueError

    retry = Retry(attempts=2, min_delay=60, jitter=False)
    member.consume(fail_first, retry=retry)
    send(member, *range(3))

    wait_until(lambda: member.stats.succeeded == 2)

    assert (member.stats.scheduled, member.held) == (1, 1)
    assert one_partition.committed("c", 0) == 0


def test_a_handler_that_raises_is_tried_again_and_given_up_in_the_log(
    start: MakeMember, one_partition: Log
) -> None:
    member = start(one_partition)
    attempts: list[int] = []

    def fail(message: Message[Any]) -> None:
        # The dead letter is written before the offset is committed.
        assert not one_partition.dead
        attempts.append(message.attempt)
        raise ValueError(message.attempt)

    member.consume(fail, retry=Retry(attempts=3, min_delay=0, max_delay=0))
    send(member, 1)

    wait_until(lambda: is_committed(one_partition))
    wait_until_settled(member.broker)
    (letter,) = member.broker.dead_letters()
    assert attempts == [1, 2, 3]
    assert (letter.attempt, letter.error) == (3, "ValueError: 3")
    stats = member.stats
    assert (stats.retries, stats.dead_lettered, stats.handed_back) == (2, 1, 0)
    assert member.held == 0


def test_the_next_member_goes_on_from_the_committed_offset(
    start: MakeMember, one_partition: Log, hold: Hold
) -> None:
    one, two = start(one_partition), start(one_partition)
    first, second = hold(2), Gates()
    one.consume(first)
    send(one, 0, 1)
    wait_until(lambda: one_partition.committed("c", 0) == 2)
    send(one, 2, 3, 4, 5)
    wait_until(lambda: len(first.entered) == 3)

    remainder = one.broker.close(timeout=0.01)
    two.consume(second)

    wait_until(lambda: is_committed(one_partition))
    assert second.handled == [(number, 1) for number in range(2, 6)]
    assert (remainder.dropped, remainder.in_flight) == ({}, 1)
    assert (one.stats.handed_back, one.stats.depth) == (3, 0)


def test_a_close_commits_what_it_drained(
    start: MakeMember, one_partition: Log, hold: Hold
) -> None:
    member, gates = start(one_partition), hold(0)
    member.consume(gates)
    send(member, *range(50))
    wait_until(lambda: member.held == 50)
    remainders: list[Remainder] = []
    closing = threading.Thread(target=lambda: remainders.append(member.broker.close()))
    closing.start()
    wait_until(lambda: member.broker.is_closed)

    gates.open()
    closing.join(5)

    assert gates.numbers == list(range(50))
    assert remainders[0].is_clean
    assert one_partition.committed("c", 0) == 50


def test_a_close_waits_for_a_retry_that_is_due_in_time(
    start: MakeMember, one_partition: Log
) -> None:
    member = start(one_partition)
    attempts: list[int] = []

    def flaky(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        if message.attempt < 3:
            raise ValueError

    member.consume(flaky, retry=Retry(min_delay=0.02, max_delay=0.02))
    send(member, 1)
    wait_until(lambda: attempts)

    assert member.broker.close().is_clean
    assert attempts == [1, 2, 3]
    assert is_committed(one_partition)


def test_a_close_leaves_a_retry_that_is_due_too_late_to_the_next_member(
    start: MakeMember, one_partition: Log
) -> None:
    one, two, gates = start(one_partition), start(one_partition), Gates()

    def fail(message: Message[Any]) -> None:
        raise ValueError

    one.consume(fail, retry=Retry(min_delay=60, jitter=False))
    send(one, 1)
    wait_until(lambda: one.stats.scheduled == 1)

    remainder = one.broker.close(timeout=5)
    two.consume(gates)

    wait_until(lambda: gates.numbers == [1])
    assert remainder.is_clean
    assert remainder.seconds < 3
    assert (one.held, one.stats.handed_back) == (0, 1)
    assert one.stats.unaccounted == 0


# ------------------------------------------------------------ revocation


def test_a_revoked_partition_is_left_to_the_other_member(
    start: MakeMember, one_partition: Log, hold: Hold
) -> None:
    one, two = start(one_partition), start(one_partition)
    first, second = hold(2), Gates()
    one.consume(first)
    two.consume(second)
    send(one, 0, 1)
    wait_until(lambda: one_partition.committed("c", 0) == 2)
    send(one, 2, 3, 4, 5)
    wait_until(lambda: len(first.entered) == 3)
    wait_until(lambda: one.held == 4)
    commits = one.commits()

    one_partition.move("c", 0, two.backend.member)

    wait_until(lambda: one.held == 1)  # what waited was taken away
    wait_until(lambda: is_committed(one_partition))
    first.open()
    wait_until_settled(one.broker)
    wait_until_settled(two.broker)
    assert first.numbers == [0, 1, 2]
    assert second.handled == [(number, 1) for number in range(2, 6)]
    assert one.lost == {"a.b": 1}
    assert (one.stats.succeeded, one.stats.handed_back) == (2, 4)
    assert two.stats.succeeded == 4
    assert one.held == two.held == 0
    assert one.commits() == commits  # none after the revocation
    assert one_partition.refused == []


def test_what_a_thread_holds_in_its_hands_is_taken_away_too(
    start: MakeMember, one_partition: Log, hold: Hold
) -> None:
    one, two = start(one_partition), start(one_partition)
    first, second = hold(100), Gates()
    one.consume(first)
    two.consume(second)
    send(one, *range(100))
    wait_until(lambda: len(first.handled) == 100)  # a fast handler
    wait_until_settled(one.broker)
    wait_until(lambda: is_committed(one_partition))
    one.subscription.free_slots.clear()  # no thread takes until all is there
    send(one, *range(100, 150))
    wait_until(lambda: one.held == 50)
    one.subscription.free_slots.append(None)
    one.subscription.notify()
    wait_until(lambda: len(first.entered) == 101)
    assert any(one.subscription.unstarted.values())

    one_partition.move("c", 0, two.backend.member)
    wait_until(lambda: one.held == 1)
    first.open()

    wait_until_settled(one.broker)
    wait_until(lambda: is_committed(one_partition))
    assert len(first.entered) == 101
    assert second.numbers == list(range(100, 150))
    assert one.held == 0


def test_other_partitions_go_on_through_a_revocation(
    start: MakeMember, hold: Hold
) -> None:
    log = Log(partitions=2)
    one, two = start(log), start(log)
    keys = {log.partition_of(Message("a.b", key=key)): key for key in "abcdefgh"}
    first, second = hold(0), Gates()
    one.consume(first)
    two.consume(second)
    for number in (0, 1):
        log.move("c", number, one.backend.member)
    wait_until(lambda: len(one.backend._assigned[one.subscription]) == 2)
    send(one, 0, key=keys[0])
    wait_until(lambda: first.entered)
    send(one, 10, 11, key=keys[0])
    send(one, 20, 21, key=keys[1])
    wait_until(lambda: one.held == 5)

    log.move("c", 0, two.backend.member)
    wait_until(lambda: one.held == 3)
    first.open()

    wait_until(lambda: is_committed(log))
    assert first.numbers == [0, 20, 21]
    assert second.numbers == [0, 10, 11]


def test_a_retry_of_a_revoked_partition_does_not_come_again(
    start: MakeMember, one_partition: Log
) -> None:
    one, two, gates = start(one_partition), start(one_partition), Gates()

    def fail(message: Message[Any]) -> None:
        raise ValueError

    retry = Retry(min_delay=60, jitter=False)
    one.consume(fail, retry=retry, ordered_by_key=True)
    two.consume(gates, ordered_by_key=True)
    send(one, 1, 2, key="k")
    wait_until(lambda: one.stats.scheduled == 1)
    assert one.held == 2

    one_partition.move("c", 0, two.backend.member)

    wait_until(lambda: one.held == 0)
    wait_until(lambda: gates.handled == [(1, 1), (2, 1)])
    assert one.stats.scheduled == 0
    assert one.stats.unaccounted == 0


def test_a_key_is_free_again_when_its_partition_comes_back(
    start: MakeMember, one_partition: Log, hold: Hold
) -> None:
    one, two = start(one_partition), start(one_partition)
    first, second = hold(0), Gates()
    one.consume(first, ordered_by_key=True, concurrency=2)
    two.consume(second, ordered_by_key=True)
    send(one, 0, 1, key="k")
    wait_until(lambda: first.entered)
    wait_until(lambda: one.held == 2)
    one_partition.move("c", 0, two.backend.member)
    wait_until(lambda: is_committed(one_partition))
    wait_until(lambda: one.held == 1)

    one_partition.move("c", 0, one.backend.member)
    send(one, 2, 3, key="k")
    wait_until(lambda: one.held == 3)

    # The first is in work still, and no other of its key may start.
    assert first.entered == [(0, 1)]
    first.open()
    wait_until(lambda: first.numbers == [0, 2, 3])
    wait_until_settled(one.broker)
    wait_until(lambda: is_committed(one_partition))
    assert one.lost == {"a.b": 1}


# ------------------------------------------------------------ order


def test_messages_of_a_key_keep_their_order_through_retries(start: MakeMember) -> None:
    log = Log(partitions=3)
    one, two = start(log), start(log)
    seen: dict[str, list[int]] = defaultdict(list)
    running: Counter[str] = Counter()

    def handle(message: Message[Any]) -> None:
        key = str(message.key)
        running[key] += 1
        assert running[key] == 1
        running[key] -= 1
        if message.data % 5 == 0 and message.attempt == 1:
            raise ValueError
        seen[key].append(message.data)

    retry = Retry(min_delay=0.001, max_delay=0.001)
    for member in (one, two):
        member.consume(handle, ordered_by_key=True, concurrency=4, retry=retry)
    wait_until(lambda: two.backend._assigned[two.subscription])
    wait_until(lambda: len(one.backend._assigned[one.subscription]) == 2)
    for number in range(120):
        send(one, number, key=f"k{number % 6}")

    wait_until(lambda: is_committed(log))

    assert seen == {f"k{key}": list(range(key, 120, 6)) for key in range(6)}
    assert one.stats.dead_lettered == two.stats.dead_lettered == 0


# ------------------------------------------------------------ kinds of handlers


def test_async_handlers_finish_their_offsets(
    start: MakeMember, one_partition: Log
) -> None:
    member = start(one_partition)
    attempts: Counter[int] = Counter()
    loops: list[asyncio.AbstractEventLoop] = []
    go_on = asyncio.Event()

    async def handle(message: Message[Any]) -> None:
        attempts[message.attempt] += 1
        if message.data == 0:
            loops.append(asyncio.get_running_loop())
            await go_on.wait()
        if message.data % 2 and message.attempt == 1:
            raise ValueError

    retry = Retry(min_delay=0, max_delay=0)
    member.consume(handle, concurrency=8, retry=retry)
    send(member, *range(20))
    wait_until(lambda: member.stats.succeeded == 19)
    assert one_partition.committed("c", 0) == 0

    loops[0].call_soon_threadsafe(go_on.set)

    wait_until(lambda: is_committed(one_partition))
    wait_until_settled(member.broker)
    assert attempts == {1: 20, 2: 10}
    assert member.held == 0


def test_a_bad_member_of_a_batch_holds_its_own_offset_back(
    start: MakeMember, one_partition: Log
) -> None:
    member = start(one_partition)
    batches: list[list[int]] = []

    def handle(messages: list[Message[Any]]) -> None:
        numbers = [one.data for one in messages]
        batches.append(numbers)
        if 3 in numbers:
            raise ValueError

    retry = Retry(attempts=2, min_delay=0.05, max_delay=0.05)
    member.broker.consume(["a.*"], handle, name="c", batch=10, retry=retry)
    member.broker.pause("c")
    send(member, *range(5))

    member.broker.resume("c")
    wait_until(lambda: is_committed(one_partition))

    wait_until_settled(member.broker)
    assert batches[-1] == [3]
    assert [letter.message.data for letter in member.broker.dead_letters()] == [3]
    assert (member.stats.succeeded, member.stats.dead_lettered) == (4, 1)
    # From 3 to 5: the dead letter's offset is finished like any other.
    assert [offset for *_, offset in one_partition.commits][-2:] == [3, 5]
