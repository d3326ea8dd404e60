"""Private servers for one run of the benchmarks, and databases on them.

They are those of the tests: without fsync, so that the code is measured and no disk.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import django
from django.core.management import call_command
from django.db import connection

from benchmarks.project import configure
from tests.backends import redis_servers
from tests.django_site import mariadb, postgres

ADDRESSES = "GOMQ_BENCH_SERVERS"  # the environment hands them to the cases
ENGINES = {"postgresql": "postgresql", "mariadb": "mysql", "sqlite": "sqlite3"}
BACKEND = "django_gomq.backends.database.DatabaseBackend"

_numbers = itertools.count(1)


@contextmanager
def servers() -> Iterator[None]:
    """Run all servers; raises what says how to install one that is not there."""
    with ExitStack() as stack:
        addresses = {
            "postgresql": stack.enter_context(postgres.serving()),
            "mariadb": stack.enter_context(mariadb.serving()),
            "redis": {"url": stack.enter_context(_redis())},
        }
        os.environ[ADDRESSES] = json.dumps(addresses)
        yield


@contextmanager
def _redis() -> Iterator[str]:
    """Run a server without a log, with a database for each case; yield its address."""
    options = ("--appendonly", "no", "--databases", "100")
    with redis_servers.running("redis", *options) as server:
        yield f"redis://127.0.0.1:{server.port}"


def new_site(
    vendor: str, *apps: str, is_migrated: bool = True, **settings: Any
) -> Mapping[str, Any]:
    """Set Django up on a new database, and return its entry of DATABASES."""
    entry = _new_database(vendor)
    if vendor == "mariadb":
        mariadb.use_pymysql()
    reopen_site(entry, *apps, **settings)
    if is_migrated:
        call_command("migrate", verbosity=0)
    return entry


def reopen_site(entry: Mapping[str, Any], *apps: str, **settings: Any) -> None:
    """Set Django up on a database that another process has made."""
    gomq = {"BROKERS": {"default": {"BACKEND": BACKEND}}, "TRACING": {"ENABLED": False}}
    configure(apps, gomq=gomq, databases={"default": entry}, **settings)
    django.setup()
    connection.ensure_connection()


def _new_database(vendor: str) -> dict[str, Any]:
    engine = f"django.db.backends.{ENGINES[vendor]}"
    if vendor == "sqlite":
        return {
            "ENGINE": engine,
            "NAME": tempfile.mktemp(suffix=".sqlite3"),  # noqa: S306 - in our own folder
            "OPTIONS": {
                "timeout": 20,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    entry = {"ENGINE": engine, **json.loads(os.environ[ADDRESSES])[vendor]}
    name = f"bench_{os.getpid()}_{next(_numbers)}"
    _create(vendor, entry, name)
    return {**entry, "NAME": name, "CONN_MAX_AGE": None}


def _create(vendor: str, entry: Mapping[str, Any], name: str) -> None:
    if vendor == "mariadb":
        import pymysql

        with (
            pymysql.connect(
                host=entry["HOST"], port=entry["PORT"], user=entry["USER"]
            ) as one,
            one.cursor() as cursor,
        ):
            cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return
    import psycopg

    with psycopg.connect(dsn(entry), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")


def dsn(entry: Mapping[str, Any]) -> str:
    """Return the address of a PostgreSQL database, as peers take it."""
    return "postgresql://{USER}@{HOST}:{PORT}/{NAME}".format_map(entry)
