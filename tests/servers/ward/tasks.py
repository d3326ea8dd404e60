"""The ward for Celery, whose broker and results are files."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

from tests.servers.ward import filing, rounds

app = Celery("ward")
app.config_from_object(filing.settings(Path(os.environ["WARD_FOLDER"])))
tell = app.task(rounds.tell, name="tell")
emit = app.task(rounds.emit_rounds, name="emit")
emit_for_ever = app.task(rounds.emit_for_ever, name="emit_for_ever")
look = app.task(rounds.look, name="look")
