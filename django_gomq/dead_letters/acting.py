"""Replays and discards what somebody has chosen, with an entry for each in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

import msgspec
from django.apps import apps
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.db.models import QuerySet
from django.utils.module_loading import import_string

from django_gomq.bus.errors import BackendUnavailableError
from django_gomq.models import StoredDeadLetter

from . import rows

_CHANGE, _DELETION = 2, 3  # the flags of Django's log
_MAX_TEXT: Final = 200  # of an object, in Django's log


class Actor(Protocol):
    """A user of Django's, or of the site's own."""

    @property
    def pk(self) -> Any:
        """None where nobody has logged in."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    wanted: int
    """How many there were."""
    ids: Sequence[int]
    """Those for which it was done."""
    waiting: int = 0
    """Those of them that a process of their consumers takes as soon as it can."""
    failure: str = ""
    """What kept the others from being handed to their server, if anything did."""

    @property
    def left(self) -> int:
        """How many stay, as nothing can be done with them."""
        return self.wanted - len(self.ids)


def replay(
    user: Actor,
    letters: QuerySet[StoredDeadLetter],
    steps: Iterable[list[int]],
) -> Done:
    """Hand dead letters to their consumers again, in steps of one transaction each.

    Blocks; raises what the database raises, and what was done until then is done.
    Raises PermissionDenied for nobody: what is done is logged with a name.
    """
    done = _act(user, letters, steps, rows.replay, _CHANGE, "Replayed.")
    waiting = len(rows.still_wanted(letters.db, done.ids))
    return msgspec.structs.replace(done, waiting=waiting)


def told_of_replay(done: Done) -> Iterator[tuple[int, str]]:
    """Yield what to tell who replayed them, with the levels of Django's messages."""
    yield messages.SUCCESS, f"{len(done.ids) - done.waiting} replayed."
    if done.waiting:
        yield messages.INFO, f"{done.waiting} {_WAITING}"
    if done.failure:
        yield messages.ERROR, f"{done.left} stay, try again later: {done.failure}"
    elif done.left:
        yield messages.WARNING, f"{done.left} {_LEFT}"


_WAITING: Final = (
    "will be, as soon as a process that runs their consumers has room for them: within "
    "seconds, if one does."
)
_LEFT: Final = (
    "stay, as their consumers are not recorded (run manage.py gomq setup where the "
    "code has them), or not in the code; or discard these."
)


def discard(
    user: Actor,
    letters: QuerySet[StoredDeadLetter],
    steps: Iterable[list[int]],
) -> Done:
    """Delete dead letters, as ``replay`` does."""
    return _act(user, letters, steps, rows.discard, _DELETION, "Discarded.")


def _act(
    user: Actor,
    letters: QuerySet[StoredDeadLetter],
    steps: Iterable[list[int]],
    act: Callable[[str, Iterable[int]], list[int]],
    flag: int,
    told: str,
) -> Done:
    if user.pk is None:
        raise PermissionDenied
    wanted, done = 0, list[int]()
    for ids in steps:
        wanted += len(ids)
        named_by = letters.filter(pk__in=ids).only("type", "consumer")
        names = {letter.pk: str(letter) for letter in named_by}
        try:
            with _one_transaction():
                ended = act(letters.db, ids)
                named = {id_: names[id_] for id_ in ended if id_ in names}
                _log(user, named, flag, told)
        except BackendUnavailableError as error:
            return Done(wanted=wanted, ids=done, failure=str(error))
        done += ended
    return Done(wanted=wanted, ids=done)


def _one_transaction() -> AbstractContextManager[Any]:
    """Return a transaction of the database that has Django's log, if one has."""
    if not apps.is_installed("django.contrib.admin"):
        return nullcontext()
    entry = import_string("django.contrib.admin.models.LogEntry")
    return transaction.atomic(using=router.db_for_write(entry))


def _log(
    user: Actor,
    names: Mapping[int, str],
    flag: int,
    told: str,
) -> None:
    if not apps.is_installed("django.contrib.admin"):
        return
    entry = import_string("django.contrib.admin.models.LogEntry")
    types = apps.get_model("contenttypes", "ContentType").objects
    entry.objects.bulk_create(
        entry(
            user_id=user.pk,
            content_type=types.get_for_model(StoredDeadLetter),
            object_id=str(id_),
            object_repr=name[:_MAX_TEXT],
            action_flag=flag,
            change_message=told,
        )
        for id_, name in names.items()
    )
