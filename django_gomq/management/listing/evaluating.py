"""Which event types an expression can mean, as far as its source says; runs nothing."""

from __future__ import annotations

import ast
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from django_gomq.bus.event import Event, EventMeta

from .origins import Origins, loaded
from .place import Binding, FunctionNode, Place

Names = frozenset[str | None]
"""Event types; None among them for those that only a run would tell."""

UNKNOWN: Final[Names] = frozenset({None})
_NOTHING: Final[Names] = frozenset()
_OF_ANOTHER: Final = frozenset({"list", "tuple", "set", "sorted", "reversed", "iter"})

_Method = Callable[[Any, Place], Names]


class Evaluator:
    """Evaluates what is handed to ``emit``: names, events, and what makes them."""

    def __init__(self, origins: Origins) -> None:
        self._origins = origins
        self._active: set[int] = set()
        self._of_event: Mapping[type[ast.AST], _Method] = {
            ast.Constant: _constant,
            ast.Name: self._named,
            ast.Attribute: self._attribute,
            ast.Call: self._call,
            ast.IfExp: self._choice,
            ast.BoolOp: lambda node, place: self._any(node.values, place),
            ast.NamedExpr: lambda node, place: self.event(node.value, place),
            ast.Await: lambda node, place: self.event(node.value, place),
            ast.Lambda: lambda node, place: self.event(node.body, place),
            ast.Tuple: self._pair,
        }
        self._of_events: Mapping[type[ast.AST], _Method] = {
            ast.List: self._listed,
            ast.Tuple: self._listed,
            ast.Set: self._listed,
            ast.ListComp: lambda node, place: self.event(node.elt, place),
            ast.SetComp: lambda node, place: self.event(node.elt, place),
            ast.GeneratorExp: lambda node, place: self.event(node.elt, place),
            ast.Name: self._named_events,
            ast.Call: self._called_events,
            ast.BinOp: self._added,
        }

    def event(self, node: ast.AST, place: Place) -> Names:
        """Return what one event can be: an event, its class, its name or a pair."""
        return self._once(self._of_event, node, place)

    def events(self, node: ast.AST, place: Place) -> Names:
        """Return what the events of an iterable can be."""
        return self._once(self._of_events, node, place)

    def _once(
        self, methods: Mapping[type[ast.AST], _Method], node: ast.AST, place: Place
    ) -> Names:
        """Evaluate, and add nothing for what is made of itself."""
        method = methods.get(type(node))
        if method is None:
            return UNKNOWN
        if id(node) in self._active:
            return _NOTHING
        self._active.add(id(node))
        try:
            return method(node, place)
        finally:
            self._active.discard(id(node))

    def _any(self, nodes: Iterable[ast.AST], place: Place) -> Names:
        return _united(self.event(node, place) for node in nodes)

    def _choice(self, node: ast.IfExp, place: Place) -> Names:
        return self._any([node.body, node.orelse], place)

    def _pair(self, node: ast.Tuple, place: Place) -> Names:
        return self.event(node.elts[0], place) if node.elts else UNKNOWN

    def _named(self, node: ast.Name, place: Place) -> Names:
        found = place.bindings(node.id)
        if found:
            return _united(self._bound(one, place) for one in found)
        return self._at(self._origins.of(node, place))

    def _attribute(self, node: ast.Attribute, place: Place) -> Names:
        if node.attr in ("value", "__event_type__"):  # of an enum; of an Event class
            return self.event(node.value, place)
        return self._at(self._origins.of(node, place))

    def _bound(self, binding: Binding, place: Place) -> Names:
        if binding.kind == "value":
            return self.event(binding.node, place)
        if binding.kind == "element":
            return self.events(binding.node, place)
        if binding.kind == "annotation":
            return self._annotated(binding.node, place)
        return UNKNOWN

    def _at(self, path: str) -> Names:
        """Return what stands under a dotted path."""
        written = self._origins.event_type(path)
        found = self._origins.definition(path)
        if isinstance(written, str):
            return frozenset({written})
        if found is None:
            return _of_value(loaded(path))
        here = Place(found.module, owner=found.name.rpartition(".")[0])
        if written is not None:
            return self.event(written, here)
        if isinstance(found.node, ast.expr):
            return self.event(found.node, here)
        return UNKNOWN

    def _call(self, node: ast.Call, place: Place) -> Names:
        made = self.event(node.func, place)
        if made != UNKNOWN and not isinstance(node.func, ast.Constant):
            return made  # of a class
        if isinstance(node.func, ast.Attribute):
            path = self._origins.of(node.func.value, place)
            if path and self._origins.event_type(path) is not None:
                return self._at(path)  # RecordSaved.of(record)
        return self.result(node.func, place)

    def result(self, node: ast.AST, place: Place, *, many: bool = False) -> Names:
        """Return what a function returns; with ``many``, the elements of that."""
        if isinstance(node, ast.Lambda):
            return self.event(node.body, place)
        for one in place.bindings(node.id) if isinstance(node, ast.Name) else ():
            if isinstance(one.node, ast.FunctionDef | ast.AsyncFunctionDef):
                return self._returned(one.node, place.inside(one.node), many=many)
        found = self._origins.definition(self._origins.of(node, place))
        if found is None or not isinstance(
            found.node, ast.FunctionDef | ast.AsyncFunctionDef
        ):
            return UNKNOWN
        owner = found.name.rpartition(".")[0]
        inside = Place(found.module, (found.node,), owner)
        return self._returned(found.node, inside, many=many)

    def _returned(self, function: FunctionNode, place: Place, *, many: bool) -> Names:
        if function.returns is not None:
            announced = self._annotated(function.returns, place)
            if announced != UNKNOWN:
                return announced
        evaluate = self.events if many else self.event
        found = [evaluate(one, place) for one in _returns(function)]
        if many:
            found += [self.event(one, place) for one in _yields(function)]
        return _united(found) or UNKNOWN

    def _annotated(self, node: ast.AST, place: Place) -> Names:
        """Return the event types of an annotation, also of a list of events."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                node = ast.parse(node.value, mode="eval").body
            except SyntaxError:
                return UNKNOWN
        paths = {self._origins.of(one, place) for one in ast.walk(node)} - {""}
        classes = [one for one in paths if self._origins.event_type(one) is not None]
        return _united(self._at(one) for one in classes) or UNKNOWN

    def _listed(self, node: ast.List | ast.Tuple | ast.Set, place: Place) -> Names:
        return _united(
            self.events(one.value, place)
            if isinstance(one, ast.Starred)
            else self.event(one, place)
            for one in node.elts
        )

    def _named_events(self, node: ast.Name, place: Place) -> Names:
        found = place.bindings(node.id)
        if found:
            return _united(self._bound_events(one, place) for one in found)
        defined = self._origins.definition(self._origins.of(node, place))
        return self.events(defined.node, Place(defined.module)) if defined else UNKNOWN

    def _bound_events(self, binding: Binding, place: Place) -> Names:
        if binding.kind == "value":
            return self.events(binding.node, place)
        if binding.kind == "annotation":
            return self._annotated(binding.node, place)
        return UNKNOWN

    def _called_events(self, node: ast.Call, place: Place) -> Names:
        is_copy = isinstance(node.func, ast.Name) and node.func.id in _OF_ANOTHER
        if is_copy and node.args:
            return self.events(node.args[0], place)
        return self.result(node.func, place, many=True)

    def _added(self, node: ast.BinOp, place: Place) -> Names:
        return self.events(node.left, place) | self.events(node.right, place)


def _united(found: Iterable[Names]) -> Names:
    return _NOTHING.union(*found)


def _constant(node: ast.Constant, place: Place) -> Names:
    return frozenset({node.value}) if isinstance(node.value, str) else UNKNOWN


def _of_value(value: Any) -> Names:
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, Event):
        value = type(value)
    if isinstance(value, EventMeta):
        value = value.__event_type__
    return frozenset({value}) if isinstance(value, str) and value else UNKNOWN


def _returns(function: FunctionNode) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            yield node.value


def _yields(function: FunctionNode) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        if isinstance(node, ast.Yield) and node.value is not None:
            yield node.value
