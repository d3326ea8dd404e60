"""What is found in source files, which are never run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from django_gomq.management.listing.emitters import (
    Emitter,
    find_emitters,
    find_event_classes,
)
from django_gomq.management.listing.modules import Modules

EVENTS = """
from django_gomq import Event

PAGE_VIEWED = "page.viewed"
PREFIX = "shop"

class Names:
    ORDER_PAID = "order.paid"

class Base(Event):
    pass

class RecordSaved(Base, type="record.saved", version=3, no_consumer="ignore"):
    record_id: int

class RecordRead(Event, type=Names.ORDER_PAID):
    pass
"""

IMPORTS = """
from django_gomq import aemit, emit, emit_many, emit_model_events, emit_on_signal
from shop.events import Names, PAGE_VIEWED, RecordRead, RecordSaved
from shop import events
"""


def modules_of(folder: Path, sources: Mapping[str, str]) -> Modules:
    files = {}
    for name, text in sources.items():
        files[name] = folder / (
            f"{name}/__init__.py" if name == "shop" else f"{name}.py"
        )
        files[name].parent.mkdir(exist_ok=True)
        files[name].write_text(text)
    return Modules(files)


def found_in(folder: Path, code: str, **more: str) -> list[Emitter]:
    sources = {"shop": "", "shop.events": EVENTS, "shop.views": code}
    sources |= {f"shop.{name}": text for name, text in more.items()}
    return find_emitters(modules_of(folder, sources))


def events_of(folder: Path, code: str) -> set[str | None]:
    return {one.event for one in found_in(folder, IMPORTS + code)}


@pytest.mark.parametrize(
    ("code", "events"),
    [
        ('emit("a.b", {})', {"a.b"}),
        ("emit(PAGE_VIEWED, {})", {"page.viewed"}),
        ("emit(events.PAGE_VIEWED, {})", {"page.viewed"}),
        ("emit(Names.ORDER_PAID)", {"order.paid"}),
        ("emit(RecordSaved(record_id=1))", {"record.saved"}),
        ("emit(RecordSaved.of(record))", {"record.saved"}),
        ("emit(RecordRead())", {"order.paid"}),
        ("emit(RecordSaved.__event_type__, {})", {"record.saved"}),
        ('emit("a" if x else "b")', {"a", "b"}),
        ('emit(name or "b")', {None, "b"}),
        ('emit(f"shop.{kind}")', {None}),
        ("emit(**options)", {None}),
        ('partial(emit, "a.b", {})', {"a.b"}),
        ('on_commit(partial(emit, "a.b"))', {"a.b"}),
        ("executor.submit(emit, RecordSaved(record_id=1))", {"record.saved"}),
        ('sync_to_async(emit)("a.b")', {"a.b"}),
        ('emit_many([("a.b", {}), RecordSaved(record_id=1)])', {"a.b", "record.saved"}),
        ("emit_many(RecordSaved(record_id=n) for n in numbers)", {"record.saved"}),
        ("emit_many(list(rows))", {None}),
        ('emit_many([("a", 1)] + [("b", 2), *[("c", 3)]])', {"a", "b", "c"}),
        ('emit_model_events("x.X", created="a", deleted=None)', {"a"}),
        ('emit_model_events("x.X", saved="a", m2m={"tags": "b"})', {"a", "b"}),
        ('emit_model_events("x.X", saved="a", **more)', {"a", None}),
        ('emit_model_events("x.X", saved="a", m2m=fields)', {"a", None}),
        (
            'emit_model_events("x.X", saved="a", data=lambda x: RecordSaved())',
            {"record.saved"},
        ),
        ('emit_model_events("x.X", saved="a", data=lambda x: {"pk": x.pk})', {"a"}),
        ('emit_on_signal(signal, "a.b")', {"a.b"}),
        ("emit_on_signal(signal, event=PAGE_VIEWED)", {"page.viewed"}),
        ("emit_on_signal(signal)", {None}),
        ("other(emit_nothing)", set()),
        ('bus.emit("a.b")', set()),
    ],
)
def test_an_emit_tells_its_event(
    tmp_path: Path, code: str, events: set[str | None]
) -> None:
    assert events_of(tmp_path, code) == events


@pytest.mark.parametrize(
    ("code", "events"),
    [
        ('def f():\n    event = "a.b"\n    emit(event)', {"a.b"}),
        ("def f(event: RecordSaved):\n    emit(event)", {"record.saved"}),
        ('def f(event: "RecordSaved"):\n    emit(event)', {"record.saved"}),
        ("def f(events: list[RecordSaved]):\n    emit_many(events)", {"record.saved"}),
        ("def f(PAGE_VIEWED):\n    emit(PAGE_VIEWED)", {None}),
        ('def f():\n    for one in ["a", "b"]:\n        emit(one)', {"a", "b"}),
        ("def f():\n    emit(_made())\ndef _made():\n    return 1", {None}),
        (
            "def f():\n    emit(_made(1))\ndef _made(x) -> RecordSaved:\n    ...",
            {"record.saved"},
        ),
        (
            "def f():\n    emit(_made(1))\ndef _made(x):\n    return RecordSaved()",
            {"record.saved"},
        ),
        (
            "def f():\n    emit_many(_made())\ndef _made():\n    yield RecordSaved()",
            {"record.saved"},
        ),
        (
            "def f():\n    def made():\n        return RecordSaved()\n    emit(made())",
            {"record.saved"},
        ),
        (
            'class V:\n    name = "a.b"\n    def f(self):\n        emit(self.name)',
            {"a.b"},
        ),
        (
            (
                "class V:\n    def f(self):\n        emit(self.g())\n"
                "    def g(self):\n        return RecordSaved()"
            ),
            {"record.saved"},
        ),
        ("async def f():\n    await aemit(RecordSaved())", {"record.saved"}),
        ("def f(x):\n    x = x or x\n    emit(x)", {None}),
        ("def f():\n    return emit(f())", {None}),
    ],
)
def test_an_emit_inside_a_function_is_followed_to_what_it_was_given(
    tmp_path: Path, code: str, events: set[str | None]
) -> None:
    assert events_of(tmp_path, code) == events


@pytest.mark.parametrize(
    "code",
    [
        'import django_gomq\ndjango_gomq.emit("a.b")',
        'import django_gomq as bus\nbus.emit("a.b")',
        'from django_gomq import emit as send\nsend("a.b")',
        'from django_gomq.emit import emit\nemit("a.b")',
        'from shop.bus import send\nsend("a.b")',
        'from .bus import send\nsend("a.b")',
        'from shop.bus import *\nsend("a.b")',
        'def f():\n    from django_gomq import emit\n    emit("a.b")',
        (
            "try:\n    from django_gomq import emit\n"
            'except ImportError:\n    pass\nemit("a.b")'
        ),
    ],
)
def test_emit_is_known_under_every_name_it_was_imported_by(
    tmp_path: Path, code: str
) -> None:
    found = found_in(tmp_path, code, bus="from django_gomq import emit as send")

    assert [one.event for one in found] == ["a.b"]


def test_an_emitter_says_where_it_is_and_what_is_written_there(tmp_path: Path) -> None:
    found = found_in(tmp_path, 'from django_gomq import emit\n\nemit(\n  f"a.{x}")')

    assert found == [Emitter(None, "shop/views.py", 3, "emit", "f'a.{x}'")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def emit(", "was never closed"),
        ("emit = '\0'", "null bytes"),
        ("# coding: nonsense\nemit()", "unknown encoding"),
    ],
)
def test_a_file_that_is_no_python_is_named_and_the_others_are_read(
    tmp_path: Path, text: str, reason: str
) -> None:
    sources = {"shop.views": IMPORTS + 'emit("a.b")', "shop.wrong": text, "shop": ""}
    modules = modules_of(tmp_path, sources)

    assert [one.event for one in find_emitters(modules)] == ["a.b"]
    assert list(modules.unreadable) == ["shop/wrong.py"]
    assert reason in modules.unreadable["shop/wrong.py"]


def test_a_file_that_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    deep = "a" + " + a" * 2000
    modules = modules_of(tmp_path, {"shop.deep": f"emit = 1\nx = {deep}\n"})

    assert find_emitters(modules) == []
    assert list(modules.unreadable) == ["shop/deep.py"]


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    modules = Modules({"shop.gone": tmp_path / "gone.py"})

    assert find_emitters(modules) == []
    assert "No such file" in modules.unreadable["shop/gone.py"]


def test_event_classes_are_found_in_modules_that_nobody_imported(
    tmp_path: Path,
) -> None:
    found = find_event_classes(modules_of(tmp_path, {"shop.events": EVENTS}))

    assert {(one.name, one.type, one.version, one.no_consumer) for one in found} == {
        ("shop.events.RecordSaved", "record.saved", 3, "ignore"),
        ("shop.events.RecordRead", "order.paid", 1, None),
    }
