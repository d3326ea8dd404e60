"""The router that keeps the tables of the bus in the databases of its brokers."""

from __future__ import annotations

from typing import Any

from django.db.models import Model

from .site import brokers

_LABEL = "gomq"


class GomqRouter:
    """Has our models read, written and migrated where ``OPTIONS["using"]`` says.

    And where ``OPTIONS["outbox"]`` and ``DEAD_LETTERS["USING"]`` do. For
    ``DATABASE_ROUTERS``; it has no word in other models, and none where none is set.
    """

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        """Return the database of the only, or first, broker that has one."""
        databases = _databases() if model._meta.app_label == _LABEL else ()
        return next(iter(databases), None)

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        """Allow our tables in the databases of brokers, and in no other."""
        databases = _databases() if app_label == _LABEL else ()
        return db in databases if databases else None


def _databases() -> list[str]:
    site = brokers.site
    if site is None:
        return []
    letters = site.config.dead_letters.get("USING")
    own = dict.fromkeys([*site.databases, *site.outboxes.values()])
    return [*own, *([letters] if letters is not None else [])]
