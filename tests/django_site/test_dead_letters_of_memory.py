"""Dead letters of memory brokers: in the table if there is one, or in the process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from django_gomq import Message, consumer, emit, get_broker
from django_gomq.bus.stats import ConsumerStats
from django_gomq.models import StoredDeadLetter
from tests.django_site.conftest import UseSite
from tests.django_site.programs import run_program, serving
from tests.django_site.waiting import wait_until
from tests.management.commanding import gomq, run_gomq

CONSUMER: Final = "health.statistics"
MEMORY: Final = {"default": {"RUN": "here"}}
transactional = pytest.mark.django_db(transaction=True)


class Mended:
    """A handler that fails until it is mended."""

    def __init__(self) -> None:
        self.is_mended = False
        self.handled: list[Any] = []

    def __call__(self, message: Message[Any]) -> None:
        if not self.is_mended:
            raise ValueError(f"no {message.data['id']}: {'x' * 100_000}")
        self.handled.append(message.data["id"])


@pytest.fixture
def handler(live_site: UseSite) -> Mended:
    mended = Mended()
    consumer("health.record.saved", name=CONSUMER)(mended)
    live_site(BROKERS=MEMORY)
    return mended


def bury(*numbers: int) -> None:
    for number in numbers:
        emit("health.record.saved", {"id": number}, on_commit=False)


def wait_for_rows(count: int) -> list[StoredDeadLetter]:
    wait_until(lambda: StoredDeadLetter.objects.count() == count, f"{count} rows")
    return list(StoredDeadLetter.objects.order_by("id"))


def stats_now() -> ConsumerStats:
    return get_broker().stats().consumers[CONSUMER]


@transactional
def test_they_are_in_the_table_bounded_with_all_that_is_told_of_them(
    handler: Mended,
) -> None:
    bury(17)

    (letter,) = wait_for_rows(1)

    assert (letter.broker, letter.consumer, letter.attempt) == ("default", CONSUMER, 1)
    assert (letter.type, letter.error_type) == ("health.record.saved", "ValueError")
    assert letter.error.startswith("ValueError: no 17")
    assert len(letter.error) < 1_000
    assert "raise ValueError" in letter.traceback
    assert len(letter.traceback) < 10_000
    assert b'"id":17' in letter.envelope
    (kept,) = get_broker().dead_letters()
    assert (kept.id, kept.message.data) == (f"{letter.pk:019d}", {"id": 17})


@transactional
def test_the_command_lists_and_replays_them_and_the_law_holds(handler: Mended) -> None:
    bury(1, 2, 3)
    _, second, _ = wait_for_rows(3)
    listed = json.loads(gomq("dead-letters", "list", "--by-fault", "--json").stdout)
    handler.is_mended = True

    one = gomq("dead-letters", "replay", str(second.pk))
    rest = gomq("dead-letters", "replay", "--consumer", CONSUMER, "--broker", "default")

    assert [fault["count"] for fault in listed["faults"]] == [3]
    assert (one.stdout, rest.stdout) == (
        "Replayed 1 dead letter.\n",
        "Replayed 2 dead letters.\n",
    )
    wait_until(lambda: len(handler.handled) == 3, "the second attempts")
    assert handler.handled[0] == 2
    assert sorted(handler.handled) == [1, 2, 3]
    wait_until(lambda: stats_now().succeeded == 3, "the counts")
    wait_until(lambda: stats_now().unaccounted == 0, "the law")
    stats = stats_now()
    assert stats.dispatched == {"health.record.saved": 6}
    assert (stats.dead_lettered, stats.succeeded) == (3, 3)
    assert not StoredDeadLetter.objects.exists()


@transactional
def test_what_has_no_room_now_is_told_and_replayed_when_it_has(
    handler: Mended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.management.dead_letters.WAIT_SECONDS", 0.0)
    bury(1)
    wait_for_rows(1)
    handler.is_mended = True
    broker = get_broker()
    broker.pause(CONSUMER)
    broker.resize(CONSUMER, 1)
    bury(2)
    wait_until(lambda: broker.stats().consumers[CONSUMER].depth == 1, "a full channel")

    done = gomq("dead-letters", "replay", "--all")

    assert done.returncode == 1
    assert done.stdout == "Replayed 0 dead letters.\n"
    assert f"no process has taken those of {CONSUMER}" in done.stderr
    (letter,) = json.loads(gomq("dead-letters", "list", "--json").stdout)[
        "dead_letters"
    ]
    assert letter["replay_wanted"] is True
    broker.resume(CONSUMER)
    wait_until(lambda: handler.handled == [2, 1], "the replay")


@transactional
def test_one_that_no_code_can_handle_stays_and_is_told(handler: Mended) -> None:
    bury(1)
    (letter,) = wait_for_rows(1)
    StoredDeadLetter.objects.create(
        **{
            field.attname: getattr(letter, field.attname)
            for field in letter._meta.fields
            if field.attname not in ("id", "consumer", "replay_wanted")
        },
        consumer="health.gone",
    )
    handler.is_mended = True

    done = gomq("dead-letters", "replay", "--all")

    assert done.returncode == 1
    assert "health.gone" in done.stderr
    assert "the code has no such consumer" in done.stderr
    assert [row.consumer for row in StoredDeadLetter.objects.all()] == ["health.gone"]
    assert not StoredDeadLetter.objects.filter(replay_wanted=True).exists()


@transactional
def test_the_command_discards_them(handler: Mended) -> None:
    bury(1, 2)
    first, _ = wait_for_rows(2)

    done = gomq("dead-letters", "discard", str(first.pk))

    assert done.stdout == "Discarded 1 dead letter.\n"
    assert [one.message.data["id"] for one in get_broker().dead_letters()] == [2]


@transactional
def test_the_broker_replays_and_discards_those_in_the_table(handler: Mended) -> None:
    bury(1, 2)
    wait_for_rows(2)
    first, second = get_broker().dead_letters()
    handler.is_mended = True

    assert get_broker().replay([first.id]) == 1
    assert get_broker().discard([second.id]) == 1

    wait_until(lambda: handler.handled == [1], "the replay")
    assert not StoredDeadLetter.objects.exists()


@transactional
def test_they_are_in_the_process_where_the_settings_say_so(
    handler: Mended, live_site: UseSite
) -> None:
    live_site(BROKERS=MEMORY, DEAD_LETTERS={"USING": None})
    bury(1)
    wait_until(lambda: get_broker().dead_letters(), "it")
    get_broker().hooks.flush(60)

    assert not StoredDeadLetter.objects.exists()
    done = gomq("dead-letters", "list")
    assert done.returncode == 2
    assert "get_broker().dead_letters()" in done.stderr


def test_a_test_without_a_database_keeps_them_in_its_process_and_asks_none(
    handler: Mended, caplog: pytest.LogCaptureFixture
) -> None:
    bury(1)
    wait_until(lambda: get_broker().dead_letters(), "it")
    get_broker().hooks.flush(60)

    assert not [one for one in caplog.records if "store" in one.getMessage()]


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_they_are_in_the_database_that_the_settings_name(
    handler: Mended, live_site: UseSite
) -> None:
    live_site(BROKERS=MEMORY, DEAD_LETTERS={"USING": "other"})
    bury(1)

    other = StoredDeadLetter.objects.using("other")
    wait_until(other.exists, "the row")

    assert not StoredDeadLetter.objects.exists()
    listed = json.loads(gomq("dead-letters", "list", "--json").stdout)
    assert [one["consumer"] for one in listed["dead_letters"]] == [CONSUMER]


# ------------------------------------------------------------ in processes of their own

PROGRAM: Final = """
import logging, os, sys, threading, time
from django.conf import settings
logging.basicConfig(level="WARNING", stream=sys.stderr, format="%(name)s %(message)s")
settings.configure(INSTALLED_APPS=["django_gomq"], DATABASES={"default": {DATABASE}},
    GOMQ={"AUTODISCOVER": []})
import django
django.setup()
from django.core.management import call_command
from django.db import connection
from django_gomq import brokers, consumer, emit
from django_gomq.models import StoredDeadLetter

mended, handled = threading.Event(), []

@consumer("page.viewed", name="seen")
def seen(message):
    if not mended.is_set():
        raise ValueError(message.data["id"])
    handled.append(message.data["id"])

broker = brokers["default"]

def wait(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)

def bury(number):
    before = len(broker.dead_letters())
    emit("page.viewed", {"id": number})
    wait(lambda: len(broker.dead_letters()) > before)
"""

Run = Callable[..., list[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a program on a database of its own; returns what it prints."""

    def run(code: str, database: str = "", log: str = "") -> list[str]:
        name = str(tmp_path / "site.sqlite3")
        sqlite = f'{{"ENGINE": "django.db.backends.sqlite3", "NAME": {name!r}}}'
        program = PROGRAM.replace("{DATABASE}", database or sqlite) + code
        done = run_program(program, DJANGO_SETTINGS_MODULE="")
        assert done.returncode == 0, done.stderr
        lines = [one for one in done.stderr.splitlines() if "store of" in one]
        assert len(lines) == (1 if log else 0), done.stderr
        assert log in done.stderr
        return done.stdout.splitlines()

    return run


def test_without_migrations_they_are_in_the_process_and_nothing_is_told(
    run: Run, tmp_path: Path
) -> None:
    told = run("""
bury(1)
bury(2)
mended.set()
print(broker.replay([broker.dead_letters()[0].id]), len(broker.dead_letters()))
broker.close()
print(handled, os.path.exists(settings.DATABASES["default"]["NAME"]))
""")

    assert told == ["1 1", "[1] False"]


def test_they_are_written_once_migrations_are_applied(run: Run) -> None:
    told = run("""
call_command("migrate", verbosity=0)
bury(1)
wait(StoredDeadLetter.objects.exists)
print([one.consumer for one in StoredDeadLetter.objects.all()])
""")

    assert told == ["['seen']"]


@pytest.mark.parametrize(
    "database",
    [
        '{"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": 1}',
        "{}",
    ],
)
def test_where_the_database_is_away_they_are_in_the_process(
    run: Run, database: str
) -> None:
    told = run(
        """
def here():
    return broker._current_runtime().letters._waiting.list()
for number in range(3):
    emit("page.viewed", {"id": number})
wait(lambda: len(here()) == 3)
broker.hooks.flush(60)
emit("page.viewed", {"id": 3})
wait(lambda: len(here()) == 4)
broker.close()
wait(broker.hooks.flush)
kept = []
def all_are_here():
    kept[:] = here()
    return len(kept) == 4
wait(all_are_here)  # while they are tried to be written, they are not
print([one.message.data["id"] for one in kept])
""",
        database,
        log="The store of dead letters failed" if "HOST" in database else "",
    )

    assert told == ["[0, 1, 2, 3]"]


def test_a_forked_child_writes_its_own(run: Run) -> None:
    told = run("""
call_command("migrate", verbosity=0)
bury(1)
wait(lambda: StoredDeadLetter.objects.count() == 1)
connection.close()
pid = os.fork()
if pid == 0:
    bury(2)
    wait(lambda: StoredDeadLetter.objects.count() == 2)
    broker.close()
    os._exit(0)
print(os.waitpid(pid, 0)[1])
bury(3)
wait(lambda: StoredDeadLetter.objects.count() == 3)
print([one.message.data["id"] for one in broker.dead_letters()])
""")

    assert told == ["0", "[1, 2, 3]"]


def test_what_is_left_at_an_end_is_written(run: Run) -> None:
    told = run("""
call_command("migrate", verbosity=0)
emit("page.viewed", {"id": 1})
broker.close()
wait(broker.hooks.flush)
print(StoredDeadLetter.objects.count())
""")

    assert told == ["1"]


def test_a_command_has_the_processes_of_a_server_replay_them(tmp_path: Path) -> None:
    site = {
        "DJANGO_SETTINGS_MODULE": "tests.django_site.failing.settings",
        "FAILING_FOLDER": str(tmp_path),
    }

    def listed() -> list[dict[str, Any]]:
        done = run_gomq("dead-letters", "list", "--json", **site)
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["dead_letters"]
        return found

    def seen() -> list[str]:
        file = tmp_path / "seen"
        return sorted(file.read_text().split()) if file.exists() else []

    migrate = "import django\nfrom django.core.management import call_command\n"
    migrate += "django.setup()\ncall_command('migrate', verbosity=0)"
    assert run_program(migrate, **site).returncode == 0
    with serving(tmp_path, "--workers", "2", **site) as server:
        for number in range(4):
            server.get(f"/pages/{number}")
        wait_until(lambda: len(listed()) == 4, "the rows")
        letters = listed()
        (tmp_path / "mended").touch()

        run_gomq("dead-letters", "replay", "--all", **site)

        # Whether they came while it waited says how busy this machine is.
        wait_until(lambda: len(seen()) >= 4, "the replay")
        assert server.terminate() == 0

    assert {one["error"][:25] for one in letters} == {"ValueError: not mended fo"}
    assert seen() == ["0", "1", "2", "3"]
    assert listed() == []
