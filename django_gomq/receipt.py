"""The receipt: what emit() answers, and what became of it after the commit."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from django_gomq.bus.errors import PublishError
from django_gomq.bus.message import Message

State = Literal["accepted", "pending", "refused"]


class Receipt(msgspec.Struct, eq=False):
    """True unless the message was refused; ``pending`` until the transaction ends."""

    message: Message[Any]
    state: State = "pending"
    reason: str | None = None
    """Why it was refused: a PublishError's code, ``rolled_back``, ``not_installed``."""
    error: PublishError | None = None

    def accept(self) -> None:
        """Note that the message was taken."""
        self.state = "accepted"

    def refuse(self, reason: str, error: PublishError | None = None) -> None:
        """Note that nobody will see the message, and why."""
        self.state, self.reason, self.error = "refused", reason, error

    def __bool__(self) -> bool:
        """Whether the message was not refused."""
        return self.state != "refused"

    def __repr__(self) -> str:
        """Name the message and its state, never its data."""
        why = f", reason={self.reason!r}" if self.reason else ""
        return f"<Receipt {self.message.type} {self.message.id} {self.state}{why}>"
