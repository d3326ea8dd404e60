"""Imports every app's consumers module, and tells what went wrong."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

import msgspec
from django.apps import AppConfig, apps
from django.utils.module_loading import module_has_submodule

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.registry import label_of_module, registry
from django_gomq.conf import Config


class Skipped(msgspec.Struct, frozen=True):
    """A file that was not used as a third-party module it needs is not installed."""

    module: str
    missing: str


def discover(config: Config) -> list[Skipped]:
    """Import the modules named in ``AUTODISCOVER`` of every installed app.

    Returns those that were skipped. Raises ConfigurationError, which names app, file
    and setting, for any other import error.
    """
    skipped = []
    for app in apps.get_app_configs():
        if app.name in config.autodiscover_exclude:
            continue
        for name in config.autodiscover:
            found = _import(app, name)
            if found is not None:
                skipped.append(found)
    return skipped


def _import(app: AppConfig, name: str) -> Skipped | None:
    module = f"{app.name}.{name}"
    try:
        if not module_has_submodule(app.module, name):
            return None
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if _is_foreign(missing):
            _forget(module)
            return Skipped(module, missing)
        raise _explained(app, module, error) from error
    except Exception as error:
        raise _explained(app, module, error) from error
    return None


def _is_foreign(missing: str) -> bool:
    """Whether the module belongs to nobody in this project.

    Channels, say, whose users name their files consumers.py too.
    """
    root = missing.partition(".")[0]
    own = {app.name.partition(".")[0] for app in apps.get_app_configs()}
    return bool(root) and root not in own and find_spec(root) is None


def _forget(module: str) -> None:
    """Undo what the module registered before it failed: it is skipped as a whole."""
    kept = {
        name: (consumer, source)
        for name, (consumer, source) in registry.snapshot().items()
        if not source.startswith(f"{module}.")
    }
    registry.restore(kept)


def _explained(app: AppConfig, module: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"{module} of app {app.label!r} ({app.path}) cannot be imported: "
        f"{type(error).__name__}: {error}. GOMQ['AUTODISCOVER'] names such modules, "
        f"and {app.name!r} in GOMQ['AUTODISCOVER_EXCLUDE'] leaves this app out."
    )


def label_of(module: str) -> str:
    """Return the label of the app that a module belongs to, for default names."""
    app = apps.get_containing_app_config(module) if apps.apps_ready else None
    return app.label if app is not None else label_of_module(module)
