"""Hooks as a site may name them in GOMQ["HOOKS"], good and bad."""

from __future__ import annotations

from typing import Any, ClassVar

from django_gomq.bus.hooks import Hook
from django_gomq.bus.message import Message


class Noting(Hook):
    """Keeps what it hears of dead letters, and how often one was made."""

    made: ClassVar[list[Noting]] = []

    def __init__(self) -> None:
        self.letters: list[tuple[str, Any, str]] = []
        Noting.made.append(self)

    def dead_lettered(
        self,
        broker: str,
        consumer: str,
        message: Message[Any],
        attempt: int,
        error: BaseException,
    ) -> None:
        self.letters.append((consumer, message.data, str(error)))


def make_noting() -> Hook:
    return Noting()


def make_nothing() -> None:
    """Return what is no hook."""


def make_trouble() -> Hook:
    raise RuntimeError("no connection")


class Demanding(Hook):
    """Cannot be made without arguments."""

    def __init__(self, address: str) -> None:
        self.address = address


class NoHook:
    """Derives from nothing."""


A_TEXT = "no hook either"
