"""What a name in a source file stands for, followed through imports; runs nothing."""

from __future__ import annotations

import ast
import sys
from typing import Any, Final

import msgspec

from django_gomq.bus.event import Event, EventMeta

from .modules import Module, Modules
from .place import Place

_MOST_STEPS: Final = 10  # of imports that lead to imports, and of bases of bases
_EVENT: Final = frozenset({"django_gomq.Event", "django_gomq.bus.event.Event"})


class Definition(msgspec.Struct, frozen=True, eq=False):
    """Where and as what something is defined in this project."""

    module: Module
    name: str
    node: ast.AST


class Origins:
    """Follows names to where they come from."""

    def __init__(self, modules: Modules) -> None:
        self.modules = modules

    def of(self, node: ast.AST, place: Place) -> str:
        """Return the dotted path that a name, or an attribute of one, stands for.

        That is an empty text if it is local, or no name.
        """
        if isinstance(node, ast.Attribute):
            owner = self.of(node.value, place)
            return self._follow(f"{owner}.{node.attr}") if owner else ""
        if not isinstance(node, ast.Name) or place.bindings(node.id):
            return ""
        if node.id in ("self", "cls") and place.owner:
            return f"{place.module.name}.{place.owner}"
        return self._follow(f"{place.module.name}.{node.id}")

    def definition(self, path: str) -> Definition | None:
        """Return what a dotted path is in this project's source."""
        module, name = self._split(path)
        node = module.names.get(name) if module else None
        return Definition(module, name, node) if module and node else None

    def _split(self, path: str) -> tuple[Module | None, str]:
        parts = path.split(".")
        for cut in range(len(parts) - 1, 0, -1):
            module = self.modules.get(".".join(parts[:cut]))
            if module is not None:
                return module, ".".join(parts[cut:])
        return None, path

    def _follow(self, path: str) -> str:
        for _ in range(_MOST_STEPS):
            module, name = self._split(path)
            further = self._import(module, name) if module else ""
            if not further:
                return path
            path = further
        return path

    def _import(self, module: Module, name: str) -> str:
        first, dot, rest = name.partition(".")
        if first in module.names:
            return ""
        if first in module.imports:
            return module.imports[first] + dot + rest
        for star in module.stars:
            source = self.modules.get(star)
            if source is not None and first in {*source.names, *source.imports}:
                return f"{star}.{name}"
        return ""

    def event_type(self, path: str) -> ast.AST | str | None:
        """Return the ``type`` of an Event class: its text, or how it is written.

        None if the path is no Event class that names one.
        """
        found = self.definition(path)
        if found is None:
            value = loaded(path)
            return (value.__event_type__ or None) if _is_event_class(value) else None
        if not isinstance(found.node, ast.ClassDef) or not self._is_event(path):
            return None
        return keyword_of(found.node, "type")

    def _is_event(self, path: str, steps: int = _MOST_STEPS) -> bool:
        if path in _EVENT:
            return True
        found = self.definition(path)
        if found is None:
            return _is_event_class(loaded(path))
        if not isinstance(found.node, ast.ClassDef) or not steps:
            return False
        here = Place(found.module)
        bases = (self.of(base, here) for base in found.node.bases)
        return any(self._is_event(base, steps - 1) for base in bases if base)


def keyword_of(node: ast.ClassDef, name: str) -> ast.expr | None:
    """Return the value of a keyword of a class statement."""
    return next((one.value for one in node.keywords if one.arg == name), None)


def _is_event_class(value: Any) -> bool:
    return isinstance(value, EventMeta) and value is not Event


def loaded(path: str) -> Any:
    """Return what a dotted path is in this process, if its module is loaded."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        value: Any = sys.modules.get(".".join(parts[:cut]))
        if value is not None:
            try:
                for part in parts[cut:]:
                    value = getattr(value, part)
            except Exception:  # noqa: BLE001 - an attribute may run any code
                return None
            return value
    return None
