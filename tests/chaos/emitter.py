"""``python -m tests.chaos.emitter``: emit in transactions until told to stop."""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from contextlib import closing
from typing import Any
from uuid import uuid4

import django
import redis
from django.db import OperationalError, connection, transaction

KEYS = 5
MAX_WAITING = 5000
"""Deliveries: a busy machine must not be left with more than it handles in the end."""


MAX_UNREAD = 500
"""The same at Redis, of one consumer."""
LOOK_SECONDS = 0.5


class _Undone(Exception):
    """Rolls a transaction back."""


def _emit(prefix: str, numbers: itertools.count[int]) -> None:
    """Commit, or roll back, one transaction of rows and their events."""
    from django_gomq import emit, emit_many
    from tests.chaos import journal
    from tests.chaos.models import Record

    key = f"{prefix}-{random.randrange(KEYS)}"
    count = random.choice((1, 1, 1, 2, 8))
    uids = [f"{key}-{next(numbers):09d}" for _ in range(count)]
    try:
        with transaction.atomic():
            for uid in uids:
                Record(id=uid).save(force_insert=True)
            if count > 2:
                events = [("chaos.happened", {"uid": uid}) for uid in uids]
                receipts = list(emit_many(events, key=key))
            else:
                receipts = [
                    emit("chaos.happened", {"uid": uid}, key=key) for uid in uids
                ]
            if random.random() < 0.15:
                raise _Undone
    except _Undone:
        return
    for uid, receipt in zip(uids, receipts, strict=True):
        state = receipt.state
        journal.write("accepted" if state == "pending" else state, "", uid)


def _has_room() -> bool:
    if url := os.environ["GOMQ_CHAOS_REDIS"]:
        return _has_room_at(url)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM "
            f"(SELECT 1 FROM gomq_delivery LIMIT {MAX_WAITING}) AS waiting"
        )
        (waiting,) = cursor.fetchone()
    return bool(waiting < MAX_WAITING)


def _has_room_at(url: str) -> bool:
    stream = "{gomq}:e:chaos.happened"
    client: Any = redis.Redis.from_url(url)
    with closing(client):
        try:
            # Its "lag" is unknown for a while after a crash.
            unread = [
                client.xrange(
                    stream, min=b"(" + each["last-delivered-id"], count=MAX_UNREAD
                )
                for each in client.xinfo_groups(stream)
            ]
        except redis.ConnectionError:
            return True  # so that some are emitted while it is away
    return max(map(len, unread)) < MAX_UNREAD


def _main() -> int:
    django.setup()
    prefix, numbers, locked = uuid4().hex[:12], itertools.count(), 0
    parent, has_room, look_at = os.getppid(), True, 0.0
    while os.getppid() == parent:
        try:
            if time.monotonic() > look_at:
                has_room = _has_room()
                look_at = time.monotonic() + LOOK_SECONDS
            if has_room:
                _emit(prefix, numbers)
        except OperationalError as error:
            locked += 1
            sys.stderr.write(f"emit: {error}\n")
        time.sleep(random.uniform(0, 2 * float(os.environ["GOMQ_CHAOS_PAUSE"])))
    return locked


if __name__ == "__main__":
    sys.exit(_main())
