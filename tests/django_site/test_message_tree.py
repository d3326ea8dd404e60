"""The tree of a message: its bounds, what rows tell of it, and ``gomq tree``."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from django.db import OperationalError

from django_gomq.backends.database.outbox import hash_of_id
from django_gomq.bus.message import Message
from django_gomq.bus.wire import encode_structured
from django_gomq.history import tree
from django_gomq.models import (
    DueDelivery,
    EndedDelivery,
    HandledMessage,
    HistoryEvent,
    RecordedConsumer,
)
from tests.django_site.burying import BROKERS, bury, record
from tests.django_site.conftest import UseSite
from tests.management.commanding import gomq

pytestmark = pytest.mark.django_db(transaction=True)

_rows = itertools.count(1)


def keep(cause: Message[Any] | str | None = None, **fields: Any) -> Message[Any]:
    """Have an event in kept history, as a dispatch writes it."""
    cause_id = cause.id if isinstance(cause, Message) else cause
    headers = {} if cause_id is None else {"causationid": cause_id}
    message: Message[Any] = Message("page.viewed", headers=headers, **fields)
    keep_again(message)
    return message


def keep_again(message: Message[Any]) -> int:
    row = HistoryEvent.objects.create(
        id=next(_rows),
        type=message.type,
        made=time.time(),
        envelope=encode_structured(message, source="tests"),
        message_hash=hash_of_id(message.id),
        causation_hash=hash_of_id(message.causation_id),
    )
    return int(row.pk)


def chain(length: int) -> list[Message[Any]]:
    found = [keep()]
    for _ in range(length - 1):
        found.append(keep(found[-1]))
    return found


def find(message: Message[Any] | str) -> tree.Tree:
    found = tree.find(message if isinstance(message, str) else message.id)
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def _durable(use_site: UseSite) -> None:
    use_site(BROKERS={"default": {**BROKERS["default"], "RUN": "worker"}})


# ---------------------------------------------------------------------------- nodes


def test_causes_stand_above_and_effects_below_and_nothing_beside() -> None:
    root = keep()
    beside = keep(root)
    asked = keep(root)
    first, second = keep(asked), keep(asked)
    of_first = keep(first)

    found = find(asked)

    assert [(node.depth, node.id) for node in found.nodes] == [
        (0, root.id),
        (1, asked.id),
        (2, first.id),
        (3, of_first.id),
        (2, second.id),
    ]
    assert beside.id not in {node.id for node in found.nodes}
    assert (found.asked, found.lost_cause, found.is_cut) == (asked.id, None, False)


def test_a_cause_that_is_not_kept_is_named() -> None:
    assert find(keep("another system's")).lost_cause == "another system's"


def test_messages_that_name_themselves_or_one_another_as_cause_have_an_end() -> None:
    own = keep("own", number="own")
    egg, hen = keep("hen", number="egg"), keep("egg", number="hen")

    assert [node.id for node in find(own).nodes] == ["own"]
    assert [node.id for node in find(egg).nodes] == ["hen", "egg"]
    assert find(hen).lost_cause == "hen"


def test_a_message_that_was_published_twice_is_one_node() -> None:
    root = keep()
    twice = keep(root)
    keep_again(twice)

    assert [node.id for node in find(root).nodes] == [root.id, twice.id]
    assert [node.id for node in find(twice).nodes] == [root.id, twice.id]


def test_a_tree_is_bounded_in_its_nodes_and_says_so() -> None:
    root = keep()
    for _ in range(tree.MAX_NODES - 1):
        keep(root)

    whole = find(root)
    keep(root)
    cut = find(root)

    assert (len(whole.nodes), whole.is_cut) == (tree.MAX_NODES, False)
    assert (len(cut.nodes), cut.is_cut) == (tree.MAX_NODES, True)


def test_a_tree_is_bounded_in_its_depth_and_says_so() -> None:
    messages = chain(2 * tree.MAX_DEPTH + 3)

    first, last = find(messages[0]), find(messages[-1])

    assert (len(first.nodes), first.is_cut) == (tree.MAX_DEPTH + 1, True)
    assert len(last.nodes) == tree.MAX_DEPTH + 1
    assert last.lost_cause == messages[-tree.MAX_DEPTH - 2].id


def test_an_envelope_that_nobody_can_read_is_left_out() -> None:
    root = keep()
    broken = keep(root)
    HistoryEvent.objects.filter(message_hash=hash_of_id(broken.id)).update(
        envelope=b"?"
    )

    assert [node.id for node in find(root).nodes] == [root.id]
    assert tree.find(broken.id) is None


# ------------------------------------------------------------------------ handlings


def test_a_node_tells_what_each_consumer_has_to_do_or_has_done() -> None:
    record("at.it", "due", "gave.up", "given.up", "handled", "killed", "noted", "old")
    record("replayed", "untold", "waiting")
    RecordedConsumer.objects.update(types='["page.viewed"]')
    record("elsewhere")
    RecordedConsumer.objects.filter(name="elsewhere").update(types='["a.b"]')
    ids = {one.name: one.pk for one in RecordedConsumer.objects.all()}
    message = keep()
    row = HistoryEvent.objects.get().pk
    for name, state, due in (
        ("waiting", 0, None),
        ("at.it", 1, None),
        ("due", 2, 1e9),
        ("killed", 3, None),
    ):
        DueDelivery.objects.create(
            event_id=row,
            consumer_id=ids[name],
            precedence=4,
            state=state,
            due=due,
            attempt=2,
        )
    DueDelivery.objects.create(event_id=row, consumer_id=99, precedence=4, state=0)
    for name, outcome, ended in (
        ("gave.up", 2, 0.25),
        ("given.up", 2, 0.25),
        ("handled", 0, 0.25),
        ("old", 1, 90_000),
        ("replayed", 0, -1),
    ):
        EndedDelivery.objects.create(
            event_id=row,
            consumer_id=ids[name],
            attempt=3,
            outcome=outcome,
            ended=message.made + ended,
        )
    DueDelivery.objects.create(
        event_id=row, consumer_id=ids["replayed"], precedence=4, state=0
    )
    HandledMessage.objects.create(
        consumer_id=ids["noted"], message_id="x", event_id=row
    )
    HandledMessage.objects.create(
        consumer_id=ids["handled"], message_id="x", event_id=row
    )
    letter = bury(consumer="given.up", message_id=message.id)

    (node,) = find(message).nodes

    assert [(one.consumer, one.told, one.letter) for one in node.handlings] == [
        ("at.it", "is at it, attempt 2", None),
        ("consumer 99", "waits for attempt 1", None),
        ("due", "waits for attempt 2, due 2001-09-09 01:46:40 UTC", None),
        ("gave.up", "gave up after 0.25 s, in attempt 3", None),
        ("given.up", "gave up in attempt 3: ValueError", letter.pk),
        ("handled", "handled it after 0.25 s, in attempt 3", None),
        ("killed", "waits for attempt 2: its process died", None),
        ("noted", "handled it", None),
        ("old", "dropped it as too old after 1 day, 1:00:00, in attempt 3", None),
        ("replayed", "handled it after 0 s, in attempt 3", None),
        ("replayed", "waits for attempt 1", None),
        ("waiting", "waits for attempt 2", None),
    ]
    assert node.untold == ["untold"]


@pytest.mark.parametrize("far", [1e12, 1e300])
def test_what_no_calendar_has_is_told_without_a_date(far: float) -> None:
    record("patient", "shifted")
    RecordedConsumer.objects.update(types='["page.viewed"]')
    patient, shifted = RecordedConsumer.objects.order_by("name")
    message = keep()
    row = HistoryEvent.objects.get().pk
    DueDelivery.objects.create(
        event_id=row, consumer_id=patient.pk, precedence=4, state=2, due=far
    )
    EndedDelivery.objects.create(
        event_id=row, consumer_id=shifted.pk, attempt=1, outcome=0, ended=far
    )

    (node,) = find(message).nodes

    waits, ended = [one.told for one in node.handlings]
    assert waits == "waits for attempt 1, due at no day that a calendar has"
    assert ended.startswith("handled it after ")


# ------------------------------------------------------------------------- terminal


def test_the_terminal_shows_the_tree_within_80_columns() -> None:
    messages = chain(20)
    lost = keep("x" * 200)
    letter = bury(consumer="given.up." + "long" * 30, message_id=lost.id)

    done, of_lost = gomq("tree", messages[7].id), gomq("tree", lost.id)

    assert (done.returncode, of_lost.returncode) == (0, 0), of_lost.stderr
    lines = (done.stdout + of_lost.stdout).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(message.id in done.stdout for message in messages)
    assert sum(line.endswith(" *") for line in lines) == 2
    assert "(level 19)" in done.stdout
    assert f"(dead letter {letter.pk})" in " ".join(of_lost.stdout.split())
    assert of_lost.stdout.startswith("Caused by")
    assert "is not kept here, or is further up than is shown." in " ".join(
        of_lost.stdout.split()
    )


def test_the_terminal_says_where_there_is_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_NODES", 2)
    root = keep()
    keep(root)
    keep(root)

    assert "more than the 2 messages shown" in gomq("tree", root.id).stdout


def test_an_unknown_message_is_an_error_that_says_what_may_be() -> None:
    done = gomq("tree", "unknown")

    assert (done.returncode, done.stdout) == (1, "")
    assert "No kept event has the id unknown" in done.stderr


def test_without_the_database_backend_the_terminal_shows_nothing(
    use_site: UseSite,
) -> None:
    use_site()

    done = gomq("tree", "unknown")

    assert (done.returncode, done.stdout) == (2, "")
    assert "on the database backend" in done.stderr


def test_a_database_that_cannot_be_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(message_id: str) -> None:
        raise OperationalError("no such column: message_hash")

    monkeypatch.setattr(tree, "find", fail)

    done = gomq("tree", "unknown")

    assert done.returncode == 1
    assert "Is manage.py migrate gomq still to run?" in done.stderr
