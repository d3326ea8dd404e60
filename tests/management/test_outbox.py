"""A site whose events go to Redis through its database: worker, doctor and checks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.backends.redis_servers import RedisServer, running
from tests.django_site.waiting import wait_until
from tests.management.durable_site import _EMIT, DurableSite


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running("redis") as made:
        yield made


def settings(server: RedisServer, **options: Any) -> dict[str, Any]:
    given = {"url": f"redis://127.0.0.1:{server.port}/0", "outbox": "default"}
    backend = "django_gomq.backends.redis.RedisBackend"
    broker = {"BACKEND": backend, "OPTIONS": {**given, **options}}
    return {"BROKERS": {"default": broker, "local": {}}}


def emit(site: DurableSite, event_type: str, *data: str, **gomq: Any) -> None:
    line = [sys.executable, "-c", _EMIT, event_type, *data]
    done = site.run(line, **gomq)
    assert done.returncode == 0, done.stderr


def test_a_broker_with_an_outbox_is_listed_with_what_it_promises(
    bare: DurableSite, server: RedisServer
) -> None:
    done = bare.gomq("list", **settings(server))

    assert done.returncode == 0, done.stderr
    assert "transactional" in done.stdout


def text_of(done: CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())


def test_a_worker_forwards_what_others_emit_and_doctor_says_who_does(
    bare: DurableSite, server: RedisServer
) -> None:
    gomq = settings(server)
    bare.migrate()
    assert bare.gomq("setup", **gomq).returncode == 0
    emit(bare, "job.asked", "1", **gomq)

    broken = bare.gomq("doctor", **gomq)
    line = [sys.executable, "-m", "django", "check", "--database", "default"]
    checked = bare.run(line, **gomq)

    assert broken.returncode == 1
    told = "no process forwards what stands in its outbox, 1 events: start manage.py"
    assert told in text_of(broken)
    assert "(gomq.W013) 1 events of broker 'default' wait in" in text_of(checked)
    with bare.worker(**gomq) as worker:
        assert "; forwards from database 'default'" in worker.log
        bare.wait_for("done 1", "seen 1")
        wait_until(
            lambda: "forwards what" not in text_of(bare.gomq("doctor", **gomq)),
            "a relay that doctor sees",
        )


def test_a_worker_without_consumers_forwards_and_tells_what_nobody_takes(
    bare: DurableSite, server: RedisServer
) -> None:
    gomq = settings(server, prefix="producer")
    gomq["ROUTES"] = {"*": "local", "out.*": "default"}
    bare.migrate()
    with server.client() as client:
        client.set("{producer}:version", 1)  # somebody has set up a consumer there
    emit(bare, "out.sent", "1", **gomq)

    with bare.worker(**gomq) as worker:
        assert "runs: no consumer; forwards from database" in worker.log
        wait_until(
            lambda: bare.execute("SELECT 1 FROM gomq_dead_letter"), "a dead letter"
        )

    listed = text_of(
        bare.gomq("dead-letters", "list", "--consumer", "gomq.relay", **gomq)
    )
    assert "out.sent" in listed
    assert "NoConsumerError" in listed
    assert "will never take 1 events" in text_of(bare.gomq("doctor", **gomq))
    replayed = bare.gomq("dead-letters", "replay", "--all", **gomq)
    assert replayed.returncode == 0, replayed.stderr
    assert len(bare.execute("SELECT 1 FROM gomq_relay_event")) == 1


def test_doctor_tells_of_the_outbox_while_the_server_is_away(
    bare: DurableSite, server: RedisServer
) -> None:
    gomq = settings(server, url="redis://127.0.0.1:1/0")
    bare.migrate()
    emit(bare, "job.asked", "1", "2", **gomq)

    told = text_of(bare.gomq("doctor", **gomq))

    assert "its server cannot be asked" in told
    assert "its server answers" not in told
    assert "no process forwards what stands in its outbox, 2 events" in told


@pytest.mark.parametrize(
    ("backend", "outbox", "said"),
    [
        ("redis.RedisBackend", "nowhere", "outbox: there is no database 'nowhere'"),
        ("redis.RedisBackend", 7, "outbox is 7: name a database of DATABASES"),
        ("database.DatabaseBackend", "default", "'database' is in one: leave outbox"),
        ("memory.MemoryBackend", "default", "'memory' has none: leave outbox out"),
    ],
)
def test_check_reports_an_outbox_that_cannot_be(
    bare: DurableSite, backend: str, outbox: object, said: str
) -> None:
    options = {"outbox": outbox}
    if backend.startswith("redis"):
        options["url"] = "redis://127.0.0.1:1/0"
    broker = {"BACKEND": f"django_gomq.backends.{backend}", "OPTIONS": options}
    line = [sys.executable, "-m", "django", "check"]

    done = bare.run(line, BROKERS={"default": broker, "local": {}})

    assert done.returncode == 1
    assert "gomq.E004" in done.stderr
    assert said in text_of(done)
