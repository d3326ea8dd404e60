"""Consumers, their registry and their manager."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.consumer import Consumer, make_consumer
from django_gomq.bus.delivery import DropReason
from django_gomq.bus.errors import BrokerClosedError, ConfigurationError
from django_gomq.bus.event import Event
from django_gomq.bus.manager import ConsumerManager
from django_gomq.bus.message import Message, decode_plain
from django_gomq.bus.registry import Registry, label_of_module
from tests.bus.waiting import LONG, wait_until


class Saved(Event, type="a.saved"):
    number: int


def handle(message: Message[Any]) -> None: ...


async def ahandle(message: Message[Any]) -> None: ...


def make(
    *types: Any, handler: Any = handle, name: Any = "c", **options: Any
) -> Consumer:
    return make_consumer(types or ("a.b",), handler, name=name, options=options)


class Sync:
    def handle(self, message: Message[Any]) -> None: ...


class Async:
    async def __call__(self, message: Message[Any]) -> None: ...


class Demanding(Sync):
    def __init__(self, what: str) -> None: ...


@pytest.mark.parametrize(
    ("handler", "is_async"),
    [
        (handle, False),
        (ahandle, True),
        (functools.partial(ahandle), True),
        (Sync, False),
        (Sync(), False),
        (Async(), True),
        (Sync().handle, False),
        (print, False),
    ],
    ids=[
        "function",
        "async function",
        "async partial",
        "class",
        "object",
        "async call",
        "method",
        "builtin",
    ],
)
def test_functions_methods_classes_and_objects_can_handle(
    handler: Any, is_async: object
) -> None:
    consumer = make(handler=handler)

    assert callable(consumer.handler)
    assert consumer.is_async is is_async


@pytest.mark.parametrize(
    ("handler", "problem"),
    [(7, "no function"), (int, "no handle"), (Demanding, "without arguments")],
)
def test_what_cannot_handle_is_refused(handler: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        make(handler=handler)
    assert caught.value.consumer == "c"


def test_an_event_class_brings_typed_data_and_a_text_plain() -> None:
    consumer = make(Saved, "a.*", "a.saved")

    assert consumer.types == ("a.saved", "a.*")
    message = Message[Any]("a.saved", b'{"number": 1}')
    assert consumer.decode("a.saved")(message) == Saved(number=1)
    assert consumer.decode("a.other") is decode_plain


def test_a_consumer_knows_what_it_subscribes_to() -> None:
    consumer = make("a.*", "b.c")

    found = [consumer.subscribes_to(one) for one in ("a.x", "b.c", "b.d")]
    assert found == [True, True, False]


def test_an_event_class_without_a_type_cannot_be_subscribed_to() -> None:
    with pytest.raises(ConfigurationError, match="names no type"):
        make(Event)


WRONG: list[dict[str, Any]] = [
    {"name": ""},
    {"name": "a b"},
    {"name": "x" * 201},
    {"name": 7},
    {"concurrency": 0},
    {"concurrency": None},
    {"concurrency": 10**9},
    {"capacity": 10**9},
    {"batch": 10**9},
    {"timeout": 1e12},
    {"capacity": None},
    {"capacity": True},
    {"capacity": 1.5},
    {"batch": 0},
    {"timeout": 0},
    {"timeout": "1"},
    {"timeout": float("inf")},
    {"max_age": -1},
    {"max_age": float("nan")},
    {"max_age": float("inf")},
    {"linger": -1, "batch": 2},
    {"linger": 1},
    {"linger": None, "batch": 2},
    {"overflow": "block"},
    {"retry": 5},
    {"ordered_by_key": True, "batch": 5},
    {"atomic": True, "handler": ahandle},
    {"batch": 5, "handler": ahandle},
    {"speed": 9},
]


@pytest.mark.parametrize("options", WRONG)
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="Consumer"):
        make(**options)


def test_a_consumer_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no event type"):
        Consumer(name="c", types=(), handler=handle)
    with pytest.raises(ConfigurationError, match="cannot be called"):
        Consumer(name="c", types=("a.b",), handler=None)  # type: ignore[arg-type]


def test_options_can_be_changed_at_deploy_time() -> None:
    changed = make().with_options({"concurrency": 4})

    assert changed.concurrency == 4
    with pytest.raises(ConfigurationError, match="unknown option"):
        make().with_options({"handler": print})


def test_only_reasons_that_can_come_true_are_drop_reasons() -> None:
    full, old = DropReason.CHANNEL_FULL, DropReason.EVICTED
    end, late = DropReason.SHUTDOWN, DropReason.EXPIRED

    assert make().drop_reasons == (full, end)
    assert make(overflow="drop_oldest").drop_reasons == (full, old, end)
    assert make(overflow="backpressure", max_age=1).drop_reasons == (late, end)


# ------------------------------------------------------------------------ registry


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_the_decorator_returns_the_function_unchanged(registry: Registry) -> None:
    decorated = registry.consumer("a.b", name="c")(handle)

    assert decorated is handle
    (found,) = registry.consumers()
    assert (found.name, found.handler) == ("c", handle)


def test_a_name_defaults_to_label_and_function(registry: Registry) -> None:
    registry.label_of = lambda module: "shop"

    registry.consumer("a.b")(handle)

    assert [one.name for one in registry.consumers()] == ["shop.handle"]


def test_a_label_is_the_package_of_the_module() -> None:
    assert label_of_module("site.shop.consumers") == "shop"
    assert label_of_module("consumers") == "consumers"


def test_a_name_can_be_taken_once(registry: Registry) -> None:
    registry.consumer("a.b", name="c")(handle)

    with pytest.raises(ConfigurationError, match="Two consumers are named 'c'"):
        registry.consumer("a.b", name="c")(ahandle)
    with pytest.raises(ConfigurationError, match="Two consumers"):
        registry.register(make())


def test_deploy_time_options_reach_the_consumer_they_name(registry: Registry) -> None:
    registry.register(make(name="one"))
    registry.register(make(name="two"))

    one, two = registry.consumers({"one": {"capacity": 5}})

    assert (one.capacity, two.capacity) == (5, 1000)


def test_deploy_time_options_for_nobody_are_refused(registry: Registry) -> None:
    with pytest.raises(
        ConfigurationError, match="names 'x': there is no such consumer; there are none"
    ):
        registry.consumers({"x": {}})


def test_a_test_may_have_the_registry_for_itself(registry: Registry) -> None:
    registry.register(make(name="one"))

    with registry.isolated() as inner:
        inner.register(make(name="two"))
        assert [one.name for one in inner.consumers()] == ["two"]

    assert [one.name for one in registry.consumers()] == ["one"]


# ------------------------------------------------------------------------- manager


class Member:
    """A consumer object that notes its life."""

    def __init__(self, name: str, log: list[str], *, fails_at: str = "") -> None:
        self.name, self.types, self._log, self._fails_at = name, ["a.b"], log, fails_at

    def _note(self, what: str) -> None:
        self._log.append(f"{what} {self.name}")
        if what == self._fails_at:
            raise OSError(f"{self.name} cannot {what}")

    def start(self) -> None:
        self._note("start")

    def stop(self) -> None:
        self._note("stop")

    def handle(self, message: Message[Any]) -> None:
        self._note("handle")


def test_a_manager_runs_its_consumers_from_start_to_stop(broker: Broker) -> None:
    log: list[str] = []
    manager = ConsumerManager(broker)
    manager.register(Member("one", log))
    manager.register(make(handler=lambda _: log.append("handle c")))

    manager.start_all()
    broker.publish(Message("a.b"))
    wait_until(lambda: len(log) == 3)
    remainder = manager.stop(timeout=LONG)

    assert (log[0], log[-1]) == ("start one", "stop one")
    assert set(log[1:-1]) == {"handle one", "handle c"}
    assert remainder.is_clean


def test_the_first_error_is_raised_and_who_had_started_is_stopped(
    broker: Broker,
) -> None:
    log: list[str] = []
    manager = ConsumerManager(broker)
    for member in (
        Member("one", log),
        Member("two", log, fails_at="stop"),
        Member("three", log, fails_at="start"),
        Member("four", log),
    ):
        manager.register(member)

    with pytest.raises(OSError, match="three cannot start"):
        manager.start_all()

    assert log == ["start one", "start two", "start three", "stop two", "stop one"]
    assert not broker.is_started


def test_a_broker_that_cannot_start_stops_all(broker: Broker) -> None:
    log: list[str] = []
    broker.close()
    manager = ConsumerManager(broker)
    manager.register(Member("one", log))

    with pytest.raises(BrokerClosedError):
        manager.start_all()

    assert log == ["start one", "stop one"]


def test_a_manager_takes_consumers_only_and_each_name_once(broker: Broker) -> None:
    manager = ConsumerManager(broker)
    manager.register(make())

    with pytest.raises(ConfigurationError, match="Two consumers"):
        manager.register(make())
    with pytest.raises(ConfigurationError, match="is no consumer"):
        manager.register(handle)  # type: ignore[arg-type]
