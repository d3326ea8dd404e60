"""Random lives of deliveries behind a gate, against the one promise that it makes."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from django_gomq.bus.channels.channel import Channel
from django_gomq.bus.channels.key_order import KeyOrder
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.message import Message
from tests.bus.machines import for_long


class Gate(RuleBasedStateMachine):
    """Whatever happens, one of a key is out at a time, and they go in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.channel: Channel[Delivery] = Channel(10_000)
        self.gate = KeyOrder(self.channel)
        self.left: list[Delivery] = []  # not settled yet, in the order they came
        self.out: list[Delivery] = []
        self.retrying: list[Delivery] = []

    @rule(key=st.sampled_from(["a", "b", "c", None]))
    def arrive(self, key: str | None) -> None:
        delivery = Delivery(Message("a.b", key=key), 0)
        self.channel.put(delivery)
        self.left.append(delivery)

    @rule(most=st.integers(1, 4))
    def take(self, most: int) -> None:
        self.out += self.gate.take(most)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        delivery = data.draw(st.sampled_from(self.out))
        self.out.remove(delivery)
        self.left.remove(delivery)
        self.gate.finish(delivery)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        delivery = data.draw(st.sampled_from(self.out))
        self.out.remove(delivery)
        self.retrying.append(delivery)

    @precondition(lambda self: self.retrying)
    @rule()
    def come_back(self) -> None:
        self.gate.admit_again(self.retrying.pop())

    @rule()
    def put_back(self) -> None:
        self.gate.put_back(self.out)
        self.out = []

    @rule(key=st.sampled_from(["a", "b", "c", None]))
    def take_away(self, key: str | None) -> None:
        for delivery in self.gate.take_where(lambda one: one.message.key == key):
            self.left.remove(delivery)

    @invariant()
    def only_the_oldest_of_a_key_is_out(self) -> None:
        for delivery in self.out:
            key = delivery.message.key
            if key is not None:
                assert (
                    next(one for one in self.left if one.message.key == key) is delivery
                )

    def teardown(self) -> None:
        for delivery in self.retrying:
            self.gate.admit_again(delivery)
        while self.out or self.left:
            assert self.out or self.gate or self.channel, "somebody waits for nobody"
            self.out += self.gate.take(100)
            for delivery in self.out:
                self.left.remove(delivery)
                self.gate.finish(delivery)
            self.out = []


TestGate = Gate.TestCase
TestGate.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestGateForLong = for_long(Gate)
