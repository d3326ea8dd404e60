"""What operators see and do where events wait at a Redis: with a table, and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.backends.redis_servers import RedisServer, running
from tests.django_site.waiting import wait_until
from tests.management.durable_site import DurableSite

BACKEND = "django_gomq.backends.redis.RedisBackend"
IMPOSSIBLE = "8"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running("redis") as made:
        yield made


@pytest.fixture
def redis_site(bare: DurableSite, server: RedisServer) -> Iterator[DurableSite]:
    """A site whose events wait at a Redis; its database is not migrated yet."""
    url = f"redis://127.0.0.1:{server.port}/0"
    broker = {"BACKEND": BACKEND, "OPTIONS": {"url": url, "lease": 3.0}}
    gomq = {"BROKERS": {"default": broker, "local": {}}, "ROUTES": {"local.*": "local"}}
    bare.gomq_settings = gomq
    bare.more["DURABLE_APPS"] = "django.contrib.contenttypes django.contrib.auth"
    yield bare
    with server.client() as client:
        client.flushall()


def dead_letters(site: DurableSite, *arguments: str) -> CompletedProcess[str]:
    return site.gomq("dead-letters", *arguments)


def listed(site: DurableSite) -> list[dict[str, Any]]:
    done = dead_letters(site, "list", "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["dead_letters"]
    return found


def ask(server: RedisServer) -> None:
    """Ask for what nobody can do, as a bare client."""
    event = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/elsewhere"}
    with server.client() as client:
        stream = "{gomq}:e:job.asked"
        client.xadd(stream, {**event, "ce-type": "job.asked", "data": IMPOSSIBLE})


def fail_one(site: DurableSite, server: RedisServer) -> None:
    """Have a worker give one message up, and end."""
    assert site.gomq("setup").returncode == 0
    with site.worker() as worker:
        ask(server)
        wait_until(lambda: listed(site), "it is given up")
        assert worker.end() == 0


def rows_in(site: DurableSite) -> int:
    ((count,),) = site.execute("SELECT count(*) FROM gomq_dead_letter")
    assert isinstance(count, int)
    return count


def test_dead_letters_stand_in_the_table_once_it_is_there(
    redis_site: DurableSite, server: RedisServer
) -> None:
    redis_site.migrate()
    fail_one(redis_site, server)

    (letter,) = listed(redis_site)

    assert (letter["broker"], letter["consumer"]) == ("default", "jobs.done")
    assert "cannot be done" in letter["error"]
    assert rows_in(redis_site) == 1
    with server.client() as client:
        assert client.xlen("{gomq}:d:jobs.done") == 0
    done = dead_letters(redis_site, "show", str(letter["id"]), "--payload")
    assert f"  {IMPOSSIBLE}" in done.stdout.splitlines()
    done = dead_letters(redis_site, "replay", "--consumer", "jobs.done")
    assert (done.returncode, done.stdout) == (0, "Replayed 1 dead letter.\n")
    assert listed(redis_site) == []
    with redis_site.worker():
        wait_until(lambda: listed(redis_site), "it is given up again")
    done = dead_letters(redis_site, "discard", "--all")
    assert (done.returncode, listed(redis_site)) == (0, [])


def test_a_server_that_is_away_keeps_the_table_from_nothing(
    redis_site: DurableSite, server: RedisServer
) -> None:
    redis_site.migrate()
    fail_one(redis_site, server)
    (letter,) = listed(redis_site)
    server.stop()
    try:
        done = dead_letters(redis_site, "list", "--json")
        assert json.loads(done.stdout)["total"] == 1
        assert "cannot be had now" in done.stderr

        done = dead_letters(redis_site, "replay", str(letter["id"]))

        assert done.returncode == 2
        assert "Redis" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        server.start()
    assert dead_letters(redis_site, "replay", str(letter["id"])).returncode == 0


def test_a_worker_moves_them_into_the_table_by_itself(
    redis_site: DurableSite, server: RedisServer
) -> None:
    redis_site.migrate()
    assert redis_site.gomq("setup").returncode == 0

    with redis_site.worker():
        ask(server)

        wait_until(lambda: rows_in(redis_site) == 1, "the worker moves it")


def test_without_a_table_the_server_has_them(
    redis_site: DurableSite, server: RedisServer
) -> None:
    fail_one(redis_site, server)

    (letter,) = listed(redis_site)

    assert letter["id"].endswith(".jobs.done")
    done = dead_letters(redis_site, "list", "--error", "nothing of the kind")
    assert done.stdout == "No dead letters.\n"
    done = dead_letters(redis_site, "show", letter["id"], "--payload")
    assert "cannot be done" in done.stdout
    done = dead_letters(redis_site, "show", "1-1.jobs.done")
    assert (done.returncode, "Not at the server" in done.stderr) == (1, True)
    done = dead_letters(redis_site, "replay", "--all", "--dry-run")
    assert done.stdout == "Would have replayed 1 dead letter.\n"
    done = dead_letters(redis_site, "replay", letter["id"])
    assert (done.returncode, listed(redis_site)) == (0, [])
    with redis_site.worker():
        wait_until(lambda: listed(redis_site), "it is given up again")
    done = dead_letters(redis_site, "discard", "--consumer", "jobs.done", "--json")
    assert json.loads(done.stdout) == {"discarded": 1, "dry_run": False}


def test_commands_speak_of_the_server_also_while_it_is_away(
    redis_site: DurableSite, server: RedisServer
) -> None:
    redis_site.migrate()
    assert redis_site.gomq("setup").returncode == 0
    redis_site.emit("job.asked", "1", "2")

    done = redis_site.gomq("doctor")

    told = done.stdout.replace("\n  ", " ")
    assert done.returncode == 1
    assert "recorded consumers: 3, living processes: 0, waiting: 4" in told
    assert "no process runs 'jobs.done', and 2 messages wait for it" in told
    assert redis_site.gomq("list").returncode == 0
    server.stop()
    try:
        for subcommand in ("doctor", "list"):
            done = redis_site.gomq(subcommand)
            said = " ".join((done.stdout + done.stderr).split())
            assert "AwayError" in said, subcommand
            assert "Traceback" not in said, subcommand
    finally:
        server.start()
