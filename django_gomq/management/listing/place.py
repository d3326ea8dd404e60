"""Where an expression stands, and what local names are there; it resolves nothing."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from .modules import Module

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
Kind = Literal["value", "element", "annotation", "function"]


class Binding(msgspec.Struct, frozen=True, eq=False):
    """One thing that a local name stands for."""

    kind: Kind
    node: ast.AST
    """The value; what it is an element of; its annotation; the function."""


class Place(msgspec.Struct, frozen=True, eq=False):
    """A module, and the functions and the class around an expression in it."""

    module: Module
    functions: tuple[FunctionNode, ...] = ()
    """The outermost first."""
    owner: str = ""
    """The class, as ``Module.names`` has it."""

    def bindings(self, name: str) -> Sequence[Binding]:
        """Return what a local name may stand for; nothing if it is not local."""
        for function in reversed(self.functions):
            found = _bindings(function).get(name)
            if found:
                return found
        return ()

    def inside(self, function: FunctionNode) -> Place:
        """Return the place inside a function that stands here."""
        return Place(self.module, (*self.functions, function), self.owner)


@functools.lru_cache(256)
def _bindings(function: FunctionNode) -> Mapping[str, Sequence[Binding]]:
    found: dict[str, list[Binding]] = {}
    for name, binding in _all_bindings(function):
        found.setdefault(name, []).append(binding)
    return found


def _all_bindings(function: FunctionNode) -> Iterator[tuple[str, Binding]]:
    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if argument.arg not in ("self", "cls"):
            kind = argument.annotation or ast.Constant(None)
            yield argument.arg, Binding("annotation", kind)
    for node in ast.walk(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node is not function:
                yield node.name, Binding("function", node)
        else:
            yield from _bound_by(node)


def _bound_by(node: ast.AST) -> Iterator[tuple[str, Binding]]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _name(target, "value", node.value)
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        yield from _name(node.target, "value", node.value)
    elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        yield from _name(node.target, "element", node.iter)


def _name(target: ast.AST, kind: Kind, node: ast.AST) -> Iterator[tuple[str, Binding]]:
    if isinstance(target, ast.Name):
        yield target.id, Binding(kind, node)
