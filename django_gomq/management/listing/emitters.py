"""Where a project's source emits, and what; found without running it."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from django_gomq import aemit, emit, emit_many, emit_model_events, emit_on_signal

from .meaning import Place
from .overview import Emitter
from .reading import Source, bindings, calls, read

_FUNCTIONS: Final = (aemit, emit, emit_many, emit_model_events, emit_on_signal)
_UNREADABLE: Final = (
    *(OSError, SyntaxError, ValueError, ImportError),
    *(RecursionError, MemoryError),
)
_MODEL_EVENTS: Final = ("created", "updated", "saved", "deleted")
_LONGEST: Final = 60


class Emitters(msgspec.Struct, frozen=True):
    """Who emits what."""

    by_event: Mapping[str | None, Sequence[Emitter]]
    """By event type; under None those of which only a run would tell."""
    unreadable: Mapping[str, str]
    """Why a file could not be read, by its name."""


def find_emitters(files: Mapping[str, Path]) -> Emitters:
    """Return the calls that emit in the files of these modules. Imports none of them.

    A name in a file is what it is in this process. In a file whose module is not loaded
    these are what it imports from those that are, and its own constants.
    """
    found: dict[str | None, list[Emitter]] = defaultdict(list)
    unreadable = {}
    for module, path in files.items():
        file = module.replace(".", "/")
        file += "/__init__.py" if path.name == "__init__.py" else ".py"
        try:
            for event, emitter in _emitters(read(module, path), file):
                found[event].append(emitter)
        except _UNREADABLE as error:
            unreadable[file] = str(error)
    return Emitters({one: sorted(found[one]) for one in found}, unreadable)


def _emitters(source: Source, file: str) -> Iterator[tuple[str | None, Emitter]]:
    own = bindings(source.tree) if source.module not in sys.modules else {}
    constants = {name: own[name] for name in own if name not in source.imports}
    for node, names in calls(source.tree, constants):
        place = Place(source, names)
        for name, given in _called(node, place):
            named = {one.arg: one.value for one in node.keywords}
            events = list(_events(name, given, named, place))
            shown = events if name == "emit_on_signal" else given
            emitter = Emitter(file, node.lineno, name, _shorten(shown))
            for event in {place.event_type(one) for one in events} or {None}:
                yield event, emitter


def _called(node: ast.Call, place: Place) -> Iterator[tuple[str, Sequence[ast.expr]]]:
    """Yield which of our functions is called with what, now or by another."""
    candidates = [(node.func, node.args)]
    if isinstance(node.func, ast.Call) and len(node.func.args) == 1:
        candidates.append((node.func.args[0], node.args))  # sync_to_async(emit)(event)
    for index, one in enumerate(node.args[:-1], 1):
        candidates.append((one, node.args[index:]))  # partial(emit, event)
    for function, given in candidates:
        value = place.value(function)
        yield from ((one.__name__, given) for one in _FUNCTIONS if one is value)


def _events(
    name: str,
    given: Sequence[ast.expr],
    named: Mapping[str | None, ast.expr],
    place: Place,
) -> Iterator[ast.expr]:
    """Yield how each event is written in the arguments of one of our functions."""
    if name == "emit_many" and given:
        yield from _elements(place.assigned(given[0]))
    elif name == "emit_model_events":
        written = [named[key] for key in (*_MODEL_EVENTS, None) if key in named]
        fields = named.get("m2m", ast.Dict([], []))
        written += fields.values if isinstance(fields, ast.Dict) else [fields]
        yield from (one for one in written if ast.unparse(one) != "None")
    elif name == "emit_on_signal":
        yield from [*given[1:2], *(named[key] for key in named if key == "event")]
    else:
        yield from given[:1]


def _elements(events: ast.expr) -> Iterator[ast.expr]:
    written = [events]
    if isinstance(events, ast.List | ast.Tuple | ast.Set):
        written = events.elts
    elif isinstance(events, ast.ListComp | ast.SetComp | ast.GeneratorExp):
        written = [events.elt]
    for one in written:
        yield one.elts[0] if isinstance(one, ast.Tuple) and one.elts else one


def _shorten(written: Sequence[ast.expr]) -> str:
    text = ast.unparse(written[0]) if written else "..."
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
