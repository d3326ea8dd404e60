"""The analyser does what its switch says, and a retry never writes twice."""

from __future__ import annotations

import time

import pytest
from pytest_django import Settings

from clinic.laboratory.consumers import AnalyserJammedError, analyse
from clinic.laboratory.models import Analysis, Switch
from tests.messages import saved

pytestmark = pytest.mark.django_db


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(time, "sleep", taken.append)
    return taken


def test_a_normal_analyser_analyses_at_once(naps: list[float]) -> None:
    analyse(saved(3, attempt=2))

    analysis = Analysis.objects.get()
    assert (analysis.record_id, analysis.attempt) == (3, 2)
    assert naps == []


def test_a_slow_analyser_takes_its_time(naps: list[float], settings: Settings) -> None:
    settings.LABORATORY_SLOW_SECONDS = 12.5
    Switch.turn("slow")

    analyse(saved())

    assert naps == [12.5]
    assert Analysis.objects.count() == 1


def test_a_flaky_analyser_fails_before_it_writes(settings: Settings) -> None:
    settings.LABORATORY_FAILURE_RATE = 1.0
    Switch.turn("flaky")

    with pytest.raises(AnalyserJammedError):
        analyse(saved())

    assert not Analysis.objects.exists()


def test_a_flaky_analyser_may_succeed(settings: Settings) -> None:
    settings.LABORATORY_FAILURE_RATE = 0.0
    Switch.turn("flaky")

    analyse(saved())

    assert Analysis.objects.count() == 1


def test_a_message_that_comes_again_is_analysed_once() -> None:
    message = saved()

    analyse(message)
    analyse(message)

    assert Analysis.objects.count() == 1


def test_the_switch_can_be_turned_back() -> None:
    Switch.turn("slow")
    Switch.turn("normal")

    assert Switch.current() == "normal"
    assert Switch.objects.count() == 1
