"""What is told of a message that was handled, and which ones somebody looks at."""

from __future__ import annotations

from typing import Final

import msgspec

from django_gomq.bus.patterns import Pattern

PER_SECOND: Final = 5
"""Messages that one process samples."""
FAILURES: Final = 3
"""Of these; more only where nothing else is handled."""
RING: Final = 100
"""Sampled messages of one process that are kept."""
MAX_FILTERS: Final = 20
"""So many people may look for different things; more look at a sample of all."""
MAX_PAYLOAD: Final = 1_000
"""Characters of the data of a message."""
ALL: Final = "*"


class MessageFilter(msgspec.Struct, frozen=True, order=True):
    """Which messages somebody looks at.

    Its event is a pattern; raises ConfigurationError for what is none.
    """

    event: str = ALL
    consumer: str = ""
    """The name of one; empty: all of them."""
    payload: bool = False
    """Whether they look at the data, too."""

    def __post_init__(self) -> None:
        Pattern(self.event)

    def matches(self, event: str, consumer: str) -> bool:
        """Whether this consumer's messages of that type are among them."""
        return self.consumer in ("", consumer) and Pattern(self.event).matches(event)


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt to handle a message: its envelope and outcome, and no data."""

    ended: float
    """When it ended, in seconds since 1970 by the clock of its process."""
    broker: str
    event: str
    consumer: str
    outcome: str
    """One of ``OUTCOMES``."""
    reason: str = ""
    """The class of the error, or why it was dropped."""
    wait: float
    """Seconds from when it could be handled to when it was."""
    duration: float
    """Seconds in the handler; of a batch, those of all of it."""
    attempt: int = 1
    message: str
    """Its id."""
    trace: str = ""
    """The id of the trace that it carries."""
    host: str
    pid: int


OUTCOMES: Final = ("ack", "retry", "dead_letter", "drop")


class ShownMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A sample as those who look have it."""

    sample: Sample
    payload: str | None
    """None where it was not asked for, or nobody has looked at data when it came."""
    slot: int
    place: int
    """Where it stands in the ring of its process."""
    written: float
    """When it was written there, by the clock of the database."""
