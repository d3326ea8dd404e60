"""Where a handler stands in the code, and whether two stand in the same place."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from typing import Any

import msgspec

from .handler import function_of


class Source(msgspec.Struct, frozen=True, eq=False):
    """The place of a handler: its module and name there, and the line of its code."""

    handler: Any
    """As it was decorated: a function, a method, a class or an object."""
    module: str
    qualname: str
    namespace: dict[str, Any] | None
    """That of the module."""
    spec: object
    """What the module was executed by; a reload has one of its own."""
    code: types.CodeType | None

    @staticmethod
    def of(handler: Any) -> Source:
        """Return where this handler stands, as far as it can be known."""
        function = inspect.unwrap(function_of(getattr(handler, "handle", handler)))
        # An object and a partial are called by what they are made of.
        is_named = hasattr(handler, "__qualname__")
        is_partial = isinstance(handler, functools.partial)
        named = handler if is_named else function if is_partial else type(handler)
        module = getattr(named, "__module__", None) or ""
        namespace = getattr(function, "__globals__", None)
        if inspect.isclass(handler) and module in sys.modules:
            namespace = vars(sys.modules[module])  # handle() may be another module's
        return Source(
            handler,
            module,
            getattr(named, "__qualname__", repr(handler)),
            namespace,
            (namespace or {}).get("__spec__"),
            getattr(function, "__code__", None),
        )

    def __str__(self) -> str:
        """Name module, function, file and line."""
        line = f" ({self.code.co_filename}:{self.line})" if self.code else ""
        return f"{self.module}.{self.qualname}{line}"

    @property
    def line(self) -> int | None:
        """The first line of its code."""
        return self.code.co_firstlineno if self.code else None

    @property
    def file(self) -> str | None:
        """The file of its code, or what an interactive shell calls its input."""
        return self.code.co_filename if self.code else None

    def has_name_of(self, other: Source) -> bool:
        """Whether both have one name in one module."""
        return (self.module, self.qualname) == (other.module, other.qualname)

    def is_executed_again(self, other: Source) -> bool:
        """Whether the module, or the cell of a notebook, was run again in between."""
        if self.namespace is not other.namespace or self.spec is not other.spec:
            return True
        is_typed_in = str(self.file).startswith("<")
        return is_typed_in and self.file != other.file

    def is_same_line(self, other: Source) -> bool:
        """Whether both are made by one line of code."""
        return (self.file, self.line) == (other.file, other.line)

    def is_same_handler(self, other: Source) -> bool:
        """Whether both do the same: one line of code, that sees the same objects."""
        mine, others = self._seen, other._seen
        return (
            self.is_same_line(other)
            and len(mine) == len(others)
            and all(ours is theirs for ours, theirs in zip(mine, others, strict=True))
        )

    @property
    def _seen(self) -> list[object]:
        """The objects by which functions of one line of code can differ."""
        handler = self.handler
        if inspect.isclass(handler):
            return _captured(getattr(handler, "handle", None))
        if inspect.ismethod(handler):
            return [handler.__self__, *_captured(handler.__func__)]
        return _captured(handler) if inspect.isfunction(handler) else [handler]


def _captured(function: Any) -> list[object]:
    """Return what a function took along from where it was made."""
    defaults = getattr(function, "__defaults__", None) or ()
    named = getattr(function, "__kwdefaults__", None) or {}
    cells = getattr(function, "__closure__", None) or ()
    return [*defaults, *named.values(), *(_content_of(cell) for cell in cells)]


def _content_of(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
