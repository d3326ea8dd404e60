"""``gomq dead-letters``: what consumers gave up on is listed, replayed, discarded."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from django.db import OperationalError, connection

from django_gomq import Message, consumer, emit, get_broker
from django_gomq.models import DueDelivery, StoredDeadLetter
from tests.django_site.burying import BROKERS, bury, record
from tests.django_site.conftest import UseSite
from tests.django_site.waiting import wait_until
from tests.management.commanding import gomq

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _site(use_site: UseSite) -> None:
    use_site(BROKERS=BROKERS)


def listed(*arguments: str) -> list[dict[str, Any]]:
    done = gomq("dead-letters", "list", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["dead_letters"]
    return found


def test_what_a_consumer_gave_up_is_listed_and_replayed(live_site: UseSite) -> None:
    handled: list[Any] = []

    @consumer("health.record.saved", name="health.mended")
    def handle(message: Message[Any]) -> None:
        handled.append(message.data)
        if len(handled) == 1:
            raise ValueError("no 17")

    live_site(BROKERS=BROKERS)
    broker = get_broker()
    broker.setup()
    broker.start()
    emit("health.record.saved", {"id": 1}, on_commit=False)
    wait_until(StoredDeadLetter.objects.exists, "the dead letter")
    (letter,) = listed()

    done = gomq("dead-letters", "replay", str(letter["id"]))

    assert done.stdout == "Replayed 1 dead letter.\n"
    wait_until(lambda: len(handled) == 2, "the second attempt")
    assert letter["consumer"] == "health.mended"
    assert letter["error"] == "ValueError: no 17"
    assert not StoredDeadLetter.objects.exists()


def test_the_table_fits_80_columns_and_says_who_gave_up_what_and_why() -> None:
    bury(
        "ValueError: " + "a very long text " * 20, consumer="health." + "statistics" * 8
    )

    done = gomq("dead-letters", "list")

    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "ValueError" in done.stdout
    assert "secret" not in done.stdout


def test_a_list_is_bounded_and_says_how_many_there_are() -> None:
    letters = [bury(f"ValueError: {number}") for number in range(4)]

    done = gomq("dead-letters", "list", "--limit", "2")

    assert "2 of 4 dead letters; --limit shows more." in done.stdout
    assert [one["id"] for one in listed("--limit", "2")] == [
        letters[3].pk,
        letters[2].pk,
    ]


def test_an_empty_list_says_so() -> None:
    assert gomq("dead-letters", "list").stdout == "No dead letters.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--consumer", "health.audit"],
        ["--event", "page.viewed"],
        ["--event", "page.*"],
        ["--error", "keyerror"],
        ["--error", "not there"],
        ["--since", "1h"],
        ["--since", "2026-01-31T12:00+00:00"],
    ],
)
def test_filters_choose(arguments: list[str]) -> None:
    bury("ValueError: gone", failed=1.0)
    wanted = bury(
        "KeyError: it is not there", consumer="health.audit", type="page.viewed"
    )

    assert [one["id"] for one in listed(*arguments)] == [wanted.pk]


def test_faults_are_counted_by_consumer_and_error_whatever_its_numbers() -> None:
    for number in range(3):
        last = bury(f"ValueError: no {number}", failed=100.0 + number)
    bury("ValueError: no 1", consumer="health.audit")

    done = gomq("dead-letters", "list", "--by-fault", "--json")

    assert json.loads(done.stdout)["faults"][0] == {
        "consumer": "health.statistics",
        "fault": "ValueError: no #",
        "count": 3,
        "first": "1970-01-01T00:01:40+00:00",
        "last": "1970-01-01T00:01:42+00:00",
        "example": last.pk,
    }
    assert json.loads(done.stdout)["total"] == 2
    assert "ValueError: no #" in gomq("dead-letters", "list", "--by-fault").stdout


def test_one_is_shown_with_its_traceback_and_without_its_data() -> None:
    letter = bury("ValueError: no 7")

    done = gomq("dead-letters", "show", str(letter.pk))

    assert done.returncode == 0
    assert 'File "x.py", line 1' in done.stdout
    assert letter.message_id in done.stdout
    assert letter.trace_id in done.stdout
    assert "secret" not in done.stdout


def test_the_data_is_shown_where_it_is_asked_for() -> None:
    letter = bury()

    done = gomq("dead-letters", "show", str(letter.pk), "--payload", "--json")

    (shown,) = json.loads(done.stdout)
    assert json.loads(shown["payload"]) == {"name": "Ada B.", "secret": "pin-1"}
    assert (
        '"secret": "pin-1"'
        in gomq("dead-letters", "show", str(letter.pk), "--payload").stdout
    )


def shown_payload(letter: StoredDeadLetter) -> str:
    done = gomq("dead-letters", "show", str(letter.pk), "--payload", "--json")
    payload: str = json.loads(done.stdout)[0]["payload"]
    return payload


def test_data_is_shown_as_the_site_lets_it_be_seen(use_site: UseSite) -> None:
    path = "tests.django_site.burying.redact"
    use_site(BROKERS=BROKERS, DEAD_LETTERS={"REDACT": path})

    payload = shown_payload(bury())

    assert json.loads(payload) == {"name": "Ada B.", "secret": "5 characters"}


@pytest.mark.parametrize(
    ("function", "body", "error"),
    [
        ("redact", b'{"name": "Ada B."}', "KeyError"),
        ("redact", b'["Ada B."]', "TypeError"),
        ("redact_into_an_object", b'{"name": "Ada B."}', "TypeError"),
    ],
)
def test_where_redaction_fails_nothing_is_shown_and_a_line_is_logged(
    function: str,
    body: bytes,
    error: str,
    use_site: UseSite,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = f"tests.django_site.burying.{function}"
    use_site(BROKERS=BROKERS, DEAD_LETTERS={"REDACT": path})

    payload = shown_payload(bury(body=body))

    assert payload == f"Not shown: REDACT ({path}) failed with {error}."
    (line,) = [one for one in caplog.records if one.name == "gomq.dead_letters"]
    assert error in line.getMessage()
    assert "Ada B." not in line.getMessage()


@pytest.mark.parametrize("fields", [{"envelope": b"\xffAda"}, {"envelope": b"{Ada"}])
def test_what_is_no_json_is_not_shown(fields: dict[str, Any]) -> None:
    payload = shown_payload(bury(**fields))

    assert payload.startswith("Not JSON")
    assert "Ada B." not in payload


def test_long_data_is_cut() -> None:
    payload = shown_payload(bury(body=b'"%s"' % (b"x" * 30_000)))

    assert len(payload) < 21_000
    assert payload.endswith("... 10002 more characters")


def test_what_would_speak_to_a_terminal_is_escaped() -> None:
    letter = bury("ValueError: \x1b[31m", traceback="a\n\x1b[31m")

    for arguments in (["list"], ["list", "--by-fault"], ["show", str(letter.pk)]):
        assert "\x1b" not in gomq("dead-letters", *arguments).stdout


def test_ids_that_are_not_there_are_named_and_end_with_1() -> None:
    letter = bury()

    for action in ("show", "discard"):
        done = gomq("dead-letters", action, str(letter.pk), "999999")

        assert done.returncode == 1
        assert "Not in database 'default': 999999." in done.stderr
    assert not StoredDeadLetter.objects.exists()


def test_a_filter_chooses_what_is_replayed() -> None:
    record("health.statistics")
    wanted, other = bury("KeyError: 1"), bury("ValueError: 1")

    done = gomq("dead-letters", "replay", "--error", "KeyError", "--json")

    assert json.loads(done.stdout) == {"replayed": 1, "dry_run": False}
    assert [letter.pk for letter in StoredDeadLetter.objects.all()] == [other.pk]
    assert [row.event_id for row in DueDelivery.objects.all()] == [wanted.event_id]


def test_the_oldest_are_replayed_first_up_to_the_limit() -> None:
    record("health.statistics")
    letters = [bury() for _ in range(3)]

    gomq("dead-letters", "replay", "--all", "--limit", "2")

    assert [letter.pk for letter in StoredDeadLetter.objects.all()] == [letters[2].pk]


def test_what_is_to_be_handled_again_anyway_is_not_handled_twice() -> None:
    record("health.statistics")
    first = bury()
    gomq("dead-letters", "replay", str(first.pk))
    second = bury(event_id=first.event_id)

    done = gomq("dead-letters", "replay", str(second.pk))

    assert done.returncode == 0, done.stderr
    assert DueDelivery.objects.count() == 1


def test_one_of_a_consumer_that_is_not_recorded_stays_and_is_told() -> None:
    bury(consumer="health.gone")

    done = gomq("dead-letters", "replay", "--all")

    assert done.returncode == 1
    assert "Replayed 0 dead letters." in done.stdout
    assert "health.gone" in done.stderr
    assert "gomq setup" in done.stderr
    assert StoredDeadLetter.objects.count() == 1


def test_a_dry_run_changes_nothing() -> None:
    bury()

    done = gomq("dead-letters", "discard", "--all", "--dry-run")

    assert done.stdout == "Would have discarded 1 dead letter.\n"
    assert StoredDeadLetter.objects.count() == 1


def test_all_are_discarded_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_gomq.dead_letters.rows.MAX_STEP", 2)
    for _ in range(5):
        bury()

    done = gomq("dead-letters", "discard", "--all")

    assert done.stdout == "Discarded 5 dead letters.\n"
    assert not StoredDeadLetter.objects.exists()


def test_what_was_done_is_told_where_the_database_fails_in_the_middle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django_gomq.dead_letters.rows.MAX_STEP", 1)
    for _ in range(3):
        bury()
    deleted = itertools.count(1)

    def fail_at_the_second(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("DELETE") and next(deleted) == 2:
            raise OperationalError("the disk is full")
        return execute(sql, *rest)

    with connection.execute_wrapper(fail_at_the_second):
        done = gomq("dead-letters", "discard", "--all")

    assert done.returncode == 2
    assert done.stdout == "Discarded 1 dead letter.\n"
    assert "the disk is full" in done.stderr
    assert StoredDeadLetter.objects.count() == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["replay"], "--all"),
        (["discard"], "--all"),
        (["replay", "--error", ""], "--error is empty"),
        (["discard", "--error", "", "--broker", "default"], "--error is empty"),
        (["list", "--consumer", "\udcff"], "its bytes are no text"),
        (["show"], "Which?"),
        (["list", "7"], "not both"),
        (["replay", "7", "--consumer", "a"], "not both"),
        (["list", "--payload"], "--payload goes with show"),
        (["show", "7", "--dry-run"], "--dry-run goes with replay and discard"),
        (["list", "--since", "yesterday"], "is no time"),
        (["list", "--since", "2026-99-99"], "is no time"),
        (["list", "--event", "Page*"], "no event type"),
        (["list", "--limit", "0"], "number from 1"),
        (["show", "x"], "is no id"),
        (["list", "--broker", "other"], "there are: default"),
    ],
)
def test_a_wrong_option_ends_with_2_and_says_what_to_write(
    arguments: list[str], told: str
) -> None:
    bury()

    done = gomq("dead-letters", *arguments)

    assert done.returncode == 2
    assert told in done.stderr
    assert StoredDeadLetter.objects.count() == 1


def test_brokers_that_share_a_table_are_told_apart(use_site: UseSite) -> None:
    use_site(BROKERS={**BROKERS, "memory": {}})
    own, other = bury(), bury(broker="memory", event_id=None)

    assert [one["id"] for one in listed()] == [other.pk, own.pk]
    assert [one["id"] for one in listed("--broker", "default")] == [own.pk]
    assert [one["id"] for one in listed("--broker", "memory")] == [other.pk]


def test_several_brokers_with_a_database_are_told_apart(use_site: UseSite) -> None:
    events = {**BROKERS["default"], "OPTIONS": {"using": "other"}}
    use_site(BROKERS={**BROKERS, "events": events})
    letter = bury()

    done = gomq("dead-letters", "list")

    assert done.returncode == 2
    assert "--broker default or events" in done.stderr
    assert [one["id"] for one in listed("--broker", "default")] == [letter.pk]


def test_a_table_that_is_not_there_ends_with_2_and_names_migrate() -> None:
    with connection.schema_editor() as editor:
        editor.delete_model(StoredDeadLetter)
    try:
        done = gomq("dead-letters", "list")
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(StoredDeadLetter)

    assert done.returncode == 2
    assert "manage.py migrate gomq --database default" in done.stderr


@pytest.mark.parametrize("moment", [1e300, -5.0])
def test_one_whose_times_no_calendar_has_is_shown(moment: float) -> None:
    letter = bury("ValueError: 1", failed=moment, first_failed=moment)

    (found,) = listed()
    shown = gomq("dead-letters", "show", str(letter.pk))

    assert found["failed"] == "1970-01-01T00:00:00+00:00"
    assert shown.returncode == 0
