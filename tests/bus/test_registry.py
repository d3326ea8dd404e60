from __future__ import annotations

import pydoc
import re
from threading import Thread
from typing import Any

import pytest

from django_gomq.bus import registry as module
from django_gomq.bus.consumer import OPTIONS, Consumer
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.registry import Registry, label_of_module


def handle(message: object) -> None:
    pass


def other(message: object) -> None:
    pass


def make(name: str, handler: Any = handle) -> Consumer:
    return Consumer(name=name, types=("a.b",), handler=handler)


def names(registry: Registry) -> list[str]:
    return [one.name for one in registry.consumers()]


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_a_decorated_function_is_unchanged(registry: Registry) -> None:
    assert registry.consumer("a.b")(handle) is handle


def test_a_decorated_function_is_registered_with_its_options(
    registry: Registry,
) -> None:
    registry.consumer("a.b", "x.*", name="audit", capacity=5)(handle)

    (found,) = registry.consumers()

    assert (found.name, found.types, found.capacity) == ("audit", ("a.b", "x.*"), 5)
    assert found.handler is handle


@pytest.mark.parametrize(
    ("dotted", "label"),
    [("site.shop.consumers", "shop"), ("shop.consumers", "shop"), ("script", "script")],
)
def test_a_module_is_labelled_by_its_package(dotted: str, label: str) -> None:
    assert label_of_module(dotted) == label


def test_a_name_defaults_to_label_and_function(registry: Registry) -> None:
    registry.consumer("a.b")(handle)

    assert names(registry) == [f"{label_of_module(__name__)}.handle"]


def test_the_label_of_a_module_can_be_told(registry: Registry) -> None:
    registry.label_of = {__name__: "shop"}.__getitem__

    registry.consumer("a.b")(handle)

    assert names(registry) == ["shop.handle"]


def test_a_class_is_named_like_a_function(registry: Registry) -> None:
    @registry.consumer("a.b")
    class Audit:
        def handle(self, message: object) -> None:
            pass

    assert names(registry)[0].endswith(".Audit")


def test_an_object_without_a_name_must_be_given_one(registry: Registry) -> None:
    class Audit:
        def handle(self, message: object) -> None:
            pass

    with pytest.raises(ConfigurationError, match="a name has letters"):
        registry.consumer("a.b")(Audit())


def test_two_consumers_cannot_share_a_name(registry: Registry) -> None:
    registry.consumer("a.b", name="audit")(handle)

    with pytest.raises(
        ConfigurationError, match="Two consumers are named 'audit'"
    ) as caught:
        registry.consumer("a.b", name="audit")(other)

    line = handle.__code__.co_firstlineno
    assert f"{__name__}.handle ({__file__}:{line}) and {__name__}.other" in str(
        caught.value
    )
    assert caught.value.consumer == "audit"
    assert registry.consumers()[0].handler is handle


def test_a_consumer_of_no_known_place_replaces_none(registry: Registry) -> None:
    registry.register(make("audit"))

    with pytest.raises(ConfigurationError, match="Two consumers"):
        registry.register(make("audit"))


def test_consumers_are_in_the_order_of_registration(registry: Registry) -> None:
    for name in "bca":
        registry.register(make(name))

    assert names(registry) == ["b", "c", "a"]


def test_options_can_be_overridden_by_name(registry: Registry) -> None:
    registry.register(make("a"))
    registry.register(make("b"))

    found = registry.consumers({"a": {"capacity": 7}})

    assert [one.capacity for one in found] == [7, 1000]
    assert [one.capacity for one in registry.consumers()] == [1000, 1000]


def test_a_wrong_override_is_refused(registry: Registry) -> None:
    registry.register(make("a"))

    with pytest.raises(
        ConfigurationError,
        match=r"^GOMQ\['CONSUMERS'\]: Consumer 'a': unknown option size",
    ):
        registry.consumers({"a": {"size": 7}})


def test_an_override_of_nobody_is_refused_with_those_that_exist(
    registry: Registry,
) -> None:
    registry.register(make("b"))
    registry.register(make("a"))

    with pytest.raises(
        ConfigurationError,
        match=r"GOMQ\['CONSUMERS'\] names 'x', 'y': there is no such .* are a, b.",
    ) as caught:
        registry.consumers({"y": {}, "x": {}})

    assert caught.value.consumer == "x"


def test_an_override_without_any_consumer_says_that_there_is_none(
    registry: Registry,
) -> None:
    with pytest.raises(ConfigurationError, match="there are none."):
        registry.consumers({"x": {}})


def test_a_registry_can_go_back_to_what_it_was(registry: Registry) -> None:
    registry.register(make("a"))
    before = registry.snapshot()
    registry.register(make("b"))

    registry.restore(before)

    assert names(registry) == ["a"]


def test_what_is_registered_is_handed_on(registry: Registry) -> None:
    handed: list[tuple[str, bool]] = []
    registry.consumer("a.b", name="before")(handle)
    registry.on_added = lambda one, was_there: handed.append((one.name, was_there))

    registry.consumer("a.b", name="new")(handle)
    registry.consumer("a.b", name="before")(handle)
    with registry.isolated():
        registry.consumer("a.b", name="apart")(handle)
    registry.consumer("a.b", name="last")(handle)

    assert handed == [("new", False), ("before", True), ("last", False)]


def test_a_registration_that_is_undone_takes_no_other_along(
    registry: Registry,
) -> None:
    others: list[Thread] = []

    def refuse_the_first(consumer: Consumer, was_there: bool) -> None:
        if consumer.name == "first":
            others.append(Thread(target=registry.register, args=(make("other"),)))
            others[0].start()
            others[0].join(0.2)  # it has to wait for this one, and else is through
            raise ConfigurationError("no room")

    registry.on_added = refuse_the_first
    with pytest.raises(ConfigurationError, match="no room"):
        registry.register(make("first"))
    others[0].join()

    assert names(registry) == ["other"]


def test_what_is_refused_where_it_is_handed_on_is_not_registered(
    registry: Registry,
) -> None:
    def refuse(consumer: Consumer, was_there: bool) -> None:
        raise ConfigurationError("no room")

    registry.on_added = refuse
    with pytest.raises(ConfigurationError, match="no room"):
        registry.consumer("a.b", name="late")(handle)
    registry.on_added = None

    registry.consumer("a.c", name="late")(handle)

    assert [one.types for one in registry.consumers()] == [("a.c",)]


def test_an_isolated_registry_starts_empty(registry: Registry) -> None:
    registry.register(make("a"))

    with registry.isolated() as inner:
        assert names(inner) == []
        inner.register(make("a"))


def test_what_was_isolated_is_gone_even_after_an_error(registry: Registry) -> None:
    registry.register(make("a"))

    with pytest.raises(LookupError), registry.isolated() as inner:
        inner.register(make("b"))
        raise LookupError

    assert names(registry) == ["a"]


def test_the_help_of_the_decorator_lists_every_option_with_its_default() -> None:
    listed = dict(
        re.findall(r"^(\w+)=(\S+) -- ", pydoc.getdoc(module.consumer), re.MULTILINE)
    )
    defaults = make("audit")

    assert set(listed) == {"name", *OPTIONS}
    for option in OPTIONS - {"retry"}:
        assert listed[option].replace('"', "'") == repr(getattr(defaults, option))


def test_the_decorator_registers_for_the_whole_program() -> None:
    with module.registry.isolated():
        module.consumer("a.b", name="audit")(handle)

        assert names(module.registry) == ["audit"]


def test_an_alias_is_no_name_of_another_consumer(registry: Registry) -> None:
    for name, alias in (("new", "old"), ("other", "new")):
        registry.consumer("a.b", name=name, aliases=[alias])(handle)

    with pytest.raises(ConfigurationError, match="'other': its alias 'new' is a name"):
        registry.consumers()


def test_an_alias_is_that_of_one_consumer(registry: Registry) -> None:
    for name in ("one", "two"):
        registry.consumer("a.b", name=name, aliases=["old"])(handle)

    with pytest.raises(ConfigurationError, match="alias 'old' .* consumer 'one'"):
        registry.consumers()
