"""Writes events in a transaction of their own, and says what became of them.

Where one is open they are written into that: what failed in it was not written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_gomq.bus.errors import (
    BackendUnavailableError,
    ConfigurationError,
    PublishError,
    PublishUnknownError,
)

from .outbox import Statement, write, write_alone

MakeStatements = Callable[[], Sequence[Statement]]
"""Returns what writes the events; called once the database is reached."""


class Outbox:
    """The outbox of one broker in a database, for those who emit.

    Uses the connection of Django that the calling thread has; thread-safe.
    """

    def __init__(self, using: str, broker: str) -> None:
        self._using, self._broker = using, broker

    def write(self, make: MakeStatements) -> PublishError | None:
        """Write all or nothing; return why it was not written, or is not known to be.

        Blocks; never raises for the database.
        """
        connection = connections[self._using]
        try:
            if connection.connection is None:
                connection.ensure_connection()
        except Error as error:
            return self._away(error)
        inserts = make()
        try:
            write_alone(connection, inserts)
        except Error as error:
            return self._failed(connection, error)
        return None

    def write_into(self, using: str, make: MakeStatements) -> None:
        """Write into the open transaction of that database.

        Raises ConfigurationError where it is another one, and what the database raises.
        """
        if using != self._using:
            raise ConfigurationError(
                f"Broker {self._broker!r} keeps its events in database "
                f"{self._using!r}, not in {using!r}: emit in a transaction of that.",
                broker=self._broker,
            )
        write(connections[using], make())

    def _failed(self, connection: BaseDatabaseWrapper, error: Error) -> PublishError:
        """Return what is known: of a statement that failed nothing was written."""
        # PyMySQL before 1.2 connects anew when it is asked whether it can be used.
        is_open = getattr(connection.connection, "open", True)
        if connection.in_atomic_block or (is_open and connection.is_usable()):
            return self._away(error)
        return PublishUnknownError(
            f"Database {self._using!r} did not answer: {error}", broker=self._broker
        )

    def _away(self, error: Error) -> PublishError:
        return BackendUnavailableError(
            f"Database {self._using!r}: {error}", broker=self._broker
        )
