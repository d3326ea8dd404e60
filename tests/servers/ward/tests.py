"""The ward's own tests, for ``manage.py test``."""

from __future__ import annotations

import threading

from django.test import SimpleTestCase

from tests.servers.ward import rounds


class Rounds(SimpleTestCase):
    def test_an_emit_starts_no_thread(self) -> None:
        rounds.emit_rounds("slow", 20)
        assert threading.active_count() == 1
