"""Imports every app's consumers module, and tells what went wrong."""

from __future__ import annotations

import ast
import importlib
import logging
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec
from django.apps import AppConfig, apps
from django.utils.module_loading import module_has_submodule

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.bus.registry import label_of_module, registry
from django_gomq.conf import Config

logger = logging.getLogger("gomq.registry")

_TESTS: Final = ("_", "test", "conftest")
"""How modules of a package begin that no server imports."""
_OTHERS: Final = tuple(
    {
        sysconfig.get_path(name)
        for name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    | {str(Path(__file__).parent), "<"}
)
"""How the paths of files begin that are not the project's."""


class Skipped(msgspec.Struct, frozen=True):
    """A file that was not used as a third-party module it needs is not installed."""

    module: str
    missing: str


class ConsumersError(ConfigurationError):
    """A module of consumers that cannot be imported."""

    def __init__(self, message: str, filename: str | None) -> None:
        super().__init__(message)
        self.filename = filename
        """What ``runserver`` watches, so that it comes back when this is repaired."""


skipped: Final[list[Skipped]] = []
"""Modules that were not used, for the system check and the listing."""


def discover(config: Config) -> None:
    """Import the modules named in ``AUTODISCOVER`` of every installed app.

    Of a package, all modules but those of tests. What is ``skipped`` is told once by a
    WARNING. Raises ConsumersError, which names app, file and setting, for any other
    import error.
    """
    found = [
        skip
        for app in apps.get_app_configs()
        if app.name not in config.autodiscover_exclude
        for name in config.autodiscover
        if has_module(app, name)
        for skip in _read(app, f"{app.name}.{name}")
    ]
    for skip in found:
        if skip not in skipped:
            write_log(
                logger,
                logging.WARNING,
                "%s was skipped: %s, which it imports, is not installed; if it is "
                "another library's, GOMQ['AUTODISCOVER_EXCLUDE'] leaves its app out",
                skip.module,
                skip.missing,
            )
    skipped[:] = found


def has_module(app: AppConfig, name: str) -> bool:
    """Whether an app has a module of this name, as ``AUTODISCOVER`` gives them."""
    return module_has_submodule(app.module, name)


def _read(app: AppConfig, module: str) -> Iterator[Skipped]:
    skip = _import(app, module)
    if skip is not None:
        yield skip
        return
    for found in pkgutil.iter_modules(getattr(sys.modules[module], "__path__", ())):
        if not found.name.startswith(_TESTS):
            yield from _read(app, f"{module}.{found.name}")


def _import(app: AppConfig, module: str) -> Skipped | None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing, files = error.name or "", _files_of(module, error)
        _watch(files)
        if _is_foreign(missing) and not _uses_bus(files, missing):
            _forget(module)
            return Skipped(module, missing)
        raise _explained(app, module, error, files) from error
    except Exception as error:
        files = _files_of(module, error)
        _watch(files)
        raise _explained(app, module, error, files) from error
    return None


def _is_foreign(missing: str) -> bool:
    """Whether the module belongs to nobody in this project.

    Channels, say, whose users name their files consumers.py too.
    """
    root = missing.partition(".")[0]
    own = {app.name.partition(".")[0] for app in apps.get_app_configs()}
    return bool(root) and root not in own and find_spec(root) is None


def _files_of(module: str, error: Exception) -> dict[str, int]:
    """Return the project's files that were being imported, the last one innermost.

    With the line of each where it went on, or stopped.
    """
    spec = find_spec(module)
    files = {spec.origin: 1} if spec is not None and spec.origin else {}
    for frame, line in traceback.walk_tb(error.__traceback__):
        if not frame.f_code.co_filename.startswith(_OTHERS):
            files.pop(frame.f_code.co_filename, None)
            files[frame.f_code.co_filename] = line
    if isinstance(error, SyntaxError) and error.filename:
        files.pop(error.filename, None)
        files[error.filename] = error.lineno or 1
    return files


def _uses_bus(files: Iterable[str], missing: str) -> bool:
    """Whether one of these files has consumers of this bus, as far as imports tell.

    Consumers of Channels may emit.
    """
    imported = {name for file in files for name in _imported_names(file)}
    if missing.partition(".")[0] == "channels":
        return bool(imported & {"consumer", "*"})
    return bool(imported)


def _imported_names(file: str) -> Iterator[str]:
    """Yield what a file imports of django_gomq; ``*`` stands for all, or unknown."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, ValueError, SyntaxError):  # it is compiled, and its source gone
        yield "*"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _is_bus(node.module or ""):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ("*" for alias in node.names if _is_bus(alias.name))


def _is_bus(module: str) -> bool:
    return module.partition(".")[0] == "django_gomq"


def _forget(module: str) -> None:
    """Undo what the module registered before it failed: it is skipped as a whole."""
    kept = {
        name: registration
        for name, registration in registry.snapshot().items()
        if registration.source is None
        or not f"{registration.source.module}.".startswith(f"{module}.")
    }
    registry.restore(kept)


def _watch(files: Iterable[str]) -> None:
    """Have ``runserver`` watch them: what could not be imported is in no module."""
    autoreload = sys.modules.get("django.utils.autoreload")
    if autoreload is not None:
        autoreload.autoreload_started.connect(
            partial(_watch_each, tuple(files)), weak=False
        )


def _watch_each(files: Iterable[str], sender: Any, **signal: Any) -> None:
    for file in map(Path, files):
        sender.watch_dir(file.parent, file.name)


def _explained(
    app: AppConfig, module: str, error: Exception, files: dict[str, int]
) -> ConsumersError:
    file = next(reversed(files), None)
    place = f"{file}, line {files[file]}" if file else app.path
    where = f"{module} of app {app.label!r} ({place})"
    if isinstance(error, ConfigurationError):
        return ConsumersError(f"{where}: {error}", file)
    text = str(error).rstrip(".")
    return ConsumersError(
        f"{where} cannot be imported: {type(error).__name__}: {text}. "
        f"GOMQ['AUTODISCOVER'] names such modules, and {app.name!r} in "
        "GOMQ['AUTODISCOVER_EXCLUDE'] leaves this app out.",
        file,
    )


def label_of(module: str) -> str:
    """Return the label of the app that a module belongs to, for default names."""
    app = apps.get_containing_app_config(module) if apps.apps_ready else None
    return app.label if app is not None else label_of_module(module)
