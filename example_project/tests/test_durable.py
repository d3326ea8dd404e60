"""With one setting the database, or Redis, keeps events for a worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from django.conf import settings
from django.test import Client, override_settings

from acceptance import rows
from acceptance.law import check_law, undelivered
from acceptance.ports import free_port
from acceptance.run import wait_until_quiet
from acceptance.scrape import parse
from acceptance.server import PROJECT, Backend, Server
from clinic.simulation.client import Client as Connection
from clinic.simulation.tally import Tally

PATIENCE = 60.0


def kept_by(backend: Mapping[str, Any], *patterns: str) -> dict[str, Any]:
    """Return GOMQ with these events at this backend."""
    return {
        **settings.GOMQ,
        "BROKERS": {"default": {}, "durable": backend},
        "ROUTES": dict.fromkeys(patterns, "durable"),
    }


DATABASE = kept_by(
    {"BACKEND": "django_gomq.backends.database.DatabaseBackend"}, "patient.*"
)
REDIS = kept_by(
    {
        "BACKEND": "django_gomq.backends.redis.RedisBackend",
        # Nothing listens there, and nothing is asked.
        "OPTIONS": {"url": "redis://127.0.0.1:1/0"},
    },
    "patient.*",
    "health.*",
)


@pytest.mark.parametrize(
    ("gomq", "patients", "trail", "laboratory"),
    [
        (DATABASE, "database", "database and memory", "memory"),
        (REDIS, "redis", "redis", "redis"),
    ],
    ids=["database", "redis"],
)
@pytest.mark.django_db
def test_the_home_page_says_where_the_events_of_each_consumer_wait(
    client: Client, gomq: dict[str, Any], patients: str, trail: str, laboratory: str
) -> None:
    with override_settings(GOMQ=gomq):
        page = client.get("/").content.decode()

    for name, backend in (
        ("statistics.patients", patients),
        ("audit.trail", trail),
        ("laboratory.analysis", laboratory),
    ):
        assert f"<code>{name}</code></td><td>{backend}</td>" in page


@pytest.mark.django_db
def test_the_page_of_the_switch_says_who_has_the_numbers(client: Client) -> None:
    with override_settings(GOMQ=REDIS):
        page = client.get("/switches/").content.decode()

    assert "wait in redis" in page
    assert "gomq worker" in page
    assert "dropped" not in page


def visit(server: Server) -> None:
    """Make a patient and a record of it."""
    connection = Connection(server.url, Tally())
    patient = {"name": "Ada", "city": "Lyon"}
    number = connection.send_json("POST", "/api/patients/", patient).json()["id"]
    record = {"patient": number, "kind": "visit", "signed_by": "Dr. Osei"}
    connection.send_json("POST", "/api/records/", record)
    connection.close()


@pytest.mark.parametrize("backend", ["database", "redis"])
def test_a_worker_handles_what_the_server_committed_and_the_books_agree(
    backend: Backend,
) -> None:
    with Server(free_port(0), backend=backend) as server:
        visit(server)

        is_quiet, scrape = wait_until_quiet(server, PATIENCE)

        assert is_quiet
        written = rows.written(server.database)
        assert written["statistics.patients"] == 1
        assert written["laboratory.analysis"] == 1
        assert written["audit.trail"] == 2
        assert all(check.holds for check in check_law(scrape))


def test_only_a_backend_that_there_is_can_be_chosen() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=PROJECT,
        env={**os.environ, "CLINIC_BACKEND": "carrier-pigeon"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "choose one of memory, database, redis" in done.stderr


def test_what_only_the_database_holds_is_undelivered() -> None:
    scrape = parse(
        'gomq_messages_published_total{broker="durable",event="patient.created"} 4\n'
        "gomq_messages_processed_total"
        '{event="patient.created",consumer="a.b",outcome="success"} 1\n'
    )

    assert undelivered(scrape) == 3
