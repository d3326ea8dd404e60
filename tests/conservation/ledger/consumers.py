"""Consumers that are steady, slow, flaky or spill; each writes down what it does."""

from __future__ import annotations

import time
from typing import Any

from django_gomq import BatchFailed, Message, Retry, consumer
from tests.conservation.ledger.fates import fails
from tests.conservation.ledger.models import Row

SLOW_SECONDS = 0.02
SPILLING_SECONDS = 0.005


class Flaky(Exception):
    """Raised by the flaky handler."""


@consumer("ledger.entry", name="steady", batch=500, capacity=100_000)
def write_all(messages: list[Message[Any]]) -> None:
    Row.objects.bulk_create(_row("steady", "wrote", one) for one in messages)


@consumer("ledger.entry", name="slow", capacity=10)
def write_slowly(message: Message[Any]) -> None:
    time.sleep(SLOW_SECONDS)  # what it is there for: some of its messages are dropped
    _row("slow", "wrote", message).save()


@consumer("ledger.entry", name="spilling", capacity=20, overflow="spill", enabled=False)
def write_some_day(message: Message[Any]) -> None:
    time.sleep(SPILLING_SECONDS)
    _row("spilling", "wrote", message).save()


@consumer(
    "ledger.entry",
    name="flaky",
    batch=100,
    capacity=100_000,
    retry=Retry(attempts=3, min_delay=0.05, max_delay=0.1),
)
def write_sometimes(messages: list[Message[Any]]) -> None:
    failures = {one.id: Flaky() for one in messages if fails(one.data, one.attempt)}
    Row.objects.bulk_create(
        _row("flaky", "failed" if one.id in failures else "wrote", one)
        for one in messages
    )
    if failures:
        raise BatchFailed(failures)


def _row(name: str, what: str, message: Message[Any]) -> Row:
    return Row(consumer=name, what=what, number=message.data)
