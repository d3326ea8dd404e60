"""One name, one registration: what is declared twice is told, a reload is none."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.registry import Registry, registry


@pytest.fixture(autouse=True)
def own() -> Iterator[Registry]:
    """The registry of the decorator, empty."""
    with registry.isolated():
        yield registry


Load = Callable[[str], ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Writes a module ``shop_consumers``, and imports it, or reloads it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "shop_consumers.py"

    def load(text: str) -> ModuleType:
        file.write_text(
            "from django_gomq.bus.registry import consumer\n" + dedent(text)
        )
        importlib.invalidate_caches()
        loaded = sys.modules.get("shop_consumers")
        if loaded is not None:
            return importlib.reload(loaded)
        return importlib.import_module("shop_consumers")

    yield load
    sys.modules.pop("shop_consumers", None)


def found() -> dict[str, tuple[str, ...]]:
    return {one.name: one.types for one in registry.consumers()}


ONE = """
    @consumer("order.paid", name="audit")
    def audit(message): ...
"""

STACKED = """
    @consumer("order.paid")
    @consumer("order.refunded")
    def audit(message): ...
"""

PASTED = """
    @consumer("mail.sent")
    def on_event(message): ...

    @consumer("mail.bounced")
    def on_event(message): ...
"""

PASTED_OF_ONE_TYPE = """
    @consumer("mail.sent")
    def on_event(message): ...

    @consumer("mail.sent")
    def on_event(message): ...
"""

LOOP = """
    for event in ("mail.sent", "mail.bounced"):
        @consumer(event)
        def on_event(message): ...
"""

LOOP_OF_ONE_TYPE = """
    for table in ("one", "two"):
        @consumer("mail.sent")
        def on_event(message, table=table): ...
"""

LOOP_WITH_A_NAMED_DEFAULT = """
    for table in ("one", "two"):
        @consumer("mail.sent")
        def on_event(message, *, table=table): ...
"""

LOOP_WITH_OPTIONS = """
    for size in (1, 2):
        @consumer("mail.sent", capacity=size)
        def on_event(message): ...
"""

FACTORY = """
    def declare(table):
        @consumer("mail.sent")
        def on_event(message):
            print(table)

    declare("one")
    declare("two")
"""

FACTORY_OF_CLASSES = """
    def declare(table):
        @consumer("mail.sent")
        class OnEvent:
            def handle(self, message):
                print(table)

    declare("one")
    declare("two")
"""

METHOD_OF_TWO = """
    class Handlers:
        def on_event(self, message): ...

    for one in (Handlers(), Handlers()):
        consumer("mail.sent")(one.on_event)
"""

TWO_OBJECTS = """
    class Handler:
        def handle(self, message): ...

    consumer("mail.sent", name="mails")(Handler())
    consumer("mail.sent", name="mails")(Handler())
"""

TWO_CLASSES = """
    @consumer("mail.sent", name="mails")
    class Handler:
        def handle(self, message): ...

    @consumer("mail.sent", name="mails")
    class Other(Handler): ...
"""

TWO_PARTIALS = """
    from functools import partial

    def on_event(message, table): ...

    for table in ("one", "two"):
        consumer("mail.sent", name="mails")(partial(on_event, table=table))
"""

DECORATED = """
    def passing(function):
        def call(message):
            function(message)
        return call

    @consumer("mail.sent")
    @passing
    def one(message): ...

    @consumer("mail.sent")
    @passing
    def two(message): ...
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (STACKED, "declared twice for one handler"),
        (STACKED, "at once, @consumer('order.refunded', 'order.paid'), or give"),
        (PASTED, "shop_consumers.on_event ({file}:3) and shop_consumers.on_event"),
        (PASTED, "({file}:6). Names are stable ids: give one of them another name="),
        (PASTED_OF_ONE_TYPE, "({file}:3) and shop_consumers.on_event ({file}:6)."),
        (LOOP, "one handler, shop_consumers.on_event ({file}:4): name all its types"),
        (LOOP, "at once, @consumer('mail.sent', 'mail.bounced'), or give each another"),
        (LOOP_OF_ONE_TYPE, "both shop_consumers.on_event ({file}:4), as in a loop"),
        (LOOP_WITH_A_NAMED_DEFAULT, "as in a loop"),
        (LOOP_WITH_OPTIONS, "types and options at once, @consumer('mail.sent'), or"),
        (FACTORY, "both shop_consumers.declare.<locals>.on_event ({file}:4), as in"),
        (FACTORY_OF_CLASSES, "both shop_consumers.declare.<locals>.OnEvent"),
        (METHOD_OF_TWO, "both shop_consumers.Handlers.on_event ({file}:4), as in"),
        (TWO_OBJECTS, "Two consumers are named 'mails': both"),
        (TWO_CLASSES, "Two consumers are named 'mails'"),
        (TWO_PARTIALS, "Two consumers are named 'mails': both"),
        (DECORATED, "both shop_consumers.passing.<locals>.call ({file}:4), as in"),
    ],
)
def test_a_name_that_is_taken_is_told_at_import(
    load: Load, tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(text)

    assert told.format(file=tmp_path / "shop_consumers.py") in str(caught.value)
    assert caught.value.consumer


@pytest.mark.parametrize(
    "again",
    [ONE, ONE.replace("order.paid", "order.refunded"), f"\n\n{dedent(ONE)}"],
    ids=["unchanged", "another type", "other lines"],
)
def test_a_reloaded_module_replaces_its_consumers(load: Load, again: str) -> None:
    load(ONE)
    loaded = load(again)

    (consumer,) = registry.consumers()
    assert consumer.handler is loaded.audit


def test_a_module_that_is_imported_anew_replaces_its_consumers(load: Load) -> None:
    load(ONE)
    del sys.modules["shop_consumers"]
    loaded = load(ONE.replace("order.paid", "order.refunded"))

    assert registry.consumers()[0].handler is loaded.audit
    assert found() == {"audit": ("order.refunded",)}


CLASS = """
    @consumer("mail.sent", name="mails")
    class Handler:
        def handle(self, message): ...
"""

OBJECT = """
    class Handler:
        def handle(self, message): ...

    consumer("mail.sent", name="mails")(Handler())
"""

PARTIAL = """
    from functools import partial

    def on_event(message, table): ...

    consumer("mail.sent", name="mails")(partial(on_event, table="one"))
"""


@pytest.mark.parametrize("text", [CLASS, OBJECT, PARTIAL])
def test_whatever_handles_is_replaced_by_a_reload(load: Load, text: str) -> None:
    load(text)
    load(text.replace("mail.sent", "mail.bounced"))

    assert found() == {"mails": ("mail.bounced",)}


def test_a_cell_of_a_notebook_may_be_run_again() -> None:
    namespace = {"__name__": "__main__", "consumer": registry.consumer}
    for number, event in enumerate(("mail.sent", "mail.bounced")):
        text = f"@consumer({event!r}, name='audit')\ndef audit(message): ..."
        exec(compile(text, f"<ipython-input-{number}>", "exec"), namespace)

    assert found() == {"audit": ("mail.bounced",)}


def test_a_function_that_declares_may_be_called_again() -> None:
    def declare() -> None:
        @registry.consumer("mail.sent", name="audit")
        def audit(message: object) -> None: ...

    declare()
    declare()

    assert found() == {"audit": ("mail.sent",)}


def test_the_same_object_may_be_declared_again() -> None:
    class Handler:
        def handle(self, message: object) -> None: ...

    handler = Handler()
    registry.consumer("mail.sent", name="audit")(handler)
    registry.consumer("mail.sent", name="audit")(handler)
    registry.consumer("mail.sent", name="method")(handler.handle)
    registry.consumer("mail.sent", name="method")(handler.handle)

    assert list(found()) == ["audit", "method"]


def test_a_builtin_may_be_declared_once() -> None:
    registry.consumer("mail.sent", name="audit")(print)

    with pytest.raises(
        ConfigurationError, match=f"builtins.print and {__name__}.handle"
    ):
        registry.consumer("mail.sent", name="audit")(functools.partial(handle))


def handle(message: object) -> None: ...


def test_a_handler_that_sees_a_name_before_it_is_filled_is_compared() -> None:
    def declare() -> None:
        @registry.consumer("mail.sent", name="audit")
        def audit(message: object) -> None:
            later()

        def later() -> None: ...

    declare()

    with pytest.raises(ConfigurationError, match="as in a loop"):
        declare()


# ------------------------------------------------------------- without parentheses


def test_the_bare_decorator_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:

        @registry.consumer  # type: ignore[call-overload]
        def audit(message: object) -> None: ...

    told = str(caught.value)
    assert "@consumer was given audit in the place of an event type" in told
    assert 'without parentheses: write @consumer("order.paid")' in told


@pytest.mark.parametrize("given", [int, functools.partial(print), print], ids=str)
def test_what_is_called_is_no_event_type(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="in the place of an event type"):
        registry.consumer("a.b", given)


def test_a_decorator_that_was_given_no_handler_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("WARNING"):
        registry.consumer("mail.sent")  # no "@"
        registry.consumer("mail.sent", name="audit")(handle)

    (line,) = [
        record.getMessage()
        for record in caplog.records
        if record.name == "gomq.registry"
    ]
    assert line.startswith(f"consumer(...) in {__file__}, line ")
    assert line.endswith("registers nothing: write @consumer(...) above a function")
    assert list(found()) == ["audit"]
