"""``gomq doctor`` and ``check --database`` say what is wrong with a site."""

from __future__ import annotations

import re
import sys
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.django_site.waiting import wait_until
from tests.management.durable_site import DurableSite


def lines(done: CompletedProcess[str]) -> list[str]:
    """Return a finding each, whole again."""
    assert done.stderr == ""
    return done.stdout.replace("\n  ", " ").splitlines()


def found(site: DurableSite, state: str, **gomq: Any) -> list[str]:
    done = site.gomq("doctor", **gomq)
    of_state = [line for line in lines(done) if line.startswith(f"{state}:")]
    assert done.returncode == any("broken:" in line for line in lines(done))
    return [line.partition(":")[2].strip() for line in of_state]


def check(site: DurableSite, *options: str, **gomq: Any) -> CompletedProcess[str]:
    return site.run([sys.executable, "-m", "django", "check", *options], **gomq)


def test_a_site_with_a_worker_is_well(durable: DurableSite) -> None:
    with durable.worker():
        wait_until(
            lambda: "living processes: 1" in " ".join(found(durable, "ok")), "a process"
        )

        done = durable.gomq("doctor")

    assert done.returncode == 0
    settings, server = lines(done)
    assert settings.endswith("Settings and registrations have no known mistake.")
    assert server == (
        "ok:      Broker 'default': its server answers; recorded consumers: 3, living "
        "processes: 1, waiting: 0, dead letters: 0."
    )


def test_a_site_in_memory_is_told_that_it_needs_no_worker(bare: DurableSite) -> None:
    done = bare.gomq("doctor", BROKERS={"default": {}}, ROUTES={})

    assert done.returncode == 0
    assert "no worker is needed" in lines(done)[-1]


def test_migrations_come_first(bare: DurableSite) -> None:
    (told,) = found(bare, "broken")

    assert told == (
        "Broker 'default': migrations are not applied (0001_initial, 0002_operators, "
        "0003_causes, 0004_messages, 0005_outcomes): "
        "run manage.py migrate gomq --database default."
    )


def test_consumers_that_are_not_recorded_are_named(bare: DurableSite) -> None:
    bare.migrate()

    (told,) = found(bare, "broken")

    assert "Not recorded: jobs.done, jobs.held, jobs.seen. Run manage.py" in told


def test_a_server_that_is_away_is_said_in_a_line(durable: DurableSite) -> None:
    (durable.folder / "site.sqlite3").write_text("this is no database, whatever it is")

    (told,) = found(durable, "broken")

    assert told.startswith("Broker 'default': its server is away:")


def test_wrong_settings_are_told_and_nothing_else(durable: DurableSite) -> None:
    (told,) = found(durable, "broken", NOSUCH=1)

    assert told.startswith("GOMQ['NOSUCH'] does not exist.")
    assert found(durable, "ok", NOSUCH=1) == []


@pytest.mark.parametrize("subcommand", ["doctor", "list"])
def test_options_before_the_subcommand_hide_no_wrong_settings(
    durable: DurableSite, subcommand: str
) -> None:
    done = durable.gomq("-v", "1", subcommand, NOSUCH=1)

    assert "GOMQ['NOSUCH'] does not exist." in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_no_worker_is_broken_where_something_waits(durable: DurableSite) -> None:
    assert len(found(durable, "warning")) == 3

    durable.emit("job.asked", "1")

    broken = found(durable, "broken")
    assert sorted(told.split("'")[3] for told in broken) == ["jobs.done", "jobs.seen"]
    assert all("1 messages wait for it: start manage.py gomq" in one for one in broken)


def test_an_outbox_that_stands_still_and_a_late_process_are_told_of(
    durable: DurableSite,
) -> None:
    durable.emit("job.asked", "1")
    durable.execute("UPDATE gomq_outbox SET made = made - 600")
    durable.execute(
        "INSERT INTO gomq_process (host, pid, owner, consumers, started, heartbeat) "
        "VALUES ('web-1', 4711, 'o', '[]', 0, 0)"
    )

    told = "\n".join(found(durable, "warning"))

    age = re.search(r"the oldest event in the outbox is (\d+) s old", told)
    assert age is not None
    assert int(age[1]) >= 600
    assert "process 4711 of host web-1 has not said for" in told


def test_a_consumer_that_the_code_lost_is_told_of_everywhere(
    durable: DurableSite,
) -> None:
    durable.leave_a_consumer("jobs.old")
    durable.emit("job.asked", "1")
    told = "Consumer 'jobs.old' is recorded at broker 'default' and not in the code"

    (warned,) = [one for one in found(durable, "warning") if "jobs.old" in one]
    checked = check(durable, "--database", "default")

    assert warned.startswith(told)
    assert "1 message waits for it" in warned
    assert checked.returncode == 0
    assert f"(gomq.W011) {told}" in checked.stderr
    with durable.worker() as worker:
        worker.wait_for("Consumer jobs.old is recorded at broker 'default'")


def test_the_check_names_what_is_not_recorded(bare: DurableSite) -> None:
    bare.migrate()

    checked = check(bare, "--database", "default")

    assert checked.returncode == 0
    assert "(gomq.W010) Broker 'default': Not recorded: jobs.done" in checked.stderr


@pytest.mark.parametrize("options", [[], ["--database", "default"]])
def test_a_check_asks_nothing_unless_it_is_told_to_and_there_are_tables(
    bare: DurableSite, options: list[str]
) -> None:
    if not options:
        bare.migrate()

    checked = check(bare, *options)

    assert (checked.returncode, "W010" in checked.stderr) == (0, False)
