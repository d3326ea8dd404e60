"""A test that stops the clock, as projects do with freezegun."""

from __future__ import annotations

from typing import Any

import freezegun
import pytest

from django_gomq import Message, Retry, consumer, emit
from django_gomq.testing import live
from tests.django_site.conftest import UseSite
from tests.django_site.waiting import SECONDS


@pytest.mark.parametrize("options", [{}, {"tick": True}], ids=["stopped", "ticking"])
def test_the_bus_of_a_live_test_goes_on(
    use_site: UseSite, options: dict[str, Any]
) -> None:
    attempts: list[int] = []

    @consumer("page.viewed", name="c", retry=Retry(attempts=2, min_delay=0.01))
    def fail_once(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        if message.attempt == 1:
            raise ValueError

    use_site()
    with freezegun.freeze_time("2030-01-01", **options), live() as bus:
        emit("page.viewed", delay=0.01)
        bus.drain(timeout=SECONDS)

    assert attempts == [1, 2]
