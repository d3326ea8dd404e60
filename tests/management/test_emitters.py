"""What is found in source files, which are never run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from django_gomq.listing.emitters import EmitCalls, find_emitters
from django_gomq.listing.overview import EmitCall
from tests.management.emitted import RecordSaved

IMPORTS = """
from django_gomq import aemit, emit, emit_many, emit_model_events, emit_on_signal
from tests.management import emitted
from tests.management.emitted import (
    Base, Names, PAGE_VIEWED, RecordSaved, SAVED, lazy, make_any, make_missing,
    make_saved,
)
OWN = "own.name"
"""
SAVED = RecordSaved.__event_type__


def find_in(folder: Path, sources: Mapping[str, str]) -> EmitCalls:
    files = {name: folder / f"{name}.py" for name in sources}
    for name, path in files.items():
        path.write_text(sources[name])
    return find_emitters(files)


def events_of(folder: Path, code: str) -> set[str | None]:
    found = find_in(folder, {"shop.views": code})
    assert found.unreadable == {}
    return {*found.by_event}


@pytest.mark.parametrize(
    ("code", "events"),
    [
        ('emit("a.b", {})', {"a.b"}),
        ("emit(PAGE_VIEWED, {})", {"page.viewed"}),
        ("emit(emitted.PAGE_VIEWED, {})", {"page.viewed"}),
        ("emit(OWN, {})", {"own.name"}),
        ("emit(Names.ORDER_PAID)", {"order.paid"}),
        ("emit(Names.ORDER_PAID.value)", {"order.paid"}),
        ("emit(RecordSaved(record_id=1))", {SAVED}),
        ("emit(RecordSaved.of(record))", {SAVED}),
        ("emit(RecordSaved.__event_type__, {})", {SAVED}),
        ("emit(SAVED)", {SAVED}),
        ("emit(make_saved())", {SAVED}),
        ("emit(make_any())", {None}),
        ("emit(make_missing())", {None}),
        ("emit(Base())", {None}),
        ("emit(PAGE_VIEWED.upper())", {None}),
        ("emit(emitted.MISSING)", {None}),
        ("emit(unknown)", {None}),
        ('emit("a" if x else "b")', {None}),
        ('emit(f"shop.{kind}")', {None}),
        ("emit(*arguments)", {None}),
        ("emit(**options)", {None}),
        ("other(emit_nothing)", set()),
        ('bus.emit("a.b")', set()),
        ('lazy.emit("a.b")', set()),
    ],
)
def test_an_emit_tells_its_event(
    tmp_path: Path, code: str, events: set[str | None]
) -> None:
    assert events_of(tmp_path, IMPORTS + code) == events


@pytest.mark.parametrize(
    ("code", "events"),
    [
        ('emit_many([("a.b", {}), RecordSaved(record_id=1)])', {"a.b", SAVED}),
        ('emit_many((PAGE_VIEWED, {"x": 1}) for x in y)', {"page.viewed"}),
        ("emit_many([RecordSaved(record_id=n) for n in numbers])", {SAVED}),
        ("emit_many([make_saved(), other()])", {SAVED, None}),
        ('rows = [("a", 1)]\nemit_many(rows)', {"a"}),
        ("emit_many(list(rows))", {None}),
        ("emit_many(one for one in rows)", {None}),
        ("emit_many()", {None}),
        ('emit_model_events("x.X", created="a", deleted=None)', {"a"}),
        ('emit_model_events("x.X", saved="a", m2m={"tags": "b"})', {"a", "b"}),
        ('emit_model_events("x.X", saved="a", **more)', {"a", None}),
        ('emit_model_events("x.X", saved="a", m2m=fields)', {"a", None}),
        ('emit_on_signal(signal, "a.b")', {"a.b"}),
        ("emit_on_signal(signal, event=PAGE_VIEWED)", {"page.viewed"}),
        ("emit_on_signal(signal)", {None}),
    ],
)
def test_a_call_may_name_several_events(
    tmp_path: Path, code: str, events: set[str | None]
) -> None:
    assert events_of(tmp_path, IMPORTS + code) == events


@pytest.mark.parametrize(
    "code",
    [
        'partial(emit, "a.b", {})',
        'partial(emit, "a.b")()',
        'on_commit(partial(emit, "a.b"))',
        'executor.submit(emit, "a.b", {})',
        'sync_to_async(emit)("a.b")',
        'sync_to_async(emit, thread_sensitive=True)("a.b")',
        'async def f():\n    await aemit("a.b")',
    ],
)
def test_a_call_that_another_makes_is_found_once(tmp_path: Path, code: str) -> None:
    found = find_in(tmp_path, {"shop.views": IMPORTS + code}).by_event

    assert {event: len(found[event]) for event in found} == {"a.b": 1}


@pytest.mark.parametrize(
    ("code", "events"),
    [
        ('def f():\n    event = "a.b"\n    emit(event)', {"a.b"}),
        ("def f():\n    event: X = RecordSaved()\n    emit(event)", {SAVED}),
        ("def f():\n    if event := make_saved():\n        emit(event)", {SAVED}),
        ('def f():\n    e = "a"\n    def g():\n        emit(e)', {"a"}),
        ('def f():\n    e = "a"\n    e = "b"\n    emit(e)', {None}),
        ('def f(e):\n    if not e:\n        e = "a"\n    emit(e)', {None}),
        ('def f():\n    a, b = "a", "b"\n    emit(a)', {None}),
        ("def f():\n    for PAGE_VIEWED in x:\n        emit(PAGE_VIEWED)", {None}),
        ("def f(PAGE_VIEWED):\n    emit(PAGE_VIEWED)", {None}),
        ("x = lambda PAGE_VIEWED: emit(PAGE_VIEWED)", {None}),
        ("def f():\n    def OWN(): ...\n    emit(OWN)", {None}),
        ('def f():\n    OWN = "a"\ndef g():\n    emit(OWN)', {"own.name"}),
        ('def f(emit):\n    emit("a.b")', set()),
    ],
)
def test_a_local_name_stands_for_what_it_was_assigned_if_that_was_once(
    tmp_path: Path, code: str, events: set[str | None]
) -> None:
    assert events_of(tmp_path, IMPORTS + code) == events


@pytest.mark.parametrize(
    "code",
    [
        'import django_gomq\ndjango_gomq.emit("a.b")',
        'import django_gomq as bus\nbus.emit("a.b")',
        'import django_gomq.emit as bus\nbus.emit("a.b")',
        'from django_gomq import emit as send\nsend("a.b")',
        'from django_gomq.emit import emit\nemit("a.b")',
        'from tests.management.emitted import send\nsend("a.b")',
        'from tests.management import emitted as shop\nshop.send("a.b")',
        'def f():\n    from django_gomq import emit\n    emit("a.b")',
        (
            "try:\n    from django_gomq import emit\n"
            'except ImportError:\n    emit = None\nemit("a.b")'
        ),
    ],
)
def test_emit_is_known_under_every_name_it_was_imported_by(
    tmp_path: Path, code: str
) -> None:
    assert events_of(tmp_path, code) == {"a.b"}


def test_names_imported_from_the_package_around_are_known(tmp_path: Path) -> None:
    code = "from .emitted import PAGE_VIEWED, send\nsend(PAGE_VIEWED)"

    found = find_in(tmp_path, {"tests.management.views": code})

    assert {*found.by_event} == {"page.viewed"}


def test_the_own_names_of_a_loaded_module_are_known(tmp_path: Path) -> None:
    code = "send(make_saved())"

    found = find_in(tmp_path, {"tests.management.emitted": code})

    assert {*found.by_event} == {SAVED}


def test_what_is_not_loaded_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    code = f"{IMPORTS}from unloaded import EVENT\nemit(EVENT)"

    found = find_in(tmp_path, {"unloaded": 'EVENT = "a.b"', "unloaded_views": code})

    assert {*found.by_event} == {None}
    assert sys.modules.keys().isdisjoint({"unloaded", "unloaded_views"})


def test_an_emitter_says_where_it_is_and_what_is_written_there(tmp_path: Path) -> None:
    found = find_in(
        tmp_path, {"shop.views": 'from django_gomq import emit\n\nemit(\n  f"a.{x}")'}
    )

    assert found.by_event == {None: [EmitCall("shop/views.py", 3, "emit", "f'a.{x}'")]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def emit(", "was never closed"),
        ("emit = '\0'", "null bytes"),
        ("# coding: nonsense\nemit()", "unknown encoding"),
        ("from .... import emit", "beyond top-level package"),
        ("emit(" + "-" * 100_000 + "1)", ""),
    ],
)
def test_a_file_that_is_no_python_is_named_and_the_others_are_read(
    tmp_path: Path, text: str, reason: str
) -> None:
    sources = {"shop.wrong": text, "shop.views": IMPORTS + 'emit("a.b")'}

    found = find_in(tmp_path, sources)

    assert {*found.by_event} == {"a.b"}
    assert list(found.unreadable) == ["shop/wrong.py"]
    assert reason in found.unreadable["shop/wrong.py"]


def test_a_long_expression_does_not_hide_what_its_file_emits(tmp_path: Path) -> None:
    code = f'{IMPORTS}x = {"a + " * 2000}a\nemit("a.b")'

    assert events_of(tmp_path, code) == {"a.b"}


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    found = find_emitters({"shop.gone": tmp_path / "gone.py"})

    assert found.by_event == {}
    assert "No such file" in found.unreadable["shop/gone.py"]
