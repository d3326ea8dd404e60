"""What is checked of brokers that keep their events in a database."""

from __future__ import annotations

from typing import Any, Final

import pytest
from django.core.checks import CheckMessage, run_checks
from django.db import models
from pytest_django import Settings

from django_gomq import ConfigurationError, consumer, emit_model_events
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.programs import run_program

BACKEND: Final = "django_gomq.backends.database.DatabaseBackend"


def kept_in(database: str, **options: Any) -> dict[str, Any]:
    return {"BACKEND": BACKEND, "OPTIONS": {"using": database, **options}}


class RecordsElsewhere:
    """Writes the records of the clinic to the other database."""

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str | None:
        return "other" if model is Record else None


def found() -> list[CheckMessage]:
    return [one for one in run_checks() if one.id == "gomq.E009"]


@pytest.fixture
def _events(own_receivers: None) -> None:
    emit_model_events(
        Record, created="record.created", deleted="record.deleted", m2m={"tags": "r.t"}
    )


@pytest.mark.usefixtures("_events")
def test_e009_reports_a_model_that_is_written_to_another_database(
    use_site: UseSite, settings: Settings
) -> None:
    settings.DATABASE_ROUTERS = [RecordsElsewhere()]
    use_site(BROKERS={"default": kept_in("default")})

    errors = found()

    assert sorted(error.msg.split("event ")[1].split(" ")[0] for error in errors) == [
        "'record.created'",
        "'record.deleted'",
    ]
    assert all("'other'" in error.msg and error.hint for error in errors)


@pytest.mark.usefixtures("_events")
@pytest.mark.parametrize(
    "gomq",
    [
        {"BROKERS": {"default": kept_in("other")}, "ROUTES": {"r.t": "memory"}},
        {"BROKERS": {"default": {}}},
        {"BROKERS": {"default": kept_in("default")}, "ROUTES": {"*": "memory"}},
    ],
    ids=["the same database", "memory", "routed to memory"],
)
def test_events_that_need_no_transaction_elsewhere_are_well(
    use_site: UseSite, settings: Settings, gomq: dict[str, Any]
) -> None:
    settings.DATABASE_ROUTERS = [RecordsElsewhere()]
    if "ROUTES" in gomq:
        gomq = {**gomq, "BROKERS": {**gomq["BROKERS"], "memory": {}}}
    use_site(**gomq)

    assert found() == []


def test_an_event_that_waits_for_no_commit_of_its_model_is_well(
    use_site: UseSite, settings: Settings, own_receivers: None
) -> None:
    emit_model_events(Record, created="record.created", on_commit=False)
    emit_model_events(Record, updated="record.updated", using="default")
    settings.DATABASE_ROUTERS = [RecordsElsewhere()]
    use_site(BROKERS={"default": kept_in("default")})

    assert found() == []


def test_two_brokers_may_not_keep_their_tables_in_one_database(
    use_site: UseSite,
) -> None:
    with pytest.raises(ConfigurationError, match="'default' and 'second' keep their"):
        use_site(BROKERS={"default": kept_in("other"), "second": kept_in("other")})


@pytest.mark.parametrize(
    ("brokers", "said"),
    [
        (
            {"default": kept_in("default"), "second": kept_in("default")},
            "'default' and 'second' keep their tables in one database",
        ),
        (
            {"default": kept_in("none")},
            "'none' is that of 'django.db.backends.dummy'; the backend works on mysql",
        ),
        ({"default": kept_in("nowhere")}, "using: there is no database 'nowhere'"),
        (
            {"default": kept_in("default", answer_timeout=0)},
            "answer_timeout is 0, not a number of seconds from 0.001, or a timedelta",
        ),
        (
            {"default": kept_in("default", lease="15")},
            "lease is '15', not a number of seconds from 0.1, or a timedelta",
        ),
        (
            {"default": kept_in("default", history=-1)},
            "history is -1, not a number of seconds from 0, or a timedelta",
        ),
        (
            {"default": kept_in("default", outcomes="no")},
            "outcomes is 'no', no bool",
        ),
        (
            {"default": kept_in("default", notify=True)},
            "notify: database 'default' is no PostgreSQL",
        ),
    ],
    ids=[
        "one database",
        "vendor",
        "no database",
        "answer_timeout",
        "lease",
        "history",
        "outcomes",
        "notify",
    ],
)
def test_check_reports_brokers_that_cannot_have_their_database(
    brokers: dict[str, Any], said: str
) -> None:
    done = run_program(
        f"""
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django_gomq"],
    DATABASES={{
        "default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        "none": {{"ENGINE": "django.db.backends.dummy"}},
    }},
    GOMQ={{"BROKERS": {brokers!r}}},
)
import sys
sys.argv = ["manage.py", "check"]
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
""",
        DJANGO_SETTINGS_MODULE="",
    )

    assert done.returncode == 1
    assert "gomq.E004" in done.stderr
    assert "HINT" in done.stderr
    assert said in done.stderr


@pytest.mark.usefixtures("_events")
def test_e009_knows_the_database_of_an_outbox(
    use_site: UseSite, settings: Settings
) -> None:
    settings.DATABASE_ROUTERS = [RecordsElsewhere()]
    redis = "django_gomq.backends.redis.RedisBackend"
    options = {"url": "redis://127.0.0.1:1/0", "outbox": "default"}
    use_site(BROKERS={"default": {"BACKEND": redis, "OPTIONS": options}})

    errors = found()

    assert len(errors) == 2
    assert all("writes to 'default'" in error.msg for error in errors)
    use_site(
        BROKERS={
            "default": {"BACKEND": redis, "OPTIONS": {**options, "outbox": "other"}}
        }
    )
    (error,) = found()
    assert "'r.t'" in error.msg  # of a table that stays in the other one


def test_w008_knows_in_which_database_idempotent_consumers_write(
    use_site: UseSite,
) -> None:
    consumer("page.viewed", name="once")(lambda message: None)
    use_site(
        BROKERS={"default": kept_in("other")},
        CONSUMERS={"once": {"idempotent": True}},
    )

    (warning,) = [one for one in run_checks() if one.id == "gomq.W008"]
    assert "'once'" in warning.msg
    assert "'other'" in warning.msg
