"""What a signal handler raises while an event is emitted comes out of emit."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from django_gomq import Event, emit
from tests.bus.interrupting import comes_out_at, undisturbed
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import listen, wait_quiet

pytestmark = pytest.mark.django_db(transaction=True)

STEPS = 400
"""More than any emit takes."""


class VisitBegan(Event, type="visit.began"):
    path: str
    referrer: str | None = None


EMITS: dict[str, Callable[[], object]] = {
    "data": lambda: emit("page.read", {"path": "/"}),
    "data with nothing": lambda: emit("page.read", {"path": None}),
    "typed": lambda: emit(VisitBegan(path="/")),
    "unconsumed": lambda: emit("page.left", 1),
}


def swallowed_steps(call: Callable[[], object]) -> list[int]:
    """Return the steps of a call after which it went on in spite of what was raised."""
    call()  # what is made once is made
    steps = [comes_out_at(step, call) for step in range(STEPS)]
    assert True in steps
    assert None in steps
    return [step for step, comes_out in enumerate(steps) if comes_out is False]


@pytest.mark.parametrize("kind", EMITS)
def test_it_does_so_at_every_step(live_site: UseSite, kind: str) -> None:
    listen("visit.began", "page.read", capacity=100_000)
    live_site(BROKERS={"default": {"OPTIONS": {"capacity": 100_000}}})

    with undisturbed():
        swallowed = swallowed_steps(EMITS[kind])

    assert swallowed == []


@pytest.mark.parametrize(
    "error", [TimeoutError("a time limit"), RuntimeError("no room")]
)
def test_only_a_thread_that_cannot_be_had_is_no_reason_to_stop_the_first_one(
    live_site: UseSite, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    seen = listen("page.read")
    live_site()
    start = threading.Thread.start

    def raise_once(thread: threading.Thread) -> None:
        if thread.name == "gomq-reporter":
            monkeypatch.setattr(threading.Thread, "start", start)
            raise error
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", raise_once)

    if isinstance(error, RuntimeError):
        assert emit("page.read", 1)
    else:
        with pytest.raises(TimeoutError, match="a time limit"):
            emit("page.read", 1)

    assert emit("page.read", 2)
    wait_quiet()
    assert 2 in [message.data for message in seen.messages]
