"""Event type patterns: what matches, and which is more specific; pure text."""

from __future__ import annotations

import msgspec

from .errors import ConfigurationError
from .message import validate_type


class Pattern(msgspec.Struct, frozen=True):
    """An event type, or its beginning with a trailing ``*`` for one or more segments.

    ``health.*`` matches ``health.record.saved`` and not ``health``; ``*`` matches
    all. Raises ConfigurationError for any other use of ``*``.
    """

    text: str

    def __post_init__(self) -> None:
        if self.text == "*":
            return
        try:
            validate_type(self.text.removesuffix(".*"))
        except (ConfigurationError, AttributeError, TypeError):
            raise ConfigurationError(
                f"{self.text!r:.220} is no event type and no pattern: write lower-case "
                "segments with dots between them, such as 'health.record.saved', or a "
                "pattern, '*' or one that ends in '.*', such as 'health.*'."
            ) from None

    @property
    def is_exact(self) -> bool:
        """Whether it names one event type."""
        return not self.text.endswith("*")

    @property
    def prefix(self) -> str:
        """What every matching type starts with."""
        return self.text.removesuffix("*")

    @property
    def specificity(self) -> tuple[bool, int]:
        """Sorts patterns that match the same type; the most specific is greatest."""
        return self.is_exact, len(self.prefix)

    def matches(self, event_type: str) -> bool:
        """Whether this event type matches."""
        if self.is_exact:
            return event_type == self.text
        return event_type.startswith(self.prefix)

    def overlaps(self, other: Pattern) -> bool:
        """Whether some event type matches both."""
        if self.is_exact:
            return other.matches(self.text)
        if other.is_exact:
            return self.matches(other.text)
        return self.prefix.startswith(other.prefix) or other.prefix.startswith(
            self.prefix
        )

    def covers(self, other: Pattern) -> bool:
        """Whether every type that matches the other matches this one."""
        if self.is_exact:
            return self.text == other.text
        return other.prefix.startswith(self.prefix)
