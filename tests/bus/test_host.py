from __future__ import annotations

import asyncio

import pytest

from django_gomq.bus.worker.environment import Environment


def handle(message: object) -> str:
    return "handled"


@pytest.mark.parametrize("using", [True, "other"])
def test_a_bare_program_has_no_transactions(using: bool | str) -> None:
    assert Environment().in_transaction(handle, using) is handle


def test_a_bare_program_does_nothing_around_a_handler() -> None:
    environment = Environment()

    scope = environment.thread_scope()
    scope.before()
    scope.after()
    environment.thread_idle()

    assert (vars(environment), vars(scope)) == ({}, {})


def test_a_bare_program_says_that_there_is_nothing_to_do_around_handlers() -> None:
    assert not Environment().thread_scope().is_needed


def test_a_bare_program_does_nothing_around_an_async_handler() -> None:
    environment = Environment()

    async def surround() -> None:
        await environment.before_async_handler()
        await environment.after_async_handler()
        await environment.loop_ending()

    asyncio.run(surround())

    assert vars(environment) == {}
