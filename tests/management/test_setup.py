"""``gomq setup`` records consumers, and says what keeps it from that."""

from __future__ import annotations

import pytest

from tests.management.durable_site import DurableSite


def test_setup_records_the_consumers_of_each_server_and_says_so(
    bare: DurableSite,
) -> None:
    bare.migrate()

    first, again = bare.gomq("setup"), bare.gomq("setup", "--broker", "default")

    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("Broker 'default' (database):\n")
    assert "  jobs.done: recorded in database 'default'\n" in first.stdout
    assert "jobs.local" not in first.stdout
    assert again.stdout == first.stdout


def test_setup_of_a_broker_without_consumers_says_that(bare: DurableSite) -> None:
    bare.migrate()

    done = bare.gomq("setup", ROUTES={"*": "local"})

    assert done.returncode == 0
    assert done.stdout == "Broker 'default' (database):\n  no consumers\n"


def test_setup_before_migrate_names_the_command_that_is_missing(
    bare: DurableSite,
) -> None:
    done = bare.gomq("setup")

    assert done.returncode == 1
    assert "Broker 'default' could not be set up" in done.stderr
    assert "run manage.py migrate gomq --database default" in done.stderr


def test_setup_of_a_server_that_is_away_says_what_its_client_said(
    bare: DurableSite,
) -> None:
    bare.migrate()
    (bare.folder / "site.sqlite3").write_text("this is no database, whatever it is")

    done = bare.gomq("setup")

    assert done.returncode == 1
    assert "Broker 'default' could not be set up: its server cannot be" in done.stderr
    assert "file is not a database" in done.stderr


@pytest.mark.parametrize("subcommand", ["setup", "worker"])
@pytest.mark.parametrize(
    ("alias", "told"),
    [
        ("nosuch", "There is no broker 'nosuch' in GOMQ['BROKERS']; there are 'def"),
        ("local", "'local' has no server: the memory backend keeps no events"),
    ],
)
def test_a_broker_that_is_not_there_or_has_no_server_is_a_wrong_option(
    bare: DurableSite, subcommand: str, alias: str, told: str
) -> None:
    done = bare.gomq(subcommand, "--broker", alias)

    assert done.returncode == 2
    assert told in done.stderr


@pytest.mark.parametrize("subcommand", ["setup", "worker"])
def test_a_site_in_memory_alone_needs_neither_setup_nor_worker(
    bare: DurableSite, subcommand: str
) -> None:
    done = bare.gomq(subcommand, BROKERS={"default": {}}, ROUTES={})

    assert done.returncode == 2
    assert "'default' has no server" in done.stderr
    assert "run where they are emitted, without setup or worker" in done.stderr
    assert "'django_gomq.backends.database.DatabaseBackend'" in done.stderr
