"""The ward as a Django app, which emits whenever it was migrated."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class WardConfig(AppConfig):
    name = "tests.servers.ward"

    def ready(self) -> None:
        post_migrate.connect(_go_round)


def _go_round(**signal: object) -> None:
    from tests.servers.ward import rounds

    rounds.emit_rounds("slow", 20)
