"""One source file: what it imports, calls and assigns; it resolves nothing."""

from __future__ import annotations

import ast
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.util import resolve_name
from pathlib import Path
from typing import Final

import msgspec

Locals = Mapping[str, ast.expr | None]
"""Names that functions bind, with the value of each that one assigns just once."""

_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_NAMED: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler)


class Source(msgspec.Struct, frozen=True, eq=False):
    """One source file, parsed."""

    module: str
    tree: ast.Module
    imports: Mapping[str, str]
    """What local names stand for, as dotted paths; those inside functions too."""


def read(module: str, path: Path) -> Source:
    """Parse a file.

    Raises OSError, SyntaxError, ValueError, ImportError (of its relative imports),
    RecursionError or MemoryError for one that cannot be read or is no module.
    """
    with tokenize.open(path) as file:
        tree = ast.parse(file.read())
    is_package = path.name == "__init__.py"
    package = module if is_package else module.rpartition(".")[0]
    return Source(module, tree, dict(_imports(tree, package)))


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                top = one.name.partition(".")[0]
                yield one.asname or top, one.name if one.asname else top
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name(f"{'.' * node.level}{node.module or ''}", package)
            for one in node.names:
                yield one.asname or one.name, f"{origin}.{one.name}"


def calls(tree: ast.Module, known: Locals) -> Iterator[tuple[ast.Call, Locals]]:
    """Yield each call with the local names there, and with those known before."""
    todo: list[tuple[ast.AST, Locals]] = [(tree, known)]
    while todo:
        node, names = todo.pop()
        if isinstance(node, ast.Call):
            yield node, names
        if isinstance(node, _FUNCTIONS):
            names = {**names, **bindings(node)}
        todo += ((child, names) for child in ast.iter_child_nodes(node))


def bindings(scope: ast.AST) -> Locals:
    """Return what a function, or a module, binds itself, other than by imports."""
    times: Counter[str] = Counter()
    values: dict[str, ast.expr] = {}
    for node in _own_nodes(scope):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            times[node.id] += 1
        elif isinstance(node, ast.arg):
            times[node.arg] += 1
        elif isinstance(node, _NAMED) and node.name:
            times[node.name] += 1
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [one.id for one in targets if isinstance(one, ast.Name)]
            values |= dict.fromkeys(names, node.value) if node.value else {}
    return {name: values.get(name) if times[name] == 1 else None for name in times}


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes inside, but not those inside inner functions and classes."""
    todo = [*ast.iter_child_nodes(scope)]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (ast.ClassDef, *_FUNCTIONS)):
            todo += ast.iter_child_nodes(node)
