"""Runs handlers in transactions of the site's databases."""

from __future__ import annotations

import functools
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.transaction import TransactionManagementError

from django_gomq.bus.consumer import Consumer
from django_gomq.bus.declarations.handler import Handler
from django_gomq.bus.errors import ConfigurationError


def check_atomic(consumer: Consumer, where: str = "") -> None:
    """Raise ConfigurationError if its ``atomic`` names no database of the settings.

    ``where`` begins the text.
    """
    using = consumer.atomic
    if isinstance(using, str) and using not in settings.DATABASES:
        known = ", ".join(map(repr, settings.DATABASES))
        raise ConfigurationError(
            f"{where}Consumer {consumer.name!r}: atomic={using!r} names no database; "
            f"there are {known}.",
            consumer=consumer.name,
        )


def in_transaction(handler: Handler, using: bool | str) -> Handler:
    """Return the handler, wrapped to run in ``atomic()``; True: of the default one.

    The wrapped one raises TransactionManagementError where the transaction is rolled
    back though the handler raised nothing: else its message would count as handled.
    """
    alias = using if isinstance(using, str) else DEFAULT_DB_ALIAS

    @functools.wraps(handler)
    def handle(message: Any) -> Any:
        with transaction.atomic(using=alias):
            result = handler(message)
            _refuse_rollback(alias)
            return result

    return handle


def _refuse_rollback(alias: str) -> None:
    """Raise where Django will roll back at the end of the block, without a word."""
    connection = connections[alias]
    if connection.needs_rollback or connection.closed_in_transaction:
        raise TransactionManagementError(
            f"The handler's transaction in database {alias!r} is rolled back: an error "
            "of the database was caught in it, the connection was closed or "
            "set_rollback() called. Put what may fail into an atomic() of its own."
        )
