"""The rows that handlers and people wrote, read from SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

_COUNTS = "SELECT COALESCE(SUM(value), 0) FROM statistics_count WHERE consumer = ?"

_REPLAYED = """
    SELECT substr(object_repr, instr(object_repr, ' for ') + 5), COUNT(*)
    FROM django_admin_log JOIN django_content_type
    ON django_content_type.id = content_type_id
    WHERE model = 'storeddeadletter' AND change_message = 'Replayed.' GROUP BY 1
"""

_WRITTEN = {
    "audit.trail": "SELECT COUNT(*) FROM audit_auditentry",
    "laboratory.analysis": "SELECT COUNT(*) FROM laboratory_analysis",
    "notifications.patient": "SELECT COUNT(*) FROM notifications_notification",
}
_COUNTED = ("statistics.pages", "statistics.patients", "statistics.records")


def written(database: Path) -> dict[str, int]:
    """Count the rows of each consumer."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = {name: _one(connection, query) for name, query in _WRITTEN.items()}
        counts = {name: _one(connection, _COUNTS, name) for name in _COUNTED}
    return rows | counts


def saved_records(database: Path) -> int:
    """Count the health records that requests saved."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return _one(connection, "SELECT COUNT(*) FROM records_healthrecord")


def replayed(database: Path) -> dict[str, int]:
    """Count the dead letters of each consumer that people replayed in the browser."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return dict(connection.execute(_REPLAYED))


def _one(connection: sqlite3.Connection, query: str, *values: str) -> int:
    (number,) = connection.execute(query, values).fetchone()
    return int(number)
