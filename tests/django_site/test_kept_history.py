"""``gomq setup``, ``replay`` and ``prune`` on the project's own database."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.db import OperationalError, connection

from django_gomq import get_broker
from django_gomq.backends.database.connection import OwnConnection
from django_gomq.bus.registry import registry
from django_gomq.management import worker
from django_gomq.models import (
    DueDelivery,
    HistoryEvent,
    OutboxEvent,
    RecordedConsumer,
    StoredDeadLetter,
)
from django_gomq.site import brokers
from tests.django_site.burying import BROKERS
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import listen
from tests.django_site.programs import run_program
from tests.django_site.waiting import wait_until
from tests.management.commanding import gomq

pytestmark = pytest.mark.django_db(transaction=True)


def recorded(name: str) -> int:
    return RecordedConsumer.objects.get(name=name).pk


def keep(*events: str, wait_for: str | None = None) -> None:
    """Have events in kept history, of which a consumer has yet to see all."""
    for number, event in enumerate(events, 1):
        HistoryEvent.objects.create(
            id=number,
            type=event,
            made=1e8 * number,
            envelope=b'{"specversion":"1.0","id":"%d","source":"s","type":"%s"}'
            % (number, event.encode()),
        )
        if wait_for:
            DueDelivery.objects.create(
                event_id=number, consumer_id=recorded(wait_for), precedence=4, state=0
            )


@pytest.fixture
def _left(use_site: UseSite) -> None:
    """A consumer that is recorded, with two messages, and not in the code."""
    listen("page.viewed", name="shop.old")
    use_site(BROKERS=BROKERS)
    assert gomq("setup").returncode == 0
    registry.restore({})
    listen("page.viewed", name="shop.new")
    use_site(BROKERS=BROKERS)
    keep("page.viewed", "page.viewed", wait_for="shop.old")


@pytest.mark.usefixtures("_left")
def test_setup_tells_of_consumers_that_are_not_in_the_code() -> None:
    done = gomq("setup")

    assert done.returncode == 0, done.stderr
    assert "shop.new: recorded in database 'default'" in done.stdout
    assert "Consumer 'shop.old' is recorded at broker 'default'" in done.stdout
    assert "2 messages wait" in done.stdout
    assert "gomq setup --remove shop.old" in done.stdout


@pytest.mark.usefixtures("_left")
def test_list_warns_of_consumers_that_are_not_in_the_code() -> None:
    done = gomq("list", "--format", "json")

    warnings = json.loads(done.stdout)["warnings"]
    [found] = [one for one in warnings if one["kind"] == "not_in_code"]
    assert found["subject"] == "shop.old"
    assert "2 messages wait" in found["text"]


def test_list_goes_on_where_the_server_cannot_be_asked(use_site: UseSite) -> None:
    use_site(BROKERS=BROKERS)
    with connection.schema_editor() as editor:
        editor.alter_db_table(OutboxEvent, "gomq_outbox", "gomq_away")
    try:
        done = gomq("list", "--format", "json")
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(OutboxEvent, "gomq_away", "gomq_outbox")

    warnings = json.loads(done.stdout)["warnings"]
    [found] = [one for one in warnings if one["kind"] == "unasked"]
    assert found["subject"] == "default"
    assert "gomq_outbox" in found["text"]


@pytest.mark.usefixtures("_left")
def test_a_removed_consumer_leaves_dead_letters() -> None:
    done = gomq("setup", "--remove", "shop.old")

    assert done.stdout == (
        "Broker 'default': removed shop.old; 2 messages now dead letters.\n"
    )
    assert StoredDeadLetter.objects.filter(consumer="shop.old").count() == 2
    assert not RecordedConsumer.objects.filter(name="shop.old").exists()


@pytest.mark.usefixtures("_left")
def test_a_removed_consumer_leaves_nothing_if_all_is_to_be_discarded() -> None:
    done = gomq("setup", "--remove", "shop.old", "--discard")

    assert done.stdout.endswith("2 messages discarded.\n")
    assert not StoredDeadLetter.objects.exists()
    assert not DueDelivery.objects.exists()


@pytest.mark.usefixtures("_left")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--remove", "shop.new"], "'shop.new' of broker 'default' is in the code"),
        (["--remove", "nobody"], "No consumer 'nobody' is recorded; there are shop"),
        (["--discard"], "--discard is for --remove"),
    ],
)
def test_what_cannot_be_removed_is_said(arguments: list[str], said: str) -> None:
    gomq("setup")

    done = gomq("setup", *arguments)

    assert done.returncode == 2
    assert said in done.stderr
    assert RecordedConsumer.objects.count() == 2


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ([], 3),
        (["--event", "page.*"], 2),
        (["--event", "page.liked", "--event", "shop.*"], 2),
        (["--event", "shop.paid", "--since", "2031-01-01T00:00"], 1),
        (["--since", "2031-01-01T00:00:00Z"], 2),
        (["--until", "2031-01-01T00:00:00Z"], 1),
        (["--since", "1d"], 2),
    ],
)
def test_replay_hands_out_what_was_asked_for(
    use_site: UseSite, arguments: list[str], count: int
) -> None:
    listen("*", name="shop.all")
    use_site(BROKERS=BROKERS)
    gomq("setup")
    keep("page.viewed", "page.liked", "shop.paid")
    HistoryEvent.objects.filter(pk__gt=1).update(made=4e9)
    counted = f"{count} event{'' if count == 1 else 's'}"

    tried = gomq("replay", "--consumer", "shop.all", *arguments, "--dry-run")
    assert tried.stdout == (
        f"Broker 'default': {counted} would be replayed for shop.all.\n"
    ), tried.stderr
    assert not DueDelivery.objects.exists()
    done = gomq("replay", "--consumer", "shop.all", *arguments)

    assert done.stdout == f"Broker 'default': {counted} replayed for shop.all.\n"
    assert DueDelivery.objects.filter(replayed=True).count() == count


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--consumer", "nobody"], "No consumer 'nobody' is recorded"),
        (["--consumer", "c", "--since", "soon"], "'soon' is no time"),
        (["--consumer", "c", "--event", "Page"], "'Page' is no event type"),
        ([], "--consumer"),
    ],
)
def test_what_cannot_be_replayed_is_said(
    use_site: UseSite, arguments: list[str], said: str
) -> None:
    use_site(BROKERS=BROKERS)

    done = gomq("replay", *arguments)

    assert done.returncode == 2
    assert said in done.stderr


def test_prune_deletes_what_is_older_and_done(use_site: UseSite) -> None:
    use_site(BROKERS=BROKERS)
    keep("page.viewed", "page.viewed", "page.viewed")
    HistoryEvent.objects.filter(pk=3).update(made=4e9)

    assert gomq("prune", "--older-than", "36500d").stdout == (
        "Broker 'default': 0 events deleted.\n"
    )
    assert gomq("prune").stdout == "Broker 'default': 2 events deleted.\n"
    assert gomq("prune", "--older-than", "long").returncode == 2


@pytest.mark.parametrize("subcommand", [["prune"], ["replay", "--consumer", "c"]])
def test_memory_has_no_history(use_site: UseSite, subcommand: list[str]) -> None:
    use_site()

    done = gomq(*subcommand)

    assert done.returncode == 2
    assert "has no server: the memory backend keeps no events" in done.stderr


def test_a_server_that_cannot_be_asked_is_an_error(use_site: UseSite) -> None:
    use_site(BROKERS=BROKERS)
    backend: Any = get_broker().backend
    backend.stats = backend.prune = lambda *_: 1 / 0

    for subcommand in (["prune"], ["replay", "--consumer", "c"]):
        done = gomq(*subcommand)

        assert done.returncode == 1
        assert "The server of broker 'default' cannot be asked" in done.stderr


def test_a_worker_warns_of_consumers_that_are_not_in_the_code(tmp_path: Any) -> None:
    name = str(tmp_path / "db.sqlite3")
    done = run_program(f"""
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django_gomq"],
    DATABASES={{
        "default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {name!r}}}
    }},
    GOMQ={{"BROKERS": {BROKERS!r}}},
)
import django
from django_gomq import consumer
@consumer("page.viewed", name="shop.new")
def new(message): ...
django.setup()
import logging, os, signal
from django.core.management import call_command
from django_gomq.models import RecordedConsumer
call_command("migrate", verbosity=0)
call_command("gomq", "setup")
RecordedConsumer.objects.create(name="shop.old", types="[]")
class Ending(logging.StreamHandler):
    def emit(self, record):
        super().emit(record)
        os.kill(os.getpid(), signal.SIGTERM)
logging.getLogger("gomq.start").addHandler(Ending())
call_command("gomq", "worker")
""")

    assert done.returncode == 0, done.stderr
    assert re.search(r"shop\.old is recorded .*0 messages wait", done.stderr)
    assert "shop.new is recorded" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("setup", "--remove", "shop.old"),
            "The table of spilled messages cannot be read",
        ),
        (
            ("replay", "--consumer", "shop.old"),
            "The server of broker 'default' cannot be asked",
        ),
    ],
)
def test_a_server_that_is_away_is_said(
    use_site: UseSite,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    def fail(self: OwnConnection, *step: Any) -> Any:
        raise OperationalError("the server went away")

    use_site(BROKERS=BROKERS)
    for name in ("run", "read"):
        monkeypatch.setattr(OwnConnection, name, fail)

    done = gomq(*arguments)

    assert done.returncode == 1
    assert said in done.stderr
    assert "the server went away" in done.stderr


class TwoLooks(worker._Stop):
    """One look at what is to be done, and then the end."""

    looks = 0

    def wait(self, timeout: float | None) -> bool:
        self.looks += 1
        return self.looks > 1


@pytest.mark.usefixtures("_left")
def test_a_worker_tells_of_them_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker = brokers["default"]
    broker.start()
    wait_until(lambda: "shop.old" in broker.stats().server.consumers, "a sample")

    worker._watch([broker], TwoLooks(), None, 0)
    assert caplog.messages == []
    monkeypatch.setattr(worker, "WARN_SECONDS", 0.0)
    worker._watch([broker], TwoLooks(), None, 0)

    [line] = [one for one in caplog.messages if "shop.old" in one]
    assert "is recorded at broker 'default' and not in the code: 2 messages" in line
