"""Handlers, most of them slow; each notes who handled what, and who emitted it."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from django_gomq import Message, consumer
from tests.servers.ward import journal

SLOW = "ward.round.slow"
STUCK = "ward.round.stuck"
FAST = "ward.round.fast"
# Processes hear of their end after seconds; a backlog has to be left then.
SLOW_SECONDS = float(os.environ.get("WARD_SLOW_SECONDS", "0.25"))


@consumer(SLOW, name="ward.slow", concurrency=1)
def go_slowly(message: Message[Any]) -> None:
    time.sleep(SLOW_SECONDS)
    emitter, number = message.data
    journal.note("slow", number, emitter)


@consumer(STUCK, name="ward.stuck", concurrency=1)
def go_and_never_return(message: Message[Any]) -> None:
    emitter, number = message.data
    journal.note("stuck", number, emitter)
    threading.Event().wait()


# Nearly as fast as one thread emits, as it writes one time for many.
@consumer(FAST, name="ward.fast", batch=5000, capacity=20_000, overflow="backpressure")
def keep_up(messages: list[Message[Any]]) -> None:
    emitter, _ = messages[0].data
    journal.note_all("fast", [one.data[1] for one in messages], emitter)
