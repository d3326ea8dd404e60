"""Where a project's source emits, and what; found without running any of it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from .arguments import READERS, Arguments
from .evaluating import UNKNOWN, Evaluator
from .modules import Module, Modules
from .origins import Origins, keyword_of
from .place import FunctionNode, Place

_PACKAGE: Final = "django_gomq."
_LONGEST: Final = 60


class Emitter(msgspec.Struct, frozen=True):
    """One event type that one call emits."""

    event: str | None
    """None: only a run would tell."""
    file: str
    line: int
    call: str
    """``emit``, ``aemit``, ``emit_many``, ``emit_model_events``, ``emit_on_signal``."""
    text: str
    """How the event is written there."""

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.file}:{self.line}"


class EventClass(msgspec.Struct, frozen=True):
    """An Event class of which the source says the type."""

    name: str
    type: str
    version: int
    no_consumer: str | None


def find_emitters(modules: Modules) -> list[Emitter]:
    """Return every event type that a call emits, by file, line and type."""
    origins = Origins(modules)
    evaluator = Evaluator(origins)
    found: list[Emitter] = []
    for module in modules.containing("emit", *_other_names(modules)):
        finder = _Finder(module, origins, evaluator)
        try:
            finder.visit(module.tree)
        except RecursionError:
            modules.unreadable[module.file] = "an expression is nested too deeply"
        found += finder.found
    return sorted(found, key=lambda one: (one.file, one.line, one.event or ""))


def _other_names(modules: Modules) -> set[str]:
    """Return by what other names the project imports our functions."""
    return {
        name
        for module in modules.containing("emit")
        for name, path in module.imports.items()
        if _is_ours(path)
    }


def _is_ours(path: str) -> bool:
    return path.startswith(_PACKAGE) and path.rpartition(".")[2] in READERS


def find_event_classes(modules: Modules) -> list[EventClass]:
    """Return the Event classes of the source, also of modules that nobody imported."""
    origins = Origins(modules)
    evaluator = Evaluator(origins)
    found = []
    for module in modules.containing("type="):
        for name, node in module.names.items():
            path = f"{module.name}.{name}"
            if isinstance(node, ast.ClassDef) and origins.event_type(path) is not None:
                written = keyword_of(node, "type")
                here = Place(module, owner=name.rpartition(".")[0])
                types = evaluator.event(written, here) if written else UNKNOWN
                found += [_event_class(path, one, node) for one in types if one]
    return found


def _event_class(path: str, event_type: str, node: ast.ClassDef) -> EventClass:
    version, no_consumer = keyword_of(node, "version"), keyword_of(node, "no_consumer")
    number = version.value if isinstance(version, ast.Constant) else 1
    wish = no_consumer.value if isinstance(no_consumer, ast.Constant) else None
    return EventClass(
        path,
        event_type,
        number if isinstance(number, int) else 1,
        wish if isinstance(wish, str) else None,
    )


class _Finder(ast.NodeVisitor):
    """Looks at every call of one module."""

    def __init__(self, module: Module, origins: Origins, evaluator: Evaluator) -> None:
        self.found: list[Emitter] = []
        self._origins = origins
        self._evaluator = evaluator
        self._place = Place(module)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_inside(node, self._place.inside(node))

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_inside(node, self._place.inside(node))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        owner = f"{self._place.owner}.{node.name}".lstrip(".")
        place = Place(self._place.module, self._place.functions, owner)
        self._visit_inside(node, place)

    def _visit_inside(self, node: FunctionNode | ast.ClassDef, place: Place) -> None:
        before, self._place = self._place, place
        self.generic_visit(node)
        self._place = before

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = self._called(node)
        if called is None:
            return
        name, arguments = called
        types, written = READERS[name](self._evaluator, arguments, self._place)
        text = _shorten(written)
        file = self._place.module.file
        self.found += [
            Emitter(one, file, node.lineno, name, text) for one in types or UNKNOWN
        ]

    def _called(self, node: ast.Call) -> tuple[str, Arguments] | None:
        """Return which of our functions is called with what, now or by another."""
        named = {one.arg: one.value for one in node.keywords}
        name = self._name_of(node.func)
        if name is None and isinstance(node.func, ast.Call):
            # as of sync_to_async(emit), called with an event
            name = next(filter(None, map(self._name_of, node.func.args)), None)
        if name is not None:
            return name, Arguments(node.args, named)
        for index, one in enumerate(node.args):
            name = self._name_of(one)
            rest = node.args[index + 1 :]
            if name is not None and (rest or named):  # as for partial
                return name, Arguments(rest, named)
        return None

    def _name_of(self, node: ast.AST) -> str | None:
        path = self._origins.of(node, self._place)
        return path.rpartition(".")[2] if _is_ours(path) else None


def _shorten(written: ast.AST | None) -> str:
    text = ast.unparse(written) if written is not None else "..."
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def by_event(emitters: Iterable[Emitter]) -> Mapping[str, Sequence[Emitter]]:
    """Return the emitters whose event is known, by event type."""
    found: dict[str, list[Emitter]] = {}
    for one in emitters:
        if one.event is not None:
            found.setdefault(one.event, []).append(one)
    return found
