from __future__ import annotations

import asyncio

import pytest

from django_gomq.bus.worker.environment import Host


def handle(message: object) -> str:
    return "handled"


@pytest.mark.parametrize("using", [True, "other"])
def test_a_bare_program_has_no_transactions(using: bool | str) -> None:
    assert Host().in_transaction(handle, using) is handle


def test_a_bare_program_does_nothing_around_a_handler() -> None:
    host = Host()

    care = host.care()
    care.before()
    care.after()
    host.thread_idle()

    assert (vars(host), vars(care)) == ({}, {})


def test_a_bare_program_says_that_there_is_nothing_to_do_around_handlers() -> None:
    assert not Host().care().is_due


def test_a_bare_program_does_nothing_around_an_async_handler() -> None:
    host = Host()

    async def surround() -> None:
        await host.before_async_handler()
        await host.after_async_handler()
        await host.loop_ending()

    asyncio.run(surround())

    assert vars(host) == {}
