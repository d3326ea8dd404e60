"""The page of messages: of all processes, while somebody looks, and who sees what."""

from __future__ import annotations

from pathlib import Path

from tests.live.programs import found

MESSAGES = """
from django_gomq import emit
from tests.live.clinic.settings import FOLDER
PAGE = LIVE + "messages/"
ADMIN = "/admin/gomq/consumer/messages/"
(FOLDER / "mended").touch()

def visit(number=0):
    emit("page.viewed", {"path": "/secret"})
    emit("billing.invoice.paid", {"invoice": number, "card": "visa-4111"})

def page_with(client, *words, query=""):
    # Processes sample what comes after they have learned that somebody looks.
    def shown():
        visit()
        found.append(text(client.get(PAGE + query)))
        return all(word in found[-1] for word in words)
    found = []
    wait(shown)
    return found[-1]

def count(table="gomq_message_sample"):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        return cursor.fetchone()[0]
"""


def test_it_is_closed_to_all_but_staff_who_may_view_consumers(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        MESSAGES
        + """
tell(codes=[[client.get(page).status_code for client in (anna, vera, nils, guest,
        nobody)] for page in (PAGE, ADMIN)],
    tabs=[f'href="{link}" aria-current="page">Messages' in text(vera.get(link))
        for link in (PAGE, ADMIN)],
    broken=[broken_rules(text(anna.get(page))) for page in (PAGE, ADMIN)])
""",
    )

    assert told == {
        "codes": [[200, 200, 403, 403, 302], [200, 200, 403, 302, 302]],
        "tabs": [True, True],
        "broken": [[], []],
    }


def test_data_are_shown_to_those_who_may_and_redacted(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        MESSAGES
        + """
import os
may = user("may", *VIEW, "view_message")
seen = page_with(may, "billing.ledger</a>", "****", "/secret")
hidden = page_with(vera, "billing.ledger</a>")
letters = user("letters", *VIEW, "view_payload")
others = page_with(letters, "billing.ledger</a>")
tell(shown=["/secret" in one for one in (seen, hidden, others)],
    card=["visa-4111" in one for one in (seen, hidden, others)],
    process=f" {os.getpid()}<" in hidden,
    tree='href="/gomq/live/tree/?id=' in hidden,
    words=[word in hidden for word in ("Handled", "1 process", "page.viewed")])
""",
    )

    assert told == {
        "shown": [True, False, False],
        "card": [False, False, False],
        "process": True,
        "tree": True,
        "words": [True, True, True],
    }


def test_a_page_has_what_is_asked_for(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        MESSAGES
        + """
by_event = page_with(vera, "billing.ledger</a>", query="?event=billing.*")
by_consumer = page_with(vera, "cache.warm</a>", query="?consumer=cache.warm")
tell(events=["<b>page.viewed</b>" in one for one in (by_event, by_consumer)],
    consumers=["billing.ledger</a>" in one for one in (by_event, by_consumer)],
    kept=['value="billing.*"' in by_event, "<option selected>cache.warm" in by_consumer,
        'hx-get="/gomq/live/messages/?event=billing.*"' in by_event],
    wrong=["is no event type and no pattern" in text(vera.get(PAGE + "?event=A%20b")),
        "There is no consumer" in text(vera.get(PAGE + "?consumer=nobody"))])
""",
    )

    assert told == {
        "events": [False, True],
        "consumers": [True, False],
        "kept": [True] * 3,
        "wrong": [True] * 2,
    }


def test_nothing_is_sampled_while_nobody_looks_and_nothing_left(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        MESSAGES
        + """
from django_gomq import get_broker
from django_gomq.site import brokers
vera.get(LIVE)
visit()
wait(lambda: "1 process" in text(vera.get(LIVE)))
runners = list(brokers.site.worker._runners.values())
def is_plain():
    return all(runner.settle == runner._settler.settle for runner in runners)
plain = is_plain()
before = count()
page_with(vera, "cache.warm</a>")
watched = [count() > 0, is_plain()]
with connection.cursor() as cursor:  # as if it were 15 seconds later
    cursor.execute("UPDATE gomq_message_watch SET until = 0")
wait(lambda: count() == 0)
wait(is_plain)
visit()
wait(lambda: get_broker().stats().is_quiet)
tell(plain=plain, before=before, watched=watched, after=count())
""",
    )

    assert told == {
        "plain": True,
        "before": 0,
        "watched": [True, False],
        "after": 0,
    }


def test_without_its_tables_the_page_says_what_to_do_and_others_work(
    tmp_path: Path,
) -> None:
    told = found(
        tmp_path,
        MESSAGES
        + """
from django_gomq import get_broker
call_command("migrate", "gomq", "0003", verbosity=0)
visit()
wait(lambda: get_broker().stats().consumers["cache.warm"].succeeded == 1)
wait(lambda: "1 process" in text(vera.get(LIVE)))
tell(codes=[vera.get(page).status_code for page in (LIVE, PAGE, LIVE + "map/")],
    said="run manage.py migrate gomq" in text(vera.get(PAGE)))
""",
    )

    assert told == {"codes": [200] * 3, "said": True}


def test_a_poll_of_fifty_messages_stays_small(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        MESSAGES
        + """
import gzip, uuid
from django_gomq.operations.moments import Holds
from django_gomq.operations.samples import Sample
from django_gomq.operations.table import ProcessTables
tables = ProcessTables("default", "other", "web")
assert tables.are_there()
tables.tell(Holds(), [])
told = [Sample(ended=time.time() - n, broker="default", event="health.record.saved",
    consumer="statistics.records", outcome="retry", reason="TimeoutError",
    wait=0.001 * n, duration=0.002 * n, message=str(uuid.uuid4()),
    trace=uuid.uuid4().hex, host="web-1", pid=n) for n in range(60)]
tables.tell_messages([(one, None) for one in told])
vera.get(PAGE)
with CaptureQueriesContext(connection) as queries:
    page = vera.get(PAGE, headers=POLL).content
print(len(gzip.compress(page, 6)), len(queries))
tell(kilobytes=len(gzip.compress(page, 6)) / 1000, rows=page.count(b'<tr id="message-'),
    queries=len(queries))
""",
    )

    assert told["rows"] == 50
    assert told["kilobytes"] <= 10
    # Session, user, two for permissions, dead letters; two watches, processes, these.
    assert told["queries"] <= 10
