"""Consumers of all moods: steady ones, a slow one, one that fails."""

from __future__ import annotations

import os
import random
import time
from typing import Any

from django_gomq import Message, Reject, Retry, consumer, emit
from tests.live.clinic.settings import FOLDER, IS_DURABLE


class GatewayTimeout(Exception):
    """The bank does not answer."""


@consumer("page.viewed", name="cache.warm", concurrency=2)
def warm(message: Message[Any]) -> None:
    time.sleep(random.uniform(0.002, 0.01))


@consumer("health.*", name="audit.trail")
def audit(message: Message[Any]) -> None:
    time.sleep(random.uniform(0.002, 0.006))
    _note("audit.trail")


@consumer("health.record.saved", name="statistics.records")
def count(message: Message[Any]) -> None:
    time.sleep(random.uniform(0.001, 0.004))
    _note("statistics.records")


def _note(name: str) -> None:
    """Note who handled one, and when."""
    with (FOLDER / name).open("a") as book:
        book.write(f"{os.getpid()} {time.time()}\n")


@consumer("lab.result.ready", "health.record.saved", name="notifications.email")
def notify(message: Message[Any]) -> None:
    time.sleep(random.uniform(0.01, 0.05))
    if IS_DURABLE and message.type == "lab.result.ready":
        emit("billing.invoice.paid", {"invoice": message.data["sample"]})


@consumer("lab.requested", name="lab.analysis", capacity=40)
def analyse(message: Message[Any]) -> None:
    time.sleep(random.uniform(0.1, 0.3))
    if IS_DURABLE:
        emit("lab.result.ready", message.data)


@consumer("*", name="search.index", capacity=5_000)
def index(message: Message[Any]) -> None:
    time.sleep(random.uniform(0.001, 0.004))


@consumer(
    "billing.invoice.paid",
    name="billing.ledger",
    retry=Retry(attempts=2, min_delay=0.1, max_delay=0.2),
)
def charge(message: Message[Any]) -> None:
    time.sleep(random.uniform(0.005, 0.02))
    if (FOLDER / "mended").exists():
        with (FOLDER / "charged").open("a") as book:
            book.write(f"{message.data['invoice']}\n")
        return
    if random.random() < 0.1:
        raise Reject("invoice without a currency")
    if random.random() < 0.6:
        seconds = random.choice([3, 5])
        raise GatewayTimeout(f"gateway.example did not answer in {seconds} s")


def redact(data: Any) -> Any:
    """Hide the numbers of cards."""
    return {**data, "card": "****"} if "card" in data else data
