"""One comparison of two numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """Two numbers from two sources, and what each of them counts."""

    subject: str
    left: str
    left_value: float
    right: str
    right_value: float

    @property
    def holds(self) -> bool:
        """Whether the sources agree; these are counts, so exactly."""
        return self.left_value == self.right_value

    def __str__(self) -> str:
        sign = "=" if self.holds else "≠"
        return (
            f"{self.subject}: {self.left} {self.left_value:.0f} "
            f"{sign} {self.right_value:.0f} {self.right}"
        )
