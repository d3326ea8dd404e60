from __future__ import annotations

from types import SimpleNamespace

import pytest

from django_gomq.bus.process import timers as module
from django_gomq.bus.process.timers import Deadline


def set_clock(patch: pytest.MonkeyPatch, now: float) -> None:
    """Stop the clock for this module, not for threads of others."""
    patch.setattr(module, "Clock", SimpleNamespace(monotonic=lambda: now))


def test_no_deadline_never_comes() -> None:
    assert Deadline.after(None).left() is None


@pytest.mark.parametrize(
    ("now", "left"), [(100.0, 5.0), (103.0, 2.0), (105.0, 0.0), (200.0, 0.0)]
)
def test_a_deadline_says_what_is_left(
    monkeypatch: pytest.MonkeyPatch, now: float, left: float
) -> None:
    set_clock(monkeypatch, 100.0)
    deadline = Deadline.after(5)

    set_clock(monkeypatch, now)

    assert deadline.left() == left
