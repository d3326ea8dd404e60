"""Programs that have the clinic's site, its users and a client for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.django_site.programs import run_program

_SITE: Final = """
import json, time
import django
django.setup()
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django_gomq.models import StoredDeadLetter
from tests.django_site.burying import bury, record
from tests.live.policy import broken_rules

LIVE = "/gomq/live/"
VIEW = {"view_recordedconsumer", "view_storeddeadletter"}
call_command("migrate", verbosity=0)

def user(name, *rights, is_staff=True, **options):
    made = User.objects.create_user(name, password=name, is_staff=is_staff)
    permissions = Permission.objects.filter(codename__in=rights)
    assert len(permissions) == len(rights), (rights, permissions)
    made.user_permissions.set(permissions)
    client = Client(**options)
    assert client.login(username=name, password=name)
    return client

User.objects.create_superuser("anna", password="anna")
anna = Client()
assert anna.login(username="anna", password="anna")
vera = user("vera", *VIEW)
nils = user("nils")
guest = user("guest", *VIEW, is_staff=False)
nobody = Client()
POLL = {"HX-Request": "true"}

def text(response):
    return response.content.decode()

def wait(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)

def tell(**found):
    print(json.dumps(found))
"""


def found(folder: Path, code: str, **environ: str) -> dict[str, Any]:
    """Return what a program tells that has the site; its files are in the folder."""
    done = run_program(
        _SITE + code,
        DJANGO_SETTINGS_MODULE="tests.live.clinic.settings",
        CLINIC_FOLDER=str(folder),
        **environ,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told
