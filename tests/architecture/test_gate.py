"""The gate on speed: what it lets pass, and what it does not."""

from __future__ import annotations

import pytest

from benchmarks.gate import GATES, YARDSTICK, judge

# What a build took, in yardsticks: the fastest and the slowest that was seen of each.
FASTEST = (0.63, 1.70, 1.32, 1.35, 3.11)
SLOWEST = (0.82, 2.12, 1.60, 1.54, 3.80)


def took(ratios: tuple[float, ...], factor: float = 1.0) -> dict[str, float]:
    """Return nanoseconds as the gate measures them."""
    cases = {
        gate.case: ratio * factor * 700
        for gate, ratio in zip(GATES, ratios, strict=True)
    }
    return {YARDSTICK: 700.0, **cases}


@pytest.mark.parametrize("ratios", [FASTEST, SLOWEST])
def test_what_is_half_as_slow_again_does_not_pass(ratios: tuple[float, ...]) -> None:
    assert judge(took(ratios, 1.5), GATES) == [gate.case for gate in GATES]


@pytest.mark.parametrize("ratios", [FASTEST, SLOWEST])
def test_what_is_a_tenth_slower_passes(ratios: tuple[float, ...]) -> None:
    assert judge(took(ratios, 1.1), GATES) == []


def test_a_slow_machine_is_slow_with_its_yardstick() -> None:
    doubled = {name: 2 * spent for name, spent in took(SLOWEST).items()}

    assert judge(doubled, GATES) == []
