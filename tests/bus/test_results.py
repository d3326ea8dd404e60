"""What a handler returns: nothing of it may be left to run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from functools import partial
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.message import Message
from tests.bus.waiting import wait_until, wait_until_settled


async def work(message: Any = None) -> None: ...


async def work_on(message: Any) -> None:
    await asyncio.sleep(0)


def generate(message: Any = None) -> Iterator[None]:
    yield


async def agenerate(message: Any = None) -> AsyncIterator[None]:
    yield


class Later:
    def __await__(self) -> Generator[Any, None, None]:
        yield


class AsyncCallable:
    """Its call is a coroutine, and nothing says so of the object."""

    async def work(self, message: Any) -> None: ...

    def __call__(self, message: Any) -> Awaitable[None]:
        return self.work(message)


def make_future(message: Any) -> Awaitable[None]:
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    loop.close()
    return future


async def areturn_task(message: Any) -> Any:
    return asyncio.create_task(work())


async def areturn_coroutine(message: Any) -> Any:
    return work()


async def areturn_generator(message: Any) -> Any:
    return generate()


async def areturn_async_generator(message: Any) -> Any:
    return agenerate()


SYNC: dict[str, Callable[[Any], Any]] = {
    "coroutine": lambda _: work(),
    "generator": lambda _: generate(),
    "async generator": lambda _: agenerate(),
    "awaitable": lambda _: Later(),
    "future": make_future,
    "async callable": AsyncCallable(),
    "partial": partial(lambda _, message: work(), 1),
}
ASYNC: dict[str, Callable[[Any], Any]] = {
    "async task": areturn_task,
    "async coroutine": areturn_coroutine,
    "async with generator": areturn_generator,
    "async with async generator": areturn_async_generator,
    "async partial": partial(areturn_coroutine),
}
GOOD: dict[str, Callable[[Any], Any]] = {
    "partial": partial(work_on),
    "list": lambda _: [1, 2],
    "iterator": lambda _: iter([1]),
    "generator function": lambda _: generate,
    "class": lambda _: Later,
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, {}) for name in [*SYNC, *ASYNC]],
        *[(name, {"batch": 2}) for name in SYNC],
        *[(name, {"max_age": 600}) for name in SYNC],
    ],
)
def test_a_result_that_has_yet_to_run_fails_the_attempt(
    broker: Broker, name: str, options: dict[str, Any]
) -> None:
    handler = (SYNC | ASYNC)[name]
    broker.consume("a.b", handler, name="c", **options)

    broker.publish(Message("a.b"))
    wait_until(broker.dead_letters)

    (letter,) = broker.dead_letters()
    assert letter.error.startswith("TypeError: The handler returned a")
    assert broker.stats().consumers["c"].succeeded == 0


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("coroutine", "coroutine of work() that nobody awaits: make it 'async"),
        ("generator", "generator of generate() instead of running"),
        ("awaitable", "a Later that nobody awaits"),
        ("async task", "Task that nobody awaits"),
    ],
)
def test_the_error_names_what_was_returned_and_what_to_do(
    broker: Broker, name: str, hint: str
) -> None:
    handler = (SYNC | ASYNC)[name]
    broker.consume("a.b", handler, name="c")

    broker.publish(Message("a.b"))
    wait_until(broker.dead_letters)

    assert hint in broker.dead_letters()[0].error


@pytest.mark.parametrize("name", GOOD)
def test_any_other_result_is_a_success(broker: Broker, name: str) -> None:
    handler = GOOD[name]
    broker.consume("a.b", handler, name="c")

    broker.publish(Message("a.b"))
    wait_until_settled(broker)

    assert broker.stats().consumers["c"].succeeded == 1
