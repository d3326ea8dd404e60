"""Which source files are this project's own; it reads none of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Final

from django.apps import apps
from django.conf import settings

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
        folders[:] = sorted(one for one in folders if _is_looked_into(one))
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
