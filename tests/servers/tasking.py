"""Speaks with the ward by Celery's tasks."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any, Final

from celery import Celery

from tests.django_site.waiting import SECONDS
from tests.servers.asking import Ask, Asker
from tests.servers.ward import filing
from tests.servers.ward.rounds import Answer

_OUTBOX: Final = "outbox"


class ByTask(Asker):
    """Sends a task and waits for its result."""

    def __init__(self, folder: Path) -> None:
        # Django's fixup would set up the site of whoever asks.
        self._app = Celery("asking", set_as_current=False, fixups=[])
        self._app.config_from_object(filing.settings(folder, outbox=_OUTBOX))
        self._folder = folder
        self._sending = Lock()

    def __call__(self, ask: Ask, *, hold: float = 0.0) -> Answer:
        options = {"kind": ask.kind, "count": ask.count} if ask.kind else {}
        task = self._send(ask.name, {**options, "hold": hold}, ask.limit)
        answer: Answer = task.get(timeout=SECONDS, interval=0.02)
        return answer

    def _send(self, name: str, options: dict[str, Any], limit: float | None) -> Any:
        # A worker reads whatever is in the queue, also a file that is half written.
        with self._sending:
            task = self._app.send_task(name, kwargs=options, soft_time_limit=limit)
            for file in (self._folder / _OUTBOX).iterdir():
                file.rename(self._folder / filing.QUEUE / file.name)
        return task

    def read_metrics(self) -> str:
        return ""
