"""What a name in a source file is in this process; it reads no file."""

from __future__ import annotations

import ast
import enum
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, get_type_hints

import msgspec

from django_gomq.bus.event import Event, EventMeta

from .reading import Locals, Source


class Place(msgspec.Struct, frozen=True, eq=False):
    """Where an expression stands: in a file, with local names."""

    source: Source
    names: Locals

    def assigned(self, node: ast.expr) -> ast.expr:
        """Return what a local name was assigned; anything else as it is."""
        found = self.names.get(node.id) if isinstance(node, ast.Name) else None
        return found or node

    def event_type(self, node: ast.expr) -> str | None:
        """Return the type of the event that is written there; None: only a run tells.

        That is a text, or a name or call that stands for a text, an Event or its class.
        """
        node = self.assigned(node)
        if isinstance(node, ast.Constant):
            return _type_of(node.value)
        if isinstance(node, ast.Call):
            return _type_of(_made_by(self.value(node.func)))
        return _type_of(self.value(node))

    def value(self, node: ast.expr) -> Any:
        """Return what a name that is not local is, or an attribute of one, or None.

        It imports nothing. Attributes are those of modules, classes and members of
        enums: to ask another object may wake a lazy one.
        """
        attributes: list[str] = []
        while isinstance(node, ast.Attribute):
            attributes.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id in self.names:
            return None
        imported = self.source.imports.get(node.id, "")
        paths = [imported, f"{self.source.module}.{node.id}"]
        found = [_loaded([*path.split("."), *attributes]) for path in paths]
        return next((one for one in found if one is not None), None)


def _loaded(parts: Sequence[str]) -> Any:
    for cut in range(len(parts) - 1, 0, -1):
        value: Any = sys.modules.get(".".join(parts[:cut]))
        if value is not None:
            for part in parts[cut:]:
                value = _attribute(value, part)
            return value
    return None


def _attribute(owner: Any, name: str) -> Any:
    # Not isinstance(), which asks a lazy object for what it stands for.
    if not issubclass(type(owner), (ModuleType, type, enum.Enum)):
        return None
    try:
        return getattr(owner, name)
    except Exception:  # noqa: BLE001 - a class may answer by any code
        return None


def _made_by(function: Any) -> Any:
    """Return the Event class that is called, has that method, or is announced."""
    for one in (function, getattr(function, "__self__", None)):
        if isinstance(one, EventMeta):
            return one
    try:
        announced = get_type_hints(function).get("return")
    except Exception:  # noqa: BLE001 - annotations may be any code
        return None
    return announced if isinstance(announced, EventMeta) else None


def _type_of(value: Any) -> str | None:
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, Event):
        value = type(value)
    if isinstance(value, EventMeta):
        value = value.__event_type__
    return value if isinstance(value, str) and value else None
