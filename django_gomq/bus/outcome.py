"""How a delivery ends: the four outcomes, and what a handler raises to choose one."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from .errors import ConfigurationError


class Reject(Exception):  # noqa: N818 - reads as a statement: raise Reject("why")
    """Raised by a handler: this message is a dead letter, without more attempts."""


class RetryLater(Exception):  # noqa: N818 - reads as a statement
    """Raised by a handler: try this message again later; not counted as an error.

    Raises ConfigurationError if ``seconds`` is negative or not finite.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds} s")
        if not 0 <= seconds < float("inf"):
            raise ConfigurationError(f"RetryLater({seconds!r}): not seconds from now.")
        self.seconds = seconds


class BatchFailed(Exception):  # noqa: N818 - reads as a statement
    """Raised by a batch handler: only these messages failed, the rest is done.

    ``errors`` maps message ids to the exception of each.
    """

    def __init__(self, errors: Mapping[str, BaseException]) -> None:
        super().__init__(f"{len(errors)} messages of the batch failed")
        self.errors = dict(errors)


class HandlerTimeoutError(Exception):
    """An async handler ran longer than its consumer's ``timeout`` and was cancelled."""


class Verdict(StrEnum):
    """What one attempt came to; the ``outcome`` label of the metrics."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    REJECTED = "rejected"


class DropReason(StrEnum):
    """Why a consumer will never see a message that was taken; a closed list."""

    CHANNEL_FULL = "channel_full"
    EVICTED = "evicted"
    EXPIRED = "expired"
    SHUTDOWN = "shutdown"


class Ack(msgspec.Struct, frozen=True):
    """The handler returned."""


class RetryAfter(msgspec.Struct, frozen=True):
    """The message comes back after ``delay`` seconds.

    ``error`` is None if the handler asked for it by RetryLater.
    """

    delay: float
    error: BaseException | None
    verdict: Verdict = Verdict.ERROR


class DeadLettered(msgspec.Struct, frozen=True):
    """The consumer gave the message up."""

    error: BaseException
    verdict: Verdict = Verdict.ERROR


class Dropped(msgspec.Struct, frozen=True):
    """The message was not handled and will not be."""

    reason: DropReason


Outcome = Ack | RetryAfter | DeadLettered | Dropped

ACK: Final = Ack()
EXPIRED: Final = Dropped(DropReason.EXPIRED)
CUT_OFF: Final = Dropped(DropReason.SHUTDOWN)
