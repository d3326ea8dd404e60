"""The headers of a message, as another process has to read them."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from django_gomq.bus.delivery import Delivery, original, receive
from django_gomq.bus.errors import MessageError
from django_gomq.bus.message import Message, validate
from django_gomq.bus.wire import wire_headers


class Carried(msgspec.Struct, frozen=True):
    """A trace context as an observer has one."""

    trace: str

    def write(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {**headers, "traceparent": self.trace}


def carrying(trace: str | None = "t1", **headers: str) -> Message[Any]:
    """Return a message with these headers that carries a trace."""
    carried = None if trace is None else Carried(trace)
    return Message("a.b", headers=dict(headers), trace_context=carried)


# ------------------------------------------------------------------------- headers


def test_headers_go_on_the_wire_with_those_of_the_trace() -> None:
    message = carrying(tenant="7", traceparent="of an earlier publish")

    assert wire_headers(message) == {"tenant": "7", "traceparent": "t1"}
    assert message.headers == {"tenant": "7", "traceparent": "of an earlier publish"}


@pytest.mark.parametrize("message", [carrying(None, tenant="7"), Message("a.b")])
def test_headers_on_the_wire_are_a_copy(message: Message[Any]) -> None:
    before = dict(message.headers)

    wire_headers(message)["x"] = "1"

    assert message.headers == before


def test_a_handler_reads_the_trace_in_headers_of_its_own() -> None:
    message = carrying(tenant="7")
    received = receive(Delivery(message, 0.0), {})

    received.headers["x"] = "1"

    assert received.headers == {"tenant": "7", "traceparent": "t1", "x": "1"}
    assert (message.headers, received.trace_context) == ({"tenant": "7"}, Carried("t1"))


def test_headers_are_not_written_before_somebody_looks() -> None:
    class Unwritten:
        def write(self, headers: Mapping[str, str]) -> dict[str, str]:
            raise AssertionError

    message: Message[Any] = Message("a.b", trace_context=Unwritten())

    validate(message, max_body_bytes=100)
    assert original(receive(Delivery(message, 0.0), {})) is message


def test_a_handler_that_only_looks_passes_the_same_message_on() -> None:
    message = carrying(tenant="7")
    received = receive(Delivery(message, 0.0), {})

    json.dumps(received.headers)

    assert original(received) is message


def test_a_handler_that_writes_passes_on_what_it_wrote() -> None:
    message = carrying(tenant="7")
    received = receive(Delivery(message, 0.0), {})

    del received.headers["traceparent"]
    sent = original(received)

    assert (sent.id, sent.headers) == (message.id, {"tenant": "7"})
    assert wire_headers(sent) == {"tenant": "7"}


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_what_is_carried_stays_in_its_process(copied: Any) -> None:
    message = carrying(tenant="7")

    other = copied(message)

    assert (other.id, other.headers, other.trace_context) == (
        message.id,
        {"tenant": "7"},
        None,
    )


@pytest.mark.parametrize("headers", [None, [("a", "b")], Carried("t1")])
def test_headers_are_a_dict_or_refused(headers: Any) -> None:
    with pytest.raises(MessageError, match="headers must be a dict"):
        validate(Message("a.b", headers=headers), max_body_bytes=100)
