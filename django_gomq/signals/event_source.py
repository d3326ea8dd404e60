"""Events made of what a signal tells: who sent it goes on, whatever fails meanwhile."""

from __future__ import annotations

import copy
import logging
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

import msgspec
from django.apps import AppConfig
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import (
    ConfigurationError,
    MessageError,
    describe_error,
    printable,
)
from django_gomq.bus.event import Event, declare
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.commit import initialized
from django_gomq.emit import emit
from django_gomq.site import brokers

logger = logging.getLogger("gomq.emit")

NOT_MADE: Final = "not_made"
"""The reason for which an event counts as refused that could not be made."""


class NotMade(msgspec.Struct, frozen=True):
    """Stands for data that a function failed to make."""

    error: Exception


class EventSource:
    """One event: its type, what makes its data, and the options of emit."""

    def __init__(
        self,
        event: str,
        data: Callable[..., Any] | None,
        options: Mapping[str, Any],
    ) -> None:
        """Without ``data`` an event is about the primary key of an instance."""
        declare(event)
        self.event = event
        self.options = options
        """Those of emit."""
        self._data = data
        self._counted_in = 0
        self._told: weakref.WeakSet[type] = weakref.WeakSet()

    def __str__(self) -> str:
        """Say where its function stands, and the options."""
        code = getattr(self._data, "__code__", None)
        place = f"{code.co_filename}, line {code.co_firstlineno}" if code else "no data"
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        return ", ".join([place, *options])

    def is_same(self, other: EventSource) -> bool:
        """Whether both make the same, also where a module was loaded twice."""
        return (
            self.event == other.event
            and self.options == other.options
            and _identity(self._data) == _identity(other._data)
        )

    def emit(self, instance: Model, using: str) -> None:
        """Emit the event of an instance as it is in that database."""
        self.tell(instance, self.make_of(instance, using), using=using)

    def make_of(self, instance: Model, using: str) -> Any:
        """Return the data of an instance, or NotMade."""
        make = self._data
        if make is None:
            return {"pk": instance.pk}
        return self._try(lambda: make(_without_expressions(instance, using)))

    def make(self, sender: Any, **details: Any) -> Any:
        """Return the data of what a signal was sent with, or NotMade."""
        make = self._data
        return {} if make is None else self._try(partial(make, sender, **details))

    def _try(self, make: Callable[[], Any]) -> Any:
        if brokers.site is None:
            return None  # nobody would see it
        try:
            with _keeping_transactions():
                return make()
        except Exception as error:  # noqa: BLE001 - a user's function raises anything
            return NotMade(error)

    def tell(self, about: Any, made: Any, **defaults: Any) -> None:
        """Emit what was made; log and count what was not, or cannot be.

        What ``strict`` and ``ON_REFUSED`` want raised is raised.
        """
        options = {**defaults, **self.options}
        if self._counted_in != os.getpid():
            self._counted_in = os.getpid()
            self._count(0)  # an alert sees what grows, not what begins
        try:
            if isinstance(made, NotMade):
                self._report(about, made.error)
            elif isinstance(made, Event):
                emit(made, **options)
            else:
                emit(self.event, made, **options)
        except (MessageError, ConfigurationError) as error:
            self._report(about, error)

    def _count(self, count: int) -> Broker | None:
        site = brokers.site
        if site is None:
            return None
        broker = site.emitters.find(self.event, self.options.get("broker")).broker
        broker.count_refused(self.event, NOT_MADE, count)
        return broker

    def _report(self, about: Any, error: Exception) -> None:
        broker = self._count(1)
        if broker is None:
            return
        # Each line names a row, and all of one kind have the same traceback.
        is_new = type(error) not in self._told
        self._told.add(type(error))
        line = partial(
            write_log,
            logger,
            logging.ERROR,
            "Event %s of %s could not be made and is not published: %s",
            self.event,
            _name(about),
            describe_error(error),
            fields={"gomq_event": self.event, "gomq_broker": broker.alias},
            error=error if is_new else None,
        )
        broker.hooks.hand_over(line)


def _name(about: Any) -> str:
    if isinstance(about, Model):
        return f"{about._meta.label} {printable(str(about.pk), 100)}"
    return f"a signal of {printable(getattr(about, '__name__', repr(about)), 100)}"


def _identity(value: Any, within: tuple[Any, ...] = ()) -> Any:
    """Return what is equal for a function whose module was loaded, or ready(), twice.

    That is the value itself where it is neither a function nor an AppConfig, of which
    Django makes new ones when ``INSTALLED_APPS`` is overridden. ``within`` are the
    functions that refer to it: one may refer to itself.
    """
    if isinstance(value, AppConfig):
        return type(value), value.name
    if any(value is function for function in within):
        return None
    of = partial(_identity, within=(*within, value))
    if isinstance(value, partial):
        named = {name: of(given) for name, given in value.keywords.items()}
        return of(value.func), [*map(of, value.args)], named
    code = getattr(value, "__code__", None)
    if code is None:
        return value
    # The functions of a loop have one code, and differ in what they close over.
    refers_to = [
        *(cell.cell_contents for cell in value.__closure__ or ()),
        *(value.__defaults__ or ()),
        *(value.__kwdefaults__ or {}).values(),
        getattr(value, "__self__", None),
    ]
    return code, value.__module__, [*map(of, refers_to)]


def _without_expressions(instance: Model, using: str) -> Model:
    """Return the instance with values in the place of ``F()`` and its like.

    Before Django 6.0 what was saved as an expression is still one after the save. The
    values are read, one query more, into a copy: who saves it again would rely on that.
    """
    values = vars(instance)
    left = [
        field.attname
        for field in instance._meta.concrete_fields
        if hasattr(values.get(field.attname), "resolve_expression")
    ]
    if not left:
        return instance
    settled = copy.copy(instance)
    settled.refresh_from_db(using=using, fields=left)
    return settled


@contextmanager
def _keeping_transactions() -> Iterator[None]:
    """Have the open transactions live on after a database error inside.

    On PostgreSQL such an error breaks the transaction, up to a savepoint. There is one
    only where something is asked of the database.
    """
    with ExitStack() as stack:
        for connection in list(initialized()):
            if connection.in_atomic_block:
                savepoint = _LateSavepoint(connection)
                stack.enter_context(connection.execute_wrapper(savepoint))
                stack.push(savepoint.end)
        yield


class _LateSavepoint:
    """An atomic block that the first query begins."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._block: transaction.Atomic | None = None

    def __call__(self, execute: Callable[..., Any], *query: Any, **options: Any) -> Any:
        if self._block is None:
            self._block = transaction.atomic(using=self._connection.alias)
            try:
                self._block.__enter__()
            except BaseException:
                self._block = None  # its end would be that of the caller's own
                raise
        return execute(*query, **options)

    def end(self, *error: Any) -> None:
        if self._block is not None:
            self._block.__exit__(*error)
