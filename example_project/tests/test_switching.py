"""The switch is turned to slow, to flaky, and back before a run ends."""

from __future__ import annotations

import pytest

from clinic.simulation.switching import mode_at


@pytest.mark.parametrize(
    ("elapsed", "mode"),
    [(0, "normal"), (4, "slow"), (9.9, "slow"), (10, "flaky"), (16, "normal")],
)
def test_a_run_has_its_phases(elapsed: float, mode: str) -> None:
    assert mode_at(elapsed, seconds=20) == mode


def test_a_run_that_is_late_ends_normal() -> None:
    assert mode_at(25, seconds=20) == "normal"


def test_a_run_without_end_goes_round() -> None:
    assert [mode_at(t, seconds=0) for t in (0, 15, 75, 40, 100)] == [
        *("normal", "slow", "slow", "flaky", "flaky")
    ]
