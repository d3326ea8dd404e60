"""What a message says of its cause: the message in whose handler it was emitted."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.delivery import Delivery, receive
from django_gomq.bus.errors import MessageError, MessageTooLargeError
from django_gomq.bus.hooks import Hooks
from django_gomq.bus.message import MAX_HEADERS, NO_HEADERS, Message, validate
from django_gomq.bus.worker.causes import in_work, name_cause
from django_gomq.bus.worker.environment import Environment
from django_gomq.bus.worker.processor import Processor
from tests.bus.observing import Recorder, Watcher

NEVER = float("inf")


class Emitted(list[Message[Any]]):
    """What handlers emitted, by the id of the message that each was given."""

    def __call__(self, message: Message[Any], **headers: str) -> None:
        made: Message[Any] = Message("a.c", headers=dict(headers) or NO_HEADERS)
        name_cause(made)
        self.append(made)

    @property
    def causes(self) -> list[tuple[str | None, str | None]]:
        return [(one.causation_id, one.correlation_id) for one in self]


def make(
    handler: Callable[[Any], Any], hook: Recorder | None = None, **options: Any
) -> Processor:
    return Processor(
        make_consumer(["a.b"], handler, name="c", options=options),
        broker="default",
        backend="memory",
        hooks=Hooks([hook] if hook else []),
        environment=Environment(),
    )


def deliver(*messages: Message[Any]) -> list[Delivery]:
    return [Delivery(message, 0.0) for message in messages]


def handle_many(processor: Processor, *messages: Message[Any]) -> None:
    processor.process_many(iter(deliver(*messages)), NEVER)


def handle_each(processor: Processor, *messages: Message[Any]) -> None:
    for delivery in deliver(*messages):
        processor.process(delivery)


def handle_on_a_loop(processor: Processor, *messages: Message[Any]) -> None:
    async def handle_all() -> None:
        for delivery in deliver(*messages):
            await asyncio.create_task(processor.process_async(delivery))

    contextvars.Context().run(asyncio.run, handle_all())


def emitting_async(emitted: Emitted) -> Callable[[Message[Any]], Any]:
    async def handler(message: Message[Any]) -> None:
        emitted(message)

    return handler


WAYS = {
    "in a slice": (handle_many, lambda emitted: emitted, None),
    "one by one": (handle_each, lambda emitted: emitted, None),
    "watched": (handle_many, lambda emitted: emitted, Watcher),
    "async": (handle_on_a_loop, emitting_async, None),
}


@pytest.mark.parametrize(("handle", "emitting", "hook"), WAYS.values(), ids=WAYS)
def test_what_a_handler_emits_names_the_message_in_work_as_its_cause(
    handle: Any, emitting: Any, hook: Any
) -> None:
    emitted = Emitted()
    first: Message[Any] = Message("a.b")
    second: Message[Any] = Message("a.b", headers={"correlationid": "of a request"})

    handle(make(emitting(emitted), hook and hook()), first, second)

    assert emitted.causes == [(first.id, first.id), (second.id, "of a request")]
    assert in_work() is None


def test_a_chain_of_messages_has_one_correlation_id() -> None:
    emitted = Emitted()
    root: Message[Any] = Message("a.b")

    handle_many(make(emitted), root)
    handle_many(make(emitted), emitted[0])
    handle_many(make(emitted), emitted[1])

    assert emitted.causes == [
        (root.id, root.id),
        (emitted[0].id, root.id),
        (emitted[1].id, root.id),
    ]


def test_a_message_outside_of_handlers_has_no_cause() -> None:
    message: Message[Any] = Message("a.b")

    name_cause(message)

    assert (message.causation_id, message.correlation_id) == (None, None)
    assert message.headers is NO_HEADERS


def test_outside_of_handlers_the_caller_may_name_what_messages_have_in_common() -> None:
    message: Message[Any] = Message("a.b", headers={"correlationid": "request 7"})

    name_cause(message)

    assert (message.causation_id, message.correlation_id) == (None, "request 7")


def test_in_a_handler_the_caller_names_the_correlation_and_never_the_cause() -> None:
    emitted = Emitted()

    def handler(message: Message[Any]) -> None:
        emitted(message, causationid="x", correlationid="mine", tenant="7")

    cause: Message[Any] = Message("a.b")
    handle_many(make(handler), cause)

    assert emitted.causes == [(cause.id, "mine")]
    assert emitted[0].headers["tenant"] == "7"


def test_headers_that_a_handler_passes_on_do_not_make_its_cause_theirs() -> None:
    emitted = Emitted()
    root: Message[Any] = Message("a.b")

    def handler(message: Message[Any]) -> None:
        emitted(message, **message.headers)

    handle_many(make(handler), root)
    handle_many(make(handler), emitted[0])

    assert emitted.causes[1] == (emitted[0].id, root.id)


@pytest.mark.parametrize("size", [1, 2])
def test_what_the_handler_of_a_batch_emits_has_no_cause(size: int) -> None:
    emitted = Emitted()
    batch = make(lambda messages: emitted(messages[0]), batch=size)

    batch.process_batch(deliver(*[Message("a.b") for _ in range(size)]))

    assert emitted.causes == [(None, None)]


def test_what_a_sync_handler_has_left_running_elsewhere_names_no_later_message() -> (
    None
):
    emitted, contexts = Emitted(), list[contextvars.Context]()

    def handler(message: Message[Any]) -> None:
        contexts.append(contextvars.copy_context())
        if len(contexts) == 2:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(contexts[0].run, emitted, message).result()

    handle_many(make(handler), Message("a.b"), Message("a.b"))

    assert emitted.causes == [(None, None)]


def test_threads_and_tasks_of_an_async_handler_name_its_message() -> None:
    emitted = Emitted()

    async def handler(message: Message[Any]) -> None:
        await asyncio.to_thread(emitted, message)
        await asyncio.create_task(emitting_async(emitted)(message))

    cause: Message[Any] = Message("a.b")
    handle_on_a_loop(make(handler), cause)

    assert emitted.causes == [(cause.id, cause.id)] * 2


def test_after_a_slice_nothing_is_in_work() -> None:
    emitted, contexts = Emitted(), list[contextvars.Context]()
    handler = lambda _: contexts.append(contextvars.copy_context())  # noqa: E731 - short

    handle_many(make(handler), Message("a.b"))
    contexts[0].run(emitted, Message("a.b"))

    assert emitted.causes == [(None, None)]


@pytest.mark.parametrize("strange", ["", "x" * 201, "two\nlines"])
def test_an_id_that_no_envelope_could_carry_is_no_cause(strange: str) -> None:
    emitted = Emitted()

    handle_many(make(emitted), Message("a.b", number=strange))

    assert emitted.causes == [(None, None)]


def test_a_delivered_message_tells_the_cause_of_the_message_as_it_came() -> None:
    message: Message[Any] = Message(
        "a.b", headers={"causationid": "1", "correlationid": "2"}
    )
    received = receive(Delivery(message, 0.0), {})

    received.headers["causationid"] = "changed"

    assert (received.causation_id, received.correlation_id) == ("1", "2")


@pytest.mark.parametrize("name", ["causationid", "correlationid"])
@pytest.mark.parametrize("text", ["", "x" * 201, "no\u00a0print\u200b"])
def test_a_header_that_names_a_cause_is_an_id(name: str, text: str) -> None:
    with pytest.raises(MessageError, match=f"header '{name}' is no id of 1 to 200"):
        validate(Message("a.b", headers={name: text}), max_body_bytes=10)


def test_the_limits_of_headers_do_not_count_the_two_that_the_bus_adds() -> None:
    ids = {"causationid": "1" * 200, "correlationid": "2" * 200}
    many = {f"h{number}": "" for number in range(MAX_HEADERS)}

    validate(Message("a.b", headers={**many, **ids}), max_body_bytes=10)
    validate(Message("a.b", headers={"h": "x" * 4095, **ids}), max_body_bytes=10)

    with pytest.raises(MessageTooLargeError, match="33 headers"):
        validate(Message("a.b", headers={**many, **ids, "z": ""}), max_body_bytes=10)
