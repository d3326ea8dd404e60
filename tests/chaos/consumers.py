"""Every kind of consumer; each writes down what it starts and what it has ended."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from django_gomq import Message, Retry, consumer

from . import journal
from .history import fails, is_slow

EVENT = "chaos.happened"
_SOON = Retry(attempts=4, min_delay=0.05, max_delay=0.2)
_WORK_SECONDS = 0.004
_SLOW_SECONDS = 1.5


def _work(name: str = "", uid: str = "") -> None:
    slow = _SLOW_SECONDS if is_slow(name, uid) else 0.0
    time.sleep(slow + random.uniform(0, 2 * _WORK_SECONDS))


def _handle(name: str, message: Message[Any], attempt: int) -> None:
    uid = message.data["uid"]
    journal.write("start", name, uid)
    _work(name, uid)
    if fails(name, uid, attempt):
        journal.write("fail", name, uid)
        raise ValueError(uid)
    journal.write("end", name, uid)


@consumer(EVENT, name="chaos.plain", concurrency=2, retry=_SOON)
def plain(message: Message[Any]) -> None:
    _handle("plain", message, 1)


@consumer(EVENT, name="chaos.ordered", ordered_by_key=True, concurrency=2, retry=_SOON)
def ordered(message: Message[Any]) -> None:
    _handle("ordered", message, message.attempt)


@consumer(EVENT, name="chaos.flaky", retry=_SOON)
def flaky(message: Message[Any]) -> None:
    _handle("flaky", message, message.attempt)


@consumer(EVENT, name="chaos.batch", batch=20, linger=0.02, retry=_SOON)
def batch(messages: list[Message[Any]]) -> None:
    uids = [message.data["uid"] for message in messages]
    journal.write("start", "batch", *uids)
    _work()
    journal.write("end", "batch", *uids)


@consumer(EVENT, name="chaos.asynchronous", concurrency=4, retry=_SOON)
async def asynchronous(message: Message[Any]) -> None:
    uid = message.data["uid"]
    journal.write("start", "asynchronous", uid)
    await asyncio.sleep(random.uniform(0, 2 * _WORK_SECONDS))
    journal.write("end", "asynchronous", uid)
