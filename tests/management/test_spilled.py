"""What a consumer has spilled that the code has lost: told of, handed on, ended."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from django_gomq.backends.database.spill import hash_of_subscription
from tests.management.durable_site import DurableSite

LOST = "jobs.lost"
TOLD = (
    f"2 messages that {LOST!r} of broker 'local' has spilled wait in database 'default'"
)


@pytest.fixture
def left(durable: DurableSite) -> DurableSite:
    """A site whose table has what a consumer spilled that it does not have."""
    spill(durable, "local", LOST, 2)
    return durable


def spill(
    site: DurableSite, broker: str, consumer: str, count: int, owner: int | None = None
) -> None:
    for number in range(count):
        site.execute(
            "INSERT INTO gomq_spilled (subscription, broker, consumer, owner, "
            "precedence, place, type, attempt, postponed, available, envelope) "
            "VALUES (?, ?, ?, ?, 4, ?, 'local.done', 1, 0, 0, X'7B7D')",
            hash_of_subscription(broker, consumer),
            broker,
            consumer,
            owner,
            number,
        )


def spilled(site: DurableSite) -> Sequence[tuple[str, int]]:
    rows = site.execute(
        "SELECT consumer, count(*) FROM gomq_spilled GROUP BY consumer ORDER BY 1"
    )
    return [tuple(row) for row in rows]


def test_doctor_check_setup_and_the_log_of_a_worker_name_it(left: DurableSite) -> None:
    doctor, setup = left.gomq("doctor"), left.gomq("setup")
    check = left.run([sys.executable, "-m", "django", "check", "--database", "default"])
    with left.worker() as worker:
        worker.wait_for(f"2 messages that {LOST} of broker 'local' has spilled wait")

    assert TOLD in " ".join(doctor.stdout.split())
    assert TOLD in setup.stdout
    assert f"run manage.py gomq setup --remove {LOST}" in setup.stdout
    assert TOLD in check.stderr
    assert "gomq.W014" in check.stderr


def test_what_the_code_takes_back_is_no_news(durable: DurableSite) -> None:
    spill(durable, "local", "jobs.local", 2)
    overflow = {"jobs.local": {"overflow": "spill"}}

    done = durable.gomq("setup", CONSUMERS=overflow)
    refused = durable.gomq("setup", "--remove", "jobs.local", CONSUMERS=overflow)

    assert "spilled" not in done.stdout
    assert refused.returncode == 2
    assert "No consumer 'jobs.local' is recorded" in refused.stderr
    assert "2 messages that 'jobs.local'" in durable.gomq("setup").stdout


def test_it_becomes_dead_letters_or_is_discarded(left: DurableSite) -> None:
    spill(left, "gone", LOST, 1)

    buried = left.gomq("setup", "--remove", LOST, "--broker", "gone")
    discarded = left.gomq("setup", "--remove", LOST, "--discard")

    assert buried.stderr == ""
    assert buried.stdout == (
        f"Broker 'gone': 1 messages that {LOST} has spilled now dead letters.\n"
    )
    assert discarded.stdout == (
        f"Broker 'local': 2 messages that {LOST} has spilled discarded.\n"
    )
    assert left.execute("SELECT broker, consumer FROM gomq_dead_letter") == [
        ("gone", LOST)
    ]
    assert spilled(left) == []


def test_another_consumer_is_handed_it(left: DurableSite) -> None:
    overflow = {"jobs.local": {"overflow": "spill"}}

    stranger = left.gomq("setup", "--remove", LOST, "--to", "jobs.local")
    done = left.gomq(
        "setup", "--remove", LOST, "--to", "jobs.local", CONSUMERS=overflow
    )

    assert stranger.returncode == 2
    assert "has no consumer 'jobs.local' with overflow='spill'" in stranger.stderr
    assert done.stdout == (
        f"Broker 'local': 2 messages that {LOST} has spilled go to jobs.local.\n"
    )
    assert spilled(left) == [("jobs.local", 2)]


def test_what_a_process_that_lives_has_stays_with_it(left: DurableSite) -> None:
    left.execute(
        "INSERT INTO gomq_spiller (id, name, heartbeat) VALUES (7, 'h', 99999999999)"
    )
    spill(left, "local", LOST, 3, owner=7)

    done = left.gomq("setup", "--remove", LOST, "--discard")

    assert "2 messages that jobs.lost has spilled discarded; 3 are with" in done.stdout
    assert spilled(left) == [(LOST, 3)]


def test_a_consumer_that_was_recorded_too_is_removed_from_both(
    left: DurableSite,
) -> None:
    left.leave_a_consumer(LOST)

    done = left.gomq("setup", "--remove", LOST, "--discard")

    assert "has spilled discarded." in done.stdout
    assert f"Broker 'default': removed {LOST}; 0 messages discarded." in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--to", "jobs.local"], "--to is for --remove NAME."),
        (["--remove", LOST, "--to", "x", "--discard"], "Give --discard or --to"),
        (["--remove", "jobs.nosuch", "--to", "x"], "Nothing is spilled of a consumer"),
    ],
)
def test_wrong_words_change_nothing(
    left: DurableSite, words: Sequence[str], told: str
) -> None:
    done = left.gomq("setup", *words)

    assert (done.returncode, told in done.stderr) == (2, True)
    assert spilled(left) == [(LOST, 2)]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"KEEP_STORED": 1}, "of 2 messages 1 would be kept (KEEP_STORED)"),
        ({"USING": None}, "are not kept in database 'default'"),
    ],
)
def test_no_dead_letters_are_made_that_nobody_keeps(
    left: DurableSite, settings: dict[str, object], told: str
) -> None:
    done = left.gomq("setup", "--remove", LOST, DEAD_LETTERS=settings)

    assert done.returncode == 2
    assert told in done.stderr
    assert spilled(left) == [(LOST, 2)]


def test_a_site_in_memory_alone_has_the_command_too(left: DurableSite) -> None:
    memory = {"BROKERS": {"default": {}, "local": {}}, "ROUTES": {}}

    doctor = left.gomq("doctor", **memory)
    done = left.gomq("setup", "--remove", LOST, "--discard", **memory)

    assert TOLD in " ".join(doctor.stdout.split())
    assert done.returncode == 0
    assert spilled(left) == []
