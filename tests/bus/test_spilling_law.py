"""Random lives of a consumer that spills, against order by key and the law."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from django_gomq.bus.channels.spilling import Spilled, SpillingSubscription
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.delivery import Chunk, Delivery, DropReason
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.process.housekeeping import Housekeeping
from tests.bus.machines import for_long
from tests.bus.spilling import SharedTable, Store

KEYS = st.sampled_from(["a", "b", "c"])
CONSUMER = make_consumer(
    ["a.b"],
    lambda _: None,
    name="c",
    options={"overflow": "spill", "capacity": 3, "ordered_by_key": True},
)


class Life(RuleBasedStateMachine):
    """One process after the other; each spills, and goes on with what was left."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SharedTable()
        self.sent = 0
        self.left: dict[str, list[int]] = {"a": [], "b": [], "c": []}
        self.out: list[Delivery] = []
        self.retrying: list[Delivery] = []
        self.begin()

    def begin(self) -> None:
        self.done = 0
        self.has_looked = False
        self.store = Store(self.table)
        self.subscription = SpillingSubscription(
            "default",
            CONSUMER,
            hooks=Hooks((), Housekeeping()),
            on_spill=lambda: None,
        )
        # Time is a rule here: whoever looks for what others left does so at once.
        self.subscription._adopt_at = -1.0

    @rule(key=KEYS, count=st.integers(1, 4))
    def arrive(self, key: str, count: int) -> None:
        count = self.subscription.reserve(count)
        numbers = range(self.sent, self.sent + count)
        self.sent += count
        self.left[key] += numbers
        if count:
            chunk = Chunk(
                Delivery(Message("a.b", b"%d" % number, key=key), 0.0)
                for number in numbers
            )
            self.subscription.offer_reserved(chunk)

    @rule(most=st.integers(1, 4))
    def take(self, most: int) -> None:
        self.out += self.subscription.take(most)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        delivery = data.draw(st.sampled_from(self.out))
        self.out.remove(delivery)
        self.end(delivery)

    def end(self, delivery: Delivery) -> None:
        assert self.left[str(delivery.message.key)].pop(0) == delivery.message.data
        self.done += 1
        self.subscription.finish([delivery], 1)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        delivery = data.draw(st.sampled_from(self.out))
        self.out.remove(delivery)
        again = Delivery(
            delivery.message, 0.0, delivery.attempt + 1, delivery.token, first_failed=1
        )
        self.subscription.retry(again, 1e6)

    @rule()
    def come_again(self) -> None:
        for delivery in self.subscription.retries.take_all():
            self.subscription._come_again(delivery)

    @rule(is_up=st.sampled_from([True, True, False]))
    def exchange(self, is_up: bool) -> None:
        # A process whose store is away from the start goes on without it.
        self.table.is_up = is_up or not self.has_looked
        self.has_looked = True
        try:
            self.subscription.exchange(self.store)
        except ConnectionError:
            assert not is_up
        self.table.is_up = True

    @rule()
    def stop(self) -> None:
        for delivery in self.out:  # handlers end; nobody starts anything new
            self.end(delivery)
        self.out = []
        self.subscription.abandon(self.subscription.take_all())
        self.subscription.write_all(self.store)
        ours = [owner for owner, _, _ in self.table.rows if owner is self.store]
        assert self.subscription.spilled == len(ours)
        self.store.leave()
        self.subscription.end_spilling()
        self.check()
        self.begin()

    @invariant()
    def only_the_oldest_of_a_key_is_out(self) -> None:
        for delivery in self.out:
            key = str(delivery.message.key)
            assert delivery.message.data == self.left[key][0]

    @invariant()
    def check(self) -> None:
        stats = self.subscription.stats()
        assert not stats.dropped
        # This machine settles by itself: what it has, or is done, is not counted.
        assert stats.unaccounted == self.done

    def teardown(self) -> None:
        while any(self.left.values()):
            before = sum(map(len, self.left.values()))
            self.come_again()
            self.exchange(is_up=True)
            self.out += self.subscription.take(100)
            for delivery in self.out:
                self.end(delivery)
            self.out = []
            left = sum(map(len, self.left.values()))
            assert left < before, "somebody waits for nobody"


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestLifeForLong = for_long(Life)


def test_what_was_stored_keeps_its_place_through_a_stop() -> None:
    life = Life()
    for _ in range(4):
        life.arrive("a", 4)
    life.exchange(is_up=True)
    life.take(1)
    life.stop()

    places = [spilled.place for _, _, spilled in _by_number(life.table)]
    assert places == sorted(places)
    life.teardown()


def _by_number(table: SharedTable) -> list[tuple[object, str, Spilled]]:
    return sorted(table.rows, key=lambda row: row[2].delivery.message.data)


def test_what_comes_after_its_end_is_dropped_and_counted() -> None:
    life = Life()
    life.stop()
    life.subscription.end_spilling()
    chunk = Chunk([Delivery(Message("a.b"), 0.0)])

    life.subscription.miss(chunk, DropReason.SHUTDOWN)

    assert life.subscription.stats().dropped == {("a.b", DropReason.SHUTDOWN): 1}
    assert life.subscription.stats().unaccounted == 0


def test_what_is_taken_out_after_its_end_is_dropped_and_counted() -> None:
    life = Life()
    life.exchange(is_up=True)
    life.arrive("a", 1)
    life.subscription.end_spilling()

    life.subscription.abandon(life.subscription.take_all())

    stats = life.subscription.stats()
    assert stats.dropped == {("a.b", DropReason.SHUTDOWN): 1}
    assert (stats.depth, stats.unaccounted) == (0, 0)


def test_of_two_retries_of_a_key_that_are_not_due_the_second_waits_for_the_first() -> (
    None
):
    life = Life()
    # Two processes have left them, each with one attempt at the same key.
    for place in (1, 2):
        message = Message[int]("a.b", b"%d" % place, key="a")
        delivery = Delivery(message, Clock.monotonic() + 1e6, attempt=2)
        life.table.rows.append((None, "c", Spilled(place, delivery)))

    life.exchange(is_up=True)

    stats = life.subscription.stats()
    assert (stats.scheduled, stats.depth, stats.unaccounted) == (1, 1, 0)
    assert not life.subscription.take(9)
    for first in life.subscription.retries.take_all():
        life.subscription._come_again(first)
        life.subscription.finish(life.subscription.take(9), 1)
    assert [one.message.data for one in life.subscription.take(9)] == [2]
