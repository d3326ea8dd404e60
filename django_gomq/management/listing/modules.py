"""Source files as modules: what they import and define; nothing is ever run."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec


class Module(msgspec.Struct, frozen=True, eq=False):
    """One source file, parsed."""

    name: str
    file: str
    """Its path from where its top package is, with slashes."""
    tree: ast.Module
    imports: Mapping[str, str]
    """What local names stand for, as dotted paths; those inside functions too."""
    stars: tuple[str, ...]
    """Modules of which everything is imported."""
    names: Mapping[str, ast.AST]
    """What it defines: ``NAME``, ``Class`` and ``Class.name``, each its latest."""


class Modules:
    """The modules of a project, each parsed when it is first needed."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._texts: dict[str, str] = {}
        self._parsed: dict[str, Module | None] = {}
        self.unreadable: dict[str, str] = {}
        """Why a file could not be used, by its path."""

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def get(self, name: str) -> Module | None:
        """Return a module, or None if it is not this project's or cannot be read."""
        if name not in self._parsed:
            self._parsed[name] = self._parse(name) if name in self._files else None
        return self._parsed[name]

    def containing(self, *words: str) -> Iterator[Module]:
        """Yield the modules whose text has one of these words, by name."""
        for name in sorted(self._files):
            text = self._text(name)
            if any(word in text for word in words):
                module = self.get(name)
                if module is not None:
                    yield module

    def _text(self, name: str) -> str:
        if name not in self._texts:
            text = ""
            try:
                with tokenize.open(self._files[name]) as file:
                    text = file.read()
            except (OSError, SyntaxError, UnicodeDecodeError) as error:
                self.unreadable[self._shown(name)] = str(error)
            self._texts[name] = text
        return self._texts[name]

    def _parse(self, name: str) -> Module | None:
        try:
            tree = ast.parse(self._text(name))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self.unreadable[self._shown(name)] = str(error)
            return None
        package = name if self._is_package(name) else name.rpartition(".")[0]
        imports, stars = _imports(tree, package)
        names = dict(_definitions(tree.body))
        return Module(name, self._shown(name), tree, imports, stars, names)

    def _is_package(self, name: str) -> bool:
        return self._files[name].name == "__init__.py"

    def _shown(self, name: str) -> str:
        path = name.replace(".", "/")
        return f"{path}/__init__.py" if self._is_package(name) else f"{path}.py"


def _imports(tree: ast.Module, package: str) -> tuple[dict[str, str], tuple[str, ...]]:
    found: dict[str, str] = {}
    stars: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                top = one.name.partition(".")[0]
                found[one.asname or top] = one.name if one.asname else top
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, package)
            for one in node.names:
                if one.name == "*":
                    stars.append(source)
                else:
                    found[one.asname or one.name] = f"{source}.{one.name}"
    return found, tuple(stars)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def _definitions(
    body: Iterable[ast.stmt], prefix: str = ""
) -> Iterator[tuple[str, ast.AST]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield prefix + node.name, node
            yield from _definitions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for name in _targets(node):
                yield prefix + name, node.value
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _definitions(_inner(node), prefix)


def _targets(node: ast.Assign | ast.AnnAssign) -> Iterator[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id


def _inner(node: ast.If | ast.Try | ast.With) -> Iterator[ast.stmt]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        elif isinstance(child, ast.ExceptHandler):
            yield from child.body
