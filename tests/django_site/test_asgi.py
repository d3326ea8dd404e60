from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application

from django_gomq import aemit, brokers, emit
from django_gomq.asgi import Lifespan
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import hold, listen
from tests.django_site.waiting import SECONDS

STARTUP = {"type": "lifespan.startup"}
SHUTDOWN = {"type": "lifespan.shutdown"}


def talk(application: Any, *events: dict[str, str], then: Any = None) -> list[str]:
    """Run one lifespan and return the types of the answers.

    ``then`` is an event that the application is not expected to answer.
    """

    async def run() -> list[str]:
        server = ApplicationCommunicator(Lifespan(application), {"type": "lifespan"})
        answers = []
        for event in events:
            await server.send_input(event)
            answers.append((await server.receive_output(timeout=SECONDS))["type"])
        if then is not None:
            await server.send_input(then)
        await server.wait(timeout=SECONDS)
        return answers

    return asyncio.run(run())


def test_a_lifespan_around_django_drains_at_its_end(live_site: UseSite) -> None:
    held = hold("page.viewed")
    live_site(DRAIN_TIMEOUT=SECONDS)
    receipts = [emit("page.viewed", number) for number in range(3)]
    threading.Timer(0.05, held.release.set).start()

    answers = talk(get_asgi_application(), STARTUP, SHUTDOWN)

    assert answers == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert all(receipts)
    assert held.data == [0, 1, 2]
    assert emit("page.viewed").reason == "closed"


def test_the_event_loop_goes_on_while_the_lifespan_drains(live_site: UseSite) -> None:
    held = hold("page.viewed")
    live_site(DRAIN_TIMEOUT=SECONDS)

    async def run() -> None:
        server = ApplicationCommunicator(
            Lifespan(get_asgi_application()), {"type": "lifespan"}
        )
        await server.send_input(STARTUP)
        await server.receive_output(timeout=SECONDS)
        await aemit("page.viewed")
        await server.send_input(SHUTDOWN)
        # What lets the drain end runs on the loop that waits for it.
        asyncio.get_running_loop().call_later(0.05, held.release.set)
        await server.receive_output(timeout=SECONDS)

    asyncio.run(run())

    assert len(held.data) == 1


class Own:
    """An application with a lifespan of its own."""

    def __init__(self, *, fails: str = "") -> None:
        self.fails = fails
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for name in ("startup", "shutdown"):
            await receive()
            self.seen.append(f"{name}, running {_is_running()}")
            if self.fails == name:
                await send({"type": f"lifespan.{name}.failed", "message": "no"})
                return
            if self.fails == f"raises in {name}":
                raise RuntimeError(self.fails)
            await send({"type": f"lifespan.{name}.complete"})


def _is_running() -> bool:
    return brokers["default"].is_started


def test_the_lifespan_of_the_application_itself_goes_on_and_ends_before_the_drain(
    live_site: UseSite,
) -> None:
    listen("page.viewed")
    live_site()
    emit("page.viewed")
    own = Own()

    answers = talk(own, STARTUP, SHUTDOWN)

    assert answers == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert own.seen == ["startup, running True", "shutdown, running True"]
    assert not _is_running()


@pytest.mark.parametrize("name", ["startup", "shutdown"])
def test_a_failure_that_the_application_tells_is_passed_on(
    live_site: UseSite, name: str
) -> None:
    live_site()
    events = [STARTUP] if name == "startup" else [STARTUP, SHUTDOWN]

    assert talk(Own(fails=name), *events)[-1] == f"lifespan.{name}.failed"


def test_an_application_that_raises_at_its_end_is_drained_and_heard(
    live_site: UseSite,
) -> None:
    listen("page.viewed")
    live_site()
    emit("page.viewed")

    with pytest.raises(RuntimeError, match="raises in shutdown"):
        talk(Own(fails="raises in shutdown"), STARTUP, then=SHUTDOWN)

    assert not _is_running()


def test_an_application_that_leaves_its_lifespan_midway_is_heard_and_not_drained(
    live_site: UseSite,
) -> None:
    listen("page.viewed")
    live_site()
    emit("page.viewed")

    async def leave(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        talk(leave, STARTUP)

    assert _is_running()


@pytest.mark.parametrize("reads", [True, False])
def test_an_application_that_ignores_the_lifespan_is_answered_for(
    live_site: UseSite, reads: bool
) -> None:
    live_site()

    async def ignore(scope: Any, receive: Any, send: Any) -> None:
        if reads:
            await receive()

    answers = talk(ignore, STARTUP, SHUTDOWN)

    assert answers == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_other_connections_go_straight_to_the_application() -> None:
    seen: list[Any] = []

    async def application(*given: Any) -> None:
        seen.append(given)

    given: Any = ({"type": "http"}, object(), object())
    asyncio.run(Lifespan(application)(*given))

    assert seen == [given]
