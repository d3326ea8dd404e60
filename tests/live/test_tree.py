"""The page of a message's tree: found from a search and from dead letters."""

from __future__ import annotations

from pathlib import Path

from tests.live.programs import found

ON_DATABASE = """
from django.conf import settings
from django_gomq.site import renew
settings.GOMQ = {**settings.GOMQ, "BROKERS": {"default": {
    "BACKEND": "django_gomq.backends.database.DatabaseBackend", "RUN": "worker"}}}
renew()
"""
KEPT = """
from django_gomq.backends.database.outbox import hash_of_id
from django_gomq.bus.message import Message
from django_gomq.bus.wire import encode_structured
from django_gomq.models import HistoryEvent

TREE = LIVE + "tree/"

def keep(cause=None):
    headers = {} if cause is None else {"causationid": cause.id}
    message = Message("page.viewed", b'{"name": "Ada B."}', headers=headers)
    HistoryEvent.objects.create(id=HistoryEvent.objects.count() + 1,
        type=message.type, made=message.made,
        envelope=encode_structured(message, source="tests"),
        message_hash=hash_of_id(message.id),
        causation_hash=hash_of_id(message.causation_id))
    return message

def tree_of(message, client=vera):
    return text(client.get(TREE, {"id": message.id}))
"""


def test_a_message_stands_in_a_list_between_its_cause_and_its_effects(
    tmp_path: Path,
) -> None:
    told = found(
        tmp_path,
        ON_DATABASE
        + KEPT
        + """
root = keep()
asked = keep(root)
effects = [keep(asked), keep(asked)]
page = tree_of(asked)
part = page[page.index('<ul class="g-tree">'):]
places = [part.index(one.id) for one in (root, asked, *effects)]
tell(sorted=places == sorted(places), lists=part.count('<ul class="g-tree">'),
    balanced=[part.count("<ul") == part.count("</ul>"),
        part.count("<li") == part.count("</li>")],
    current=part.count('aria-current="true"'), data="Ada B." in page,
    links=all(f"{TREE}?id={one.id}" in part for one in effects),
    broken=broken_rules(page))
""",
    )

    assert told == {
        "sorted": True,
        "lists": 3,
        "balanced": [True, True],
        "current": 1,
        "data": False,
        "links": True,
        "broken": [],
    }


def test_a_dead_letter_leads_to_its_tree_and_the_tree_to_it(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        ON_DATABASE
        + KEPT
        + """
message = keep()
record("billing.ledger")
letter = bury(event_id=1, message_id=message.id, consumer="billing.ledger")
shown = text(vera.get(f"{LIVE}dead-letters/{letter.pk}/"))
blind = user("blind", "view_recordedconsumer")
address = f"{LIVE}dead-letters/{letter.pk}/"
pages = [tree_of(message, each) for each in (vera, blind)]
tell(there=f"{TREE}?id={message.id}" in shown,
    back=[address in page for page in pages],
    told=["gave up in attempt 3: ValueError" in page for page in pages],
    codes=[each.get(TREE, {"id": message.id}).status_code
        for each in (vera, blind, nils, guest, nobody)])
""",
    )

    assert told == {
        "there": True,
        "back": [True, False],
        "told": [True, True],
        "codes": [200, 200, 403, 403, 302],
    }


def test_what_is_not_kept_is_said(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        ON_DATABASE
        + KEPT
        + """
from unittest.mock import patch
lost = keep(Message("a.b", number="<of another system>"))
for _ in range(3):
    keep(lost)
with patch("django_gomq.history.tree.MAX_NODES", 2):
    cut = tree_of(lost)
pages = [text(vera.get(TREE)), text(vera.get(TREE, {"id": "<b>gone</b>\\x00"})), cut]
tell(said=["Logs, dead letters and spans" in pages[0],
        "No kept event has the id &lt;b&gt;gone" in pages[1],
        "&lt;of another system&gt;" in cut, "which is not kept here" in cut,
        "more than the 2 messages" in cut],
    broken=[broken_rules(page) for page in pages])
""",
    )

    assert told == {"said": [True] * 5, "broken": [[]] * 3}


def test_without_the_database_backend_the_page_says_that_it_needs_it(
    tmp_path: Path,
) -> None:
    told = found(
        tmp_path,
        """
page = text(vera.get(LIVE + "tree/?id=x"))
tell(said="no broker of this site is on the database backend" in page,
    form="<form method=\\"get\\"" in page, broken=broken_rules(page))
""",
    )

    assert told == {"said": True, "form": False, "broken": []}
