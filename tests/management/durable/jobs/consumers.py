"""Consumers that write down what they do, for who started their process."""

from __future__ import annotations

import os
from typing import Any

from django_gomq import Message, Reject, consumer
from tests.django_site.waiting import wait_until
from tests.management.durable.settings import FOLDER

IMPOSSIBLE = 8
"""The last digit of what nobody can do."""


def _note(line: str) -> None:
    with (FOLDER / "notes").open("a") as notes:  # lines are written whole
        notes.write(f"{line} {os.getpid()}\n")


@consumer("job.asked", name="jobs.done")
def do(message: Message[Any]) -> None:
    if isinstance(message.data, int) and message.data % 10 == IMPOSSIBLE:
        raise Reject(f"{message.data} cannot be done")
    _note(f"done {message.data}")


@consumer("job.asked", name="jobs.seen")
def see(message: Message[Any]) -> None:
    _note(f"seen {message.data}")


@consumer("job.held", name="jobs.held")
def hold(message: Message[Any]) -> None:
    """End once there is a file of this name."""
    _note(f"begun {message.data}")
    wait_until((FOLDER / str(message.data)).exists)
    _note(f"ended {message.data}")


@consumer("local.job", name="jobs.local")
def stay(message: Message[Any]) -> None:
    _note(f"local {message.data}")
