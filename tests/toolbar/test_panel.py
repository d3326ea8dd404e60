"""The panel of django-debug-toolbar, on a site that has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.django_site.programs import run_program

_SITE: Final = """
import asyncio, html, json, re, sys, threading, time
import django
django.setup()
from django.core.management import call_command
from django.test import AsyncClient, Client
from django_gomq.capturing import captures
from tests.toolbar.site import consumers
call_command("migrate", verbosity=0)
client = Client()

def shown(response):
    request_id = re.search(r'data-request-id="(\\w+)"', response.content.decode())[1]
    asked = {"request_id": request_id, "panel_id": "EventsPanel"}
    found = client.get("/__debug__/render_panel/", asked).json()["content"]
    return html.unescape(found)

def rows(response):
    told = []
    for row in re.findall(r"<tr>\\n(.*?)</tr>", shown(response), re.S):
        cells = [re.sub(r"<[^>]+>", "", cell).strip()
            for cell in re.findall(r"<td>(.*?)</td>", row, re.S)]
        told.append(cells[:1] + cells[2:])
    return told

def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)

def tell(**found):
    print(json.dumps(found))
"""


def found(folder: Path, code: str) -> dict[str, Any]:
    """Return what a program tells that has the site."""
    done = run_program(
        _SITE + code,
        DJANGO_SETTINGS_MODULE="tests.toolbar.site.settings",
        SITE_FOLDER=str(folder),
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_it_shows_events_their_consumers_and_what_became_of_them(
    tmp_path: Path,
) -> None:
    told = found(
        tmp_path,
        """
response = client.get("/at-once")
until(lambda: "given up" in shown(response) and "handled" in shown(response))
tell(rows=rows(response), subtitle="2 emitted" in response.content.decode(),
    data="a password" in shown(response))
""",
    )

    fates = (
        "cache.warm: handled",
        "audit.trail: given up, attempt 2: ValueError: no place",
    )
    viewed, unheard = told["rows"]
    assert viewed[:4] == ["page.viewed", "at once", "accepted", "default"]
    assert all(fate in viewed[4] for fate in fates), viewed
    assert unheard == [
        *("nobody.listens", "at once", "refused: no consumer", "default"),
        "nobody in this code",
    ]
    assert told["subtitle"] is True
    assert told["data"] is False


def test_it_tells_what_a_commit_and_a_rollback_made_of_them(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        """
response = client.get("/in-transactions")
until(lambda: shown(response).count("handled") == 2)
tell(rows=rows(response))
""",
    )

    assert told["rows"] == [
        ["record.saved", "on commit", "accepted", "default", "records.count: handled"],
        ["record.lost", "on commit", "rolled back", "default", "records.count: never"],
        ["record.hurried", "at once", "accepted", "default", "records.count: handled"],
    ]


def test_it_tells_what_is_in_work_refused_or_for_other_processes(
    tmp_path: Path,
) -> None:
    told = found(
        tmp_path,
        """
working = client.get("/waiting")
until(lambda: "in work" in shown(working))
in_work = rows(working)
consumers.GO_ON.set()
until(lambda: "handled" in shown(working))
stored = rows(client.get("/stored"))
tell(in_work=in_work, stored=stored, refused=rows(client.get("/refused")))
""",
    )

    assert told["in_work"][0][-1] == "report.make: in work, attempt 1"
    assert told["stored"][0][2:] == [
        *("accepted", "durable"),
        "stored.rows: not handled in this process; others may have it",
    ]
    assert told["refused"][0][2] == "refused: closed"
    assert "cache.warm: never" in told["refused"][0][-1]


def test_each_request_has_its_own_also_of_many_at_once(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        """
async def visit():
    visitor = AsyncClient()
    paths = [f"/awaited?times={times}" for times in (1, 2, 3)] + ["/unrelated"]
    return await asyncio.gather(*map(visitor.get, paths))

answers, threads = {}, []
for name in ("at-once", "in-transactions", "many", "unrelated"):
    one = threading.Thread(
        target=lambda name=name: answers.update({name: Client().get(f"/{name}")}))
    threads.append(one)
    one.start()
for one in threads:
    one.join()
tell(awaited=[len(rows(one)) for one in asyncio.run(visit())],
    threads={name: len(rows(one)) for name, one in answers.items()},
    more="And 30 more." in shown(answers["many"]), left=len(captures))
""",
    )

    assert told == {
        "awaited": [1, 2, 3, 0],
        "threads": {
            "at-once": 2,
            "in-transactions": 3,
            "many": 100,
            "unrelated": 0,
        },
        "more": True,
        "left": 0,
    }


def test_it_counts_the_refused_beyond_those_it_lists(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        """
response = client.get("/many-refused")
tell(subtitle=re.findall(r"\\d+ emitted[^<]*", response.content.decode()),
    more="And 18 more." in shown(response))
""",
    )

    assert told == {
        "subtitle": ["118 emitted, 8 refused or rolled back"],
        "more": True,
    }


def test_a_site_that_does_not_name_it_loads_nothing_of_it() -> None:
    done = run_program(
        """
import sys
import django
django.setup()
from django_gomq import emit, get_broker
emit("toolbar.unseen", {})
hooks = [type(hook).__name__ for hook in get_broker().hooks._hooks]
print("OutcomeHook" in hooks, any("toolbar" in name for name in sys.modules))
"""
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False False"
