"""Dead letters in Django's admin, each right with and without its permission."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.django_site.programs import run_program

SITE: Final = """
import json, sys
from django.conf import settings
from django.urls import path

APPS = ["admin", "auth", "contenttypes", "messages", "sessions"]
MIDDLEWARE = ["sessions.middleware.Session", "auth.middleware.Authentication",
    "messages.middleware.Message"]
GOMQ = {{"AUTODISCOVER": [], "BROKERS": {{"default": {{"BACKEND": {backend!r}}}}},
    "DEAD_LETTERS": {{"REDACT": "tests.django_site.burying.redact"}}}}
PROCESSORS = ["django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages"]
settings.configure(
    SECRET_KEY="only for tests", ALLOWED_HOSTS=["*"], ROOT_URLCONF="__main__",
    INSTALLED_APPS=[*(f"django.contrib.{{name}}" for name in APPS), "django_gomq"],
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware",
        *(f"django.contrib.{{name}}Middleware" for name in MIDDLEWARE)],
    DATABASES={{name: {{"ENGINE": "django.db.backends.sqlite3", "NAME": file}}
        for name, file in (("default", {name!r}), ("other", ":memory:"))}},
    TEMPLATES=[{{"BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True, "OPTIONS": {{"context_processors": PROCESSORS}}}}],
    STATIC_URL="/static/", USE_TZ=True, GOMQ=GOMQ,
    SILENCED_SYSTEM_CHECKS=["gomq.W010"],  # no thread but ours sees one in memory
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
)
import django
django.setup()
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client
from django_gomq.models import DueDelivery, StoredDeadLetter
from tests.django_site.burying import bury, record

urlpatterns = [path("admin/", admin.site.urls)]
LIST = "/admin/gomq/storeddeadletter/"
for alias in ("default", "other"):
    call_command("migrate", verbosity=0, database=alias)
    call_command("check", "--database", alias, "--fail-level", "WARNING")

def user(name, *rights, **options):
    made = User.objects.create_user(name, password=name, is_staff=True)
    permissions = Permission.objects.filter(codename__in=rights)
    assert len(permissions) == len(rights), (rights, permissions)
    made.user_permissions.set(permissions)
    client = Client(**options)
    assert client.login(username=name, password=name)
    return client

def act(client, action, *letters, **more):
    data = {{"action": action, "_selected_action": [one.pk for one in letters], **more}}
    return client.post(more.pop("address", LIST), data, follow=True)

def tell(**found):
    print(json.dumps(found))

viewer = user("viewer", "view_storeddeadletter")
operator = user("operator", "view_storeddeadletter", "view_payload",
    "replay_dead_letters", "discard_dead_letters")
text = lambda response: response.content.decode()
"""
DATABASE: Final = "django_gomq.backends.database.DatabaseBackend"
MEMORY: Final = "django_gomq.backends.memory.MemoryBackend"


def found(code: str, backend: str = DATABASE, name: str = ":memory:") -> dict[str, Any]:
    """Return what a program tells that has this site, and both users."""
    site = SITE.format(backend=backend, name=name)
    done = run_program(site + code, DJANGO_SETTINGS_MODULE="")
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_they_are_listed_filtered_and_found_by_their_ids() -> None:
    told = found("""
old = bury("ValueError: no 17")
new = bury("KeyError: gone", consumer="health.audit", type="page.viewed",
    broker="mail")

def ids(address):
    response = viewer.get(LIST + address)
    assert response.status_code == 200, response.status_code
    return [one.pk for one in response.context_data["cl"].queryset]

tell(
    all=ids("") == [new.pk, old.pk],
    filtered=[ids(f"?{one}") == [new.pk] for one in (
        "consumer=health.audit", "type=page.viewed", "error_type=KeyError",
        "broker=mail")],
    searched=[ids(f"?q={one}") == [new.pk] for one in (new.message_id, new.pk)],
    nothing=ids("?q=nothing"),
    page="ValueError: no #" in text(viewer.get(LIST)),
    index="Dead letters" in text(viewer.get("/admin/")),
)
""")

    assert told == {
        "all": True,
        "filtered": [True] * 4,
        "searched": [True] * 2,
        "nothing": [],
        "page": True,
        "index": True,
    }


def test_the_payload_is_shown_to_whom_may_see_it_and_redacted() -> None:
    told = found("""
letter, broken = bury(), bury(body=b'{"name": "Ada B."}')
pages = {
    client: [text(one.get(f"{LIST}{each.pk}/change/")) for each in (letter, broken)]
    for client, one in (("viewer", viewer), ("operator", operator))
}
tell(
    viewer=[["Ada B." in page, "payload" in page.lower(), "x.py" in page]
        for page in pages["viewer"]],
    operator=[["Ada B." in page, "5 characters" in page, "pin-1" in page,
        "failed with KeyError" in page] for page in pages["operator"]],
)
""")

    assert told == {
        "viewer": [[False, False, True]] * 2,
        "operator": [[True, True, False, False], [False, False, False, True]],
    }


def test_nobody_guesses_the_payload_by_the_address() -> None:
    told = found("""
bury()
tell(codes=[viewer.get(f"{LIST}?{one}__contains=Ada").status_code
    for one in ("envelope", "traceback", "error")])
""")

    assert told == {"codes": [400, 400, 400]}


def test_nobody_adds_edits_or_deletes() -> None:
    told = found("""
User.objects.create_superuser("root", password="root")
root = Client()
root.login(username="root", password="root")
letter = bury()
own = f"{LIST}{letter.pk}/"
codes = [[client.get(f"{LIST}add/").status_code,
    client.post(f"{own}change/", {"error": "mine"}).status_code,
    client.post(f"{own}delete/", {"post": "yes"}).status_code]
    for client in (viewer, operator, root)]
act(root, "delete_selected", letter, post="yes")
letter.refresh_from_db()
tell(codes=codes, error=letter.error)
""")

    assert told == {"codes": [[403] * 3] * 3, "error": "ValueError: no 1"}


def test_who_may_replays_and_it_is_logged() -> None:
    told = found("""
record("health.statistics")
letter, gone = bury(), bury(consumer="health.gone")
viewed = act(viewer, "replay_selected", letter)
before = [StoredDeadLetter.objects.count(), LogEntry.objects.count()]
done = act(operator, "replay_selected", letter, gone)
entries = [[one.user.username, one.object_id == str(letter.pk), one.object_repr,
    one.change_message] for one in LogEntry.objects.all()]
tell(before=before, left=[one.consumer for one in StoredDeadLetter.objects.all()],
    due=[one.event_id == letter.event_id for one in DueDelivery.objects.all()],
    told=["1 replayed." in text(done), "1 stay" in text(done)], entries=entries,
    offered=["replay_selected" in text(one.get(LIST)) for one in (viewer, operator)])
""")

    assert told == {
        "before": [2, 0],
        "left": ["health.gone"],
        "due": [True],
        "told": [True, True],
        "entries": [
            [
                "operator",
                True,
                "health.record.saved for health.statistics",
                "Replayed.",
            ]
        ],
        "offered": [False, True],
    }


def test_who_may_discards_after_a_question_and_it_is_logged() -> None:
    told = found("""
letters = [bury() for _ in range(3)]
act(viewer, "discard_selected", *letters, last="999")
asked = act(operator, "discard_selected", letters[0], select_across="1")
before = [StoredDeadLetter.objects.count(), LogEntry.objects.count()]
late = bury()
last = asked.context_data["last"]
done = act(operator, "discard_selected", letters[0], select_across="1", last=str(last))
tell(before=before, question="3 dead letters will be gone" in text(asked),
    last=last == letters[2].pk, told="3 discarded." in text(done),
    left=[one.pk == late.pk for one in StoredDeadLetter.objects.all()],
    entries=[[one.user.username, one.is_deletion()] for one in LogEntry.objects.all()])
""")

    assert told == {
        "before": [3, 0],
        "question": True,
        "last": True,
        "told": True,
        "left": [True],
        "entries": [["operator", True]] * 3,
    }


def test_nothing_is_done_by_get_or_without_a_token_or_where_the_log_fails() -> None:
    told = found("""
record("health.statistics")
letter = bury()
address = f"{LIST}?action=replay_selected&_selected_action={letter.pk}"
operator.get(address)
forged = user("forged", "view_storeddeadletter", "replay_dead_letters",
    enforce_csrf_checks=True)
code = act(forged, "replay_selected", letter).status_code
LogEntry.objects.bulk_create = None
operator.raise_request_exception = False
failed = act(operator, "replay_selected", letter).status_code
tell(codes=[code, failed], left=StoredDeadLetter.objects.count(),
    due=DueDelivery.objects.count())
""")

    assert told == {"codes": [403, 500], "left": 1, "due": 0}


def test_without_the_table_they_are_not_shown() -> None:
    told = found(
        """
from django_gomq.dead_letters import rows
from django.db import connection
rows._migrated.clear()
with connection.schema_editor() as editor:
    editor.delete_model(StoredDeadLetter)
tell(code=operator.get(LIST).status_code,
    index="storeddeadletter" in text(operator.get("/admin/")))
""",
        MEMORY,
    )

    assert told == {"code": 403, "index": False}


def test_those_of_memory_are_replayed_by_the_consumers_of_this_process(
    tmp_path: Path,
) -> None:
    told = found(
        """
import threading, time
from django_gomq import consumer, emit
mended, handled = threading.Event(), []

@consumer("page.viewed", name="seen")
def seen(message):
    if not mended.is_set():
        raise ValueError(message.data["id"])
    handled.append(message.data["id"])

def wait(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)

for number in (1, 2):
    emit("page.viewed", {"id": number})
wait(lambda: StoredDeadLetter.objects.count() == 2)
page = text(operator.get(LIST))
letters = list(StoredDeadLetter.objects.order_by("id"))
payload = text(operator.get(f"{LIST}{letters[0].pk}/change/"))
mended.set()
act(operator, "replay_selected", *letters)
wait(lambda: len(handled) == 2)
tell(page=["seen" in page, "ValueError: #" in page], payload="REDACT" in payload,
    handled=sorted(handled), left=StoredDeadLetter.objects.count(),
    entries=[[one.user.username, one.change_message]
        for one in LogEntry.objects.all()])
""",
        MEMORY,
        str(tmp_path / "site.sqlite3"),
    )

    assert told == {
        "page": [True, True],
        "payload": True,
        "handled": [1, 2],
        "left": 0,
        "entries": [["operator", "Replayed."]] * 2,
    }


def test_those_of_memory_wait_where_no_consumer_runs() -> None:
    told = found(
        """
from django.test import override_settings
from django_gomq import consumer

@consumer("health.record.saved", name="health.statistics")
def count(message):
    pass

memory = {**GOMQ["BROKERS"]["default"], "RUN": "never"}
with override_settings(GOMQ={**GOMQ, "BROKERS": {"default": memory}}):
    letter, gone = bury(event_id=None), bury(event_id=None, consumer="health.gone")
    done = text(act(operator, "replay_selected", letter, gone))
    wanted = [one.consumer for one in StoredDeadLetter.objects.filter(replay_wanted=1)]
    act(operator, "discard_selected", letter, last=str(letter.pk))
    tell(told=["0 replayed." in done, "1 will be" in done, "1 stay" in done],
        wanted=wanted, left=[one.consumer for one in StoredDeadLetter.objects.all()])
""",
        MEMORY,
    )

    assert told == {
        "told": [True, True, True],
        "wanted": ["health.statistics"],
        "left": ["health.gone"],
    }


@pytest.mark.parametrize("is_led", [False, True])
def test_they_are_those_of_the_database_of_the_broker(is_led: bool) -> None:
    told = found(f"""
from django.test import override_settings
brokers = {{"default": {{"BACKEND": {DATABASE!r}, "OPTIONS": {{"using": "other"}}}}}}
routers = ["django_gomq.routers.GomqRouter"] if {is_led} else []
bury(consumer="elsewhere")
with override_settings(GOMQ={{**GOMQ, "BROKERS": brokers}}, DATABASE_ROUTERS=routers):
    letter = bury()
    letter.save(using="other")
    done = act(operator, "discard_selected", letter, last=str(letter.pk))
    tell(told="1 discarded." in text(done),
        left=StoredDeadLetter.objects.using("other").count(),
        logged=LogEntry.objects.using("default").count())
""")

    assert told == {"told": True, "left": 0, "logged": 1}
