"""The pages of dead letters: by what is behind them, one by one, and what is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from django.db.models import Max, QuerySet
from django.http import QueryDict

from django_gomq.bus.dead_letters import fault_of
from django_gomq.dead_letters import rows
from django_gomq.dead_letters.chosen import Chosen, key_of
from django_gomq.dead_letters.payload import payload_of
from django_gomq.models import StoredDeadLetter

from . import amounts, tree_page
from .mounting import Mount, Rights

SHOWN_GROUPS: Final = 50
SHOWN_OTHERS: Final = 20
GROUPED: Final = 10_000
"""The newest dead letters, which are grouped: a page is not to read a whole table."""
COUNTED: Final = 1_000
"""As many are counted for the tab of each page."""
_MAX_TEXT: Final = 300
_MAX_CHOSEN: Final = 1_000


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter, as it is shown."""

    id: int
    address: str
    """Of the page of its own."""
    broker: str
    consumer: str
    event: str
    message: str
    tree: str
    """The address of its message's tree."""
    trace: str
    attempts: int
    error_type: str
    error: str
    traceback: str
    first_failed: str
    given_up: str
    payload: str | None
    """None for those who may not see it."""
    is_wanted: bool
    """A replay was asked for, and no process has taken it so far."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters of one consumer and one fault."""

    key: str
    consumer: str
    error_type: str
    text: str
    count: int
    written_count: str
    last: str
    example: Letter | None


def letters(consumer: str | None = None) -> QuerySet[StoredDeadLetter] | None:
    """Return those that pages show, None where no database keeps any."""
    using = rows.shown_database()
    if using is None:
        return None
    if consumer is not None and "\x00" in consumer:  # PostgreSQL takes no such text
        return StoredDeadLetter.objects.using(using).none()
    return rows.Choice(consumer=consumer).rows(using)


def counted(found: QuerySet[StoredDeadLetter]) -> str:
    """Return how many there are, or that there are more than a tab needs to say."""
    number = found.order_by()[: COUNTED + 1].count()
    if number > COUNTED:
        return f"{amounts.count(COUNTED)}+"
    return amounts.count(number) if number else ""


def groups(
    found: QuerySet[StoredDeadLetter],
    rights: Rights,
    mount: Mount,
    most: int = SHOWN_GROUPS,
) -> Sequence[Group]:
    """Return the newest of these by what is behind them, the most frequent first."""
    newest = found.order_by("-id").values_list("id", flat=True)
    older = newest[GROUPED : GROUPED + 1]
    recent = found.filter(id__gt=older[0]) if older else found
    faults = rows.by_fault(recent)[:most]
    examples = {
        letter.pk: shown(letter, rights, mount)
        for letter in found.filter(pk__in=[fault.example for fault in faults])
    }
    now = time.time()
    return [_group(fault, examples.get(fault.example), now) for fault in faults]


def _group(fault: rows.Fault, example: Letter | None, now: float) -> Group:
    error_type, _, text = fault.fault.partition(": ")
    return Group(
        key=key_of(fault.consumer, fault.fault),
        consumer=fault.consumer,
        error_type=error_type[:_MAX_TEXT],
        text=text[:_MAX_TEXT],
        count=fault.count,
        written_count=amounts.count(fault.count),
        last=f"{amounts.duration(now - fault.last)} ago",
        example=example,
    )


def shown(letter: StoredDeadLetter, rights: Rights, mount: Mount) -> Letter:
    """Return what this user may see of a dead letter."""
    return Letter(
        id=letter.pk,
        address=mount.address("live_dead_letter", letter.pk),
        broker=letter.broker,
        consumer=letter.consumer,
        event=letter.type,
        message=letter.message_id,
        tree=tree_page.address(mount, letter.message_id),
        trace=letter.trace_id,
        attempts=letter.attempt,
        error_type=letter.error_type,
        error=letter.error,
        traceback=letter.traceback,
        first_failed=_moment(letter.first_failed),
        given_up=_moment(letter.failed),
        payload=payload_of(letter) if rights.payload else None,
        is_wanted=letter.replay_wanted,
    )


def _moment(seconds: float) -> str:
    moment = rows.moment_of(seconds)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


class Other(msgspec.Struct, frozen=True):
    """A dead letter beside the one that is shown."""

    id: int
    error: str
    address: str


def same_fault(
    found: QuerySet[StoredDeadLetter], letter: StoredDeadLetter, mount: Mount
) -> Sequence[Other]:
    """Return the newest others of its consumer, of the same fault."""
    fault = fault_of(letter.error)
    others = found.filter(consumer=letter.consumer).exclude(pk=letter.pk)
    newest = others.order_by("-id").values_list("id", "error")[:COUNTED]
    same = [(id_, error) for id_, error in newest if fault_of(error) == fault]
    return [
        Other(id_, error[:_MAX_TEXT], mount.address("live_dead_letter", id_))
        for id_, error in same[:SHOWN_OTHERS]
    ]


def newest_id(found: QuerySet[StoredDeadLetter]) -> int:
    """Return the id of the newest; 0 without any."""
    last: int | None = found.aggregate(Max("id"))["id__max"]
    return last or 0


def chosen_in(form: QueryDict, *, is_all: bool) -> Chosen:
    """Return what a form has chosen; raises ValueError for a strange one."""
    ids = [_id_in(text) for text in form.getlist("letter")]
    keys = form.getlist("group")
    if len(ids) + len(keys) > _MAX_CHOSEN:
        raise ValueError(f"More than {_MAX_CHOSEN} are chosen.")
    is_all = is_all or "all" in form
    return Chosen(ids=ids, keys=keys, all=is_all, last=_id_in(form.get("last", "")))


def _id_in(text: str) -> int:
    found = rows.id_in(text)
    if found is None:
        raise ValueError(f"{text!r:.50} is no id of a dead letter.")
    return found


def fields_of(chosen: Chosen) -> Iterator[tuple[str, object]]:
    """Yield the fields of a form that chooses the same."""
    yield "last", chosen.last
    yield from (("letter", pk) for pk in chosen.ids)
    yield from (("group", key) for key in chosen.keys)
    if chosen.all:
        yield "all", "yes"


def count_chosen(chosen: Chosen, found: QuerySet[StoredDeadLetter]) -> int:
    """Return how many are chosen. Reads as ``Chosen.steps`` does."""
    return sum(map(len, chosen.steps(found)))


def context(
    found: QuerySet[StoredDeadLetter] | None, rights: Rights, mount: Mount
) -> Mapping[str, Any]:
    """Return what the page of all dead letters shows."""
    if found is None:
        return {"groups": None}
    shown_groups = groups(found, rights, mount)
    grouped = sum(group.count for group in shown_groups)
    return {
        "groups": shown_groups,
        "grouped": amounts.count(grouped),
        "is_part": found.order_by("id")[: grouped + 1].count() > grouped,
        "last": newest_id(found),
    }
