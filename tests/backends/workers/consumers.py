"""Consumers that write down what they do, and end their process where they are told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from django.db import connection, transaction

from django_gomq import Message, consumer

FOLDER = Path(os.environ.get("WORKERS_FOLDER", "."))


def _note(kind: str, message: Message[Any]) -> None:
    line = f"{kind} {message.data['number']} {message.attempt} {os.getpid()}\n"
    with (FOLDER / "notes").open("ab", buffering=0) as notes:
        notes.write(line.encode())  # in one piece, and then the system's


@consumer("work.done", name="workers.plain", capacity=1000)
def handle(message: Message[Any]) -> None:
    _note("begun", message)
    if message.data.get("kills"):
        os._exit(1)
    gate = message.data.get("gate")
    while gate is not None and not (FOLDER / gate).exists():
        time.sleep(0.01)
    _note("done", message)


@consumer("work.once", name="workers.once", idempotent=True)
def handle_once(message: Message[Any]) -> None:
    """Die after the commit and before the ack, if nobody has died so far."""
    _note("begun", message)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO effect (number) VALUES (%s)", [message.data["number"]]
        )
    transaction.on_commit(_die_once)


def _die_once() -> None:
    mark = FOLDER / "died"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
