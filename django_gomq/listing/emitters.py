"""Finds in the project's source who emits what."""

from __future__ import annotations

import ast
import enum
import os
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any, Final, get_type_hints

import msgspec
from django.apps import apps
from django.conf import settings

from django_gomq import aemit, emit, emit_many, emit_model_events, emit_on_signal
from django_gomq.bus.event import Event, EventMeta

from .overview import EmitCall

_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
_LEFT_OUT: Final = frozenset({"tests", "test", "migrations", "node_modules"})
_OURSELVES: Final = "django_gomq"


def project_files() -> Mapping[str, Path]:
    """Return the files of the installed apps, and of the root URLconf's package.

    By module name. Packages that were installed, tests and migrations are left out:
    what those emit says nothing about what this project does. Imports nothing.
    """
    found: dict[str, Path] = {}
    for package, folder in _packages():
        if _INSTALLED.isdisjoint(folder.parts):
            for path in _python_files(folder):
                found.setdefault(_module_name(package, path.relative_to(folder)), path)
    return found


def _packages() -> Iterator[tuple[str, Path]]:
    for app in apps.get_app_configs():
        is_package = isinstance(app.module, ModuleType) and hasattr(
            app.module, "__path__"
        )
        if is_package and app.name != _OURSELVES:
            yield app.name, Path(app.path)
    yield from _package_of_urls()


def _package_of_urls() -> Iterator[tuple[str, Path]]:
    """Yield the project's package, which has views and is often no app itself."""
    package = str(getattr(settings, "ROOT_URLCONF", "")).rpartition(".")[0]
    if not package:
        return
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return
    for folder in (spec and spec.submodule_search_locations) or ():
        yield package, Path(folder)


def _python_files(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(folder for folder in folders if _is_looked_into(folder))
        for name in sorted(files):
            if name.endswith(".py") and not _is_test(name.removesuffix(".py")):
                yield Path(place, name)


def _is_looked_into(folder: str) -> bool:
    return not folder.startswith((".", "__")) and folder not in _LEFT_OUT | _INSTALLED


def _is_test(stem: str) -> bool:
    is_named_so = stem in {"test", "tests", "conftest"}
    return is_named_so or stem.startswith("test_") or stem.endswith("_test")


def _module_name(package: str, relative: Path) -> str:
    parts = [package, *relative.with_suffix("").parts]
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


Locals = Mapping[str, ast.expr | None]
"""Names that functions bind, with the value of each that one assigns just once."""

_FUNCTION_NODES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
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
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield alias.asname or top, alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name(f"{'.' * node.level}{node.module or ''}", package)
            for alias in node.names:
                yield alias.asname or alias.name, f"{origin}.{alias.name}"


def calls(tree: ast.Module, known: Locals) -> Iterator[tuple[ast.Call, Locals]]:
    """Yield each call with the local names there, and with those known before."""
    todo: list[tuple[ast.AST, Locals]] = [(tree, known)]
    while todo:
        node, names = todo.pop()
        if isinstance(node, ast.Call):
            yield node, names
        if isinstance(node, _FUNCTION_NODES):
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
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            values |= dict.fromkeys(names, node.value) if node.value else {}
    return {name: values.get(name) if times[name] == 1 else None for name in times}


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes inside, but not those inside inner functions and classes."""
    todo = [*ast.iter_child_nodes(scope)]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (ast.ClassDef, *_FUNCTION_NODES)):
            todo += ast.iter_child_nodes(node)


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
        return next((name for name in found if name is not None), None)


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
    for owner in (function, getattr(function, "__self__", None)):
        if isinstance(owner, EventMeta):
            return owner
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


_FUNCTIONS: Final = (aemit, emit, emit_many, emit_model_events, emit_on_signal)
_UNREADABLE: Final = (
    *(OSError, SyntaxError, ValueError, ImportError),
    *(RecursionError, MemoryError),
)
_MODEL_EVENTS: Final = ("created", "updated", "saved", "deleted")
_LONGEST: Final = 60


class EmitCalls(msgspec.Struct, frozen=True):
    """Who emits what."""

    by_event: Mapping[str | None, Sequence[EmitCall]]
    """By event type; under None those of which only a run would tell."""
    unreadable: Mapping[str, str]
    """Why a file could not be read, by its name."""


def find_emitters(files: Mapping[str, Path]) -> EmitCalls:
    """Return the calls that emit in the files of these modules. Imports none of them.

    A name in a file is what it is in this process. In a file whose module is not loaded
    these are what it imports from those that are, and its own constants.
    """
    found: dict[str | None, list[EmitCall]] = defaultdict(list)
    unreadable = {}
    for module, path in files.items():
        file = module.replace(".", "/")
        file += "/__init__.py" if path.name == "__init__.py" else ".py"
        try:
            for event, emitter in _emitters(read(module, path), file):
                found[event].append(emitter)
        except _UNREADABLE as error:
            unreadable[file] = str(error)
    return EmitCalls({name: sorted(found[name]) for name in found}, unreadable)


def _emitters(source: Source, file: str) -> Iterator[tuple[str | None, EmitCall]]:
    own = bindings(source.tree) if source.module not in sys.modules else {}
    constants = {name: own[name] for name in own if name not in source.imports}
    for node, names in calls(source.tree, constants):
        place = Place(source, names)
        for name, given in _called(node, place):
            named = {keyword.arg: keyword.value for keyword in node.keywords}
            events = list(_events(name, given, named, place))
            shown = events if name == "emit_on_signal" else given
            emitter = EmitCall(file, node.lineno, name, _shorten(shown))
            for event in {place.event_type(expression) for expression in events} or {
                None
            }:
                yield event, emitter


def _called(node: ast.Call, place: Place) -> Iterator[tuple[str, Sequence[ast.expr]]]:
    """Yield which of our functions is called with what, now or by another."""
    candidates = [(node.func, node.args)]
    if isinstance(node.func, ast.Call) and len(node.func.args) == 1:
        candidates.append((node.func.args[0], node.args))  # sync_to_async(emit)(event)
    for index, argument in enumerate(node.args[:-1], 1):
        candidates.append((argument, node.args[index:]))  # partial(emit, event)
    for function, given in candidates:
        value = place.value(function)
        yield from (
            (function.__name__, given) for function in _FUNCTIONS if function is value
        )


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
        yield from (
            expression for expression in written if ast.unparse(expression) != "None"
        )
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
    for expression in written:
        yield (
            expression.elts[0]
            if isinstance(expression, ast.Tuple) and expression.elts
            else expression
        )


def _shorten(written: Sequence[ast.expr]) -> str:
    text = ast.unparse(written[0]) if written else "..."
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
