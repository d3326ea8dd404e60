"""A consumer for each end that an event can come to."""

from __future__ import annotations

from threading import Event
from typing import Any

from django_gomq import Message, Retry, consumer

GO_ON = Event()


@consumer("page.viewed", name="cache.warm")
def warm(message: Message[Any]) -> None:
    pass


@consumer("page.viewed", name="audit.trail", retry=Retry(attempts=2, min_delay=0.05))
def audit(message: Message[Any]) -> None:
    raise ValueError("no place left")


@consumer("record.*", name="records.count")
def count(message: Message[Any]) -> None:
    pass


@consumer("report.asked", name="report.make")
def make(message: Message[Any]) -> None:
    GO_ON.wait(60)


@consumer("stored.row", name="stored.rows")
def store(message: Message[Any]) -> None:
    pass
