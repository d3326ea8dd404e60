from __future__ import annotations

import pytest

from .interpreter import PACKAGE, run_python

WHAT_IS_LOADED = """
import django_gomq, sys
for name in sys.modules:
    print(name)
"""

NOT_INSTALLED = ("django", "asgiref", "opentelemetry", "prometheus_client")

# The root package names Django's side as well; the bus has to do without all of that.
BARE_ROOT = """
import sys, types
sys.modules["django_gomq"] = types.ModuleType("django_gomq")
sys.modules["django_gomq"].__path__ = ["django_gomq"]
"""

LOAD_ALL_OF_THE_BUS = """
import importlib, pkgutil
import django_gomq.bus as bus
for module in pkgutil.walk_packages(bus.__path__, "django_gomq.bus."):
    print(importlib.import_module(module.name).__name__)
"""

COLLECT_THE_TESTS_OF_THE_BUS = """
import os, sys, pytest
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
ours = ["-c", os.devnull, "--rootdir=.", "--import-mode=importlib"]
sys.exit(pytest.main([*ours, "-p", "no:cacheprovider", "--co", "-q", "tests/bus"]))
"""


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """All modules that one ``import django_gomq`` loads."""
    return set(run_python(WHAT_IS_LOADED).split())


@pytest.mark.parametrize(
    "package",
    [
        "django_gomq.backends",
        "django_gomq.live",
        "django_gomq.models",
        "django_gomq.observability",
        "opentelemetry",
        "prometheus_client",
        "pytest",
        "redis",
    ],
)
def test_importing_the_package_does_not_load(package: str, loaded: set[str]) -> None:
    found = [
        name for name in loaded if name == package or name.startswith(f"{package}.")
    ]

    assert found == []


def test_importing_the_package_defines_no_model() -> None:
    models = run_python(
        "import django_gomq; from django.apps import apps; print(dict(apps.all_models))"
    )

    assert models.strip() == "{}"


def test_every_module_of_the_bus_loads_where_no_django_is_installed() -> None:
    names = run_python(BARE_ROOT + LOAD_ALL_OF_THE_BUS, without=NOT_INSTALLED).split()

    assert len(names) >= len(list((PACKAGE / "bus").glob("[!_]*.py")))


def test_the_tests_of_the_bus_load_where_no_django_is_installed() -> None:
    collected = run_python(
        BARE_ROOT + COLLECT_THE_TESTS_OF_THE_BUS, without=NOT_INSTALLED
    )

    assert "::" in collected


# Two brokers, an emit and a handler, and all modules: on SQLite, which Python has.
A_SITE_WITHOUT_ANY_CLIENT = """
import importlib, pkgutil, threading
import django
from django.conf import settings
from django.core.management import call_command

settings.configure(
    INSTALLED_APPS=[
        "django.contrib.auth", "django.contrib.contenttypes", "django_gomq",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    GOMQ={
        "BROKERS": {
            "default": {},
            "durable": {"BACKEND": "django_gomq.backends.database.DatabaseBackend"},
        },
    },
)
django.setup()
import django_gomq
refused = []
for module in pkgutil.walk_packages(
    django_gomq.__path__, "django_gomq.", refused.append
):
    if module.name not in [*refused, "django_gomq.backends.redis", "django_gomq.admin"]:
        importlib.import_module(module.name)

handled = threading.Event()
django_gomq.consumer("stock.changed", name="shop.note")(lambda message: handled.set())
call_command("migrate", verbosity=0)
django_gomq.emit("stock.changed", {})
print(handled.wait(60), refused)
"""

CLIENTS = ("redis", "hiredis", "psycopg", "psycopg2", "MySQLdb", "pymysql")


def test_a_site_without_such_a_server_needs_the_client_of_none() -> None:
    told = run_python(A_SITE_WITHOUT_ANY_CLIENT, without=CLIENTS)

    assert told.strip() == "True ['django_gomq.backends.redis']"


def test_a_backend_whose_client_is_absent_says_what_to_install() -> None:
    told = run_python(
        "try:\n    import django_gomq.backends.redis\n"
        "except Exception as error:\n    print(type(error).__name__, error)",
        without=("redis",),
    )

    assert told.startswith("ConfigurationError")
    assert "pip install 'django-gomq[redis]'" in told
