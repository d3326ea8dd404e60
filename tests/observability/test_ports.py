from __future__ import annotations

import logging
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from email.message import Message as Headers
from typing import Any

import pytest

from django_gomq.observability.metrics import http as module
from django_gomq.observability.metrics.collector import Failures, IncompleteError
from django_gomq.observability.metrics.http import Ports, PortServer
from django_gomq.observability.metrics.single_flight import Pages
from tests.ports import free_range

from .companions import fork, kill, living, run_to_the_end
from .live import WAIT_SECONDS, wait_until

MakeServer = Callable[..., PortServer]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def failures() -> Failures:
    return Failures()


@pytest.fixture
def make_server(failures: Failures) -> Iterator[MakeServer]:
    made: list[PortServer] = []

    def make(first: int, last: int, **options: Any) -> PortServer:
        wanted: dict[str, Any] = {
            "address": "127.0.0.1",
            "admits": lambda authorization: True,
            "may_serve": lambda: True,
            **options,
        }
        render = wanted.pop("render", lambda accept: (f"for {accept}".encode(), "x/y"))
        fine = wanted.pop("fine", render)
        ports = Ports(first=first, last=last, **wanted)
        pages = Pages(render, fine)
        made.append(PortServer(ports, pages, failures))
        return made[-1]

    yield make
    for one in made:
        one.close()
    wait_until(lambda: not metrics_threads())


def metrics_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "gomq-metrics"]


def get(
    port: int | None, method: str = "GET", *, path: str = "", **headers: str
) -> tuple[int, str, Headers]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics{path}", headers=headers, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as response:
            return response.status, response.read().decode(), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


def serve(server: PortServer) -> int:
    def serves() -> bool:
        server.ensure()
        return server.port is not None

    wait_until(serves)
    assert server.port is not None
    return server.port


def test_a_process_serves_on_the_first_free_port(make_server: MakeServer) -> None:
    first, last = free_range(3)
    with closing(socket.create_server(("127.0.0.1", first))):
        server = make_server(first, last)

        port = serve(server)

    status, body, headers = get(port, accept=OPENMETRICS)
    assert port == first + 1
    assert (status, body) == (200, f"for {OPENMETRICS}")
    assert headers["Content-Type"] == "x/y"


def test_two_never_share_a_port(make_server: MakeServer) -> None:
    first, last = free_range(2)

    ports = [serve(make_server(first, last)) for _ in range(2)]

    assert ports == [first, last]


def test_serving_again_opens_nothing_more(make_server: MakeServer) -> None:
    server = make_server(*free_range(3))

    ports = {serve(server) for _ in range(50)}

    assert len(ports) == len(metrics_threads()) == 1


def test_where_nothing_may_be_served_nothing_opens(make_server: MakeServer) -> None:
    server = make_server(*free_range(1), may_serve=lambda: False)

    server.ensure()

    assert metrics_threads() == []
    assert server.port is None


def test_a_port_without_a_thread_is_tried_again(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    server = make_server(*free_range(1))
    with monkeypatch.context() as shortage:
        shortage.setattr(threading.Thread, "start", refuse)
        server.ensure()
        assert server.port is None

    server.ensure()

    wait_until(lambda: server.port is not None)


def test_no_free_port_is_told_once_and_tried_again(
    make_server: MakeServer,
    failures: Failures,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    first, last = free_range(2)
    server = make_server(first, last)

    def has_tried_again() -> bool:
        if failures.counts["Ports"] > 1:
            return metrics_threads() == []  # the last try is over
        server.ensure()
        return False

    with caplog.at_level(logging.ERROR, "gomq.metrics"), occupied(first, last):
        wait_until(has_tried_again)

    port = serve(server)

    assert port == first
    [record] = caplog.records
    assert f"from {first} to {last}" in record.getMessage()
    assert "PORT_RANGE" in record.getMessage()


@contextmanager
def occupied(first: int, last: int) -> Iterator[None]:
    taken = [socket.create_server(("127.0.0.1", p)) for p in range(first, last + 1)]
    yield
    for one in taken:
        one.close()


def test_an_address_of_another_machine_is_told_as_such(
    make_server: MakeServer, failures: Failures, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server(*free_range(2), address="203.0.113.7")

    with caplog.at_level(logging.ERROR, "gomq.metrics"):
        server.ensure()
        wait_until(lambda: failures.counts["Ports"])
        wait_until(lambda: not metrics_threads())

    [record] = caplog.records
    assert "203.0.113.7 is no address of this machine" in record.getMessage()
    assert "PORT_ADDRESS" in record.getMessage()


def test_one_port_that_is_taken_asks_for_another(
    make_server: MakeServer, failures: Failures, caplog: pytest.LogCaptureFixture
) -> None:
    first, last = free_range(1)
    server = make_server(first, last)

    with caplog.at_level(logging.ERROR, "gomq.metrics"), occupied(first, last):
        server.ensure()
        wait_until(lambda: failures.counts["Ports"])
        wait_until(lambda: not metrics_threads())

    [record] = caplog.records
    assert f"Port {first} of 127.0.0.1 is not to be had" in record.getMessage()
    assert "name another one" in record.getMessage()


def test_a_token_guards_the_port(make_server: MakeServer) -> None:
    server = make_server(*free_range(1), admits=lambda given: given == "Bearer right")

    port = serve(server)

    wrong, _, headers = get(port)
    assert wrong == 401
    assert headers["WWW-Authenticate"] == "Bearer"
    assert get(port, authorization="Bearer right")[0] == 200


def test_the_port_only_answers_to_get(make_server: MakeServer) -> None:
    port = serve(make_server(*free_range(1)))

    assert get(port, "POST")[0] == 405
    assert get(port, "HEAD")[:2] == (200, "")


def test_a_page_that_cannot_be_made_is_counted(
    make_server: MakeServer, failures: Failures, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(accept: str) -> tuple[bytes, str]:
        raise RuntimeError("a collector of somebody else")

    port = serve(make_server(*free_range(1), render=refuse))

    assert [get(port)[0], get(port)[0]] == [500, 500]
    assert failures.counts["Ports"] == 2
    assert len(caplog.records) == 1


def test_after_the_end_the_port_is_free(make_server: MakeServer) -> None:
    first, last = free_range(1)
    server = make_server(first, last)
    serve(server)

    server.close()
    server.close()

    wait_until(lambda: not metrics_threads())
    assert serve(make_server(first, last)) == first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: use POSIX")
def test_a_forked_child_takes_a_port_of_its_own(make_server: MakeServer) -> None:
    first, last = free_range(2)
    server = make_server(first, last, render=lambda _: (str(os.getpid()).encode(), "x"))
    serve(server)

    with living(lambda: serve(server)) as child:
        bodies = [get(first)[1], get(last)[1]]

    assert bodies == [str(os.getpid()), str(child)]
    assert get(first)[1] == str(os.getpid())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: use POSIX")
def test_a_child_that_serves_nothing_holds_no_port_of_its_parent(
    make_server: MakeServer,
) -> None:
    first, last = free_range(1)
    server = make_server(first, last)
    reader, writer = os.pipe()
    children, tell = os.pipe()

    def leave_a_child() -> None:
        serve(server)
        if not fork():
            os.write(tell, str(os.getpid()).encode())
            os.close(writer)
            os.read(reader, 1)  # until the test ends
            os._exit(0)

    run_to_the_end(leave_a_child)
    grandchild = int(os.read(children, 20))
    try:
        assert serve(server) == first
    finally:
        kill(grandchild)
        for descriptor in (reader, writer, children, tell):
            os.close(descriptor)


def answers(port: int) -> bool:
    try:
        return get(port)[0] == 200
    except OSError:
        return False  # cut off, as the oldest of many


def begun_since(before: set[threading.Thread]) -> set[threading.Thread]:
    return set(threading.enumerate()) - before


def test_many_who_keep_silent_have_few_threads_and_hold_nobody_up(
    make_server: MakeServer,
) -> None:
    port = serve(make_server(*free_range(1)))
    most = module.PageServer.most_connections

    with ExitStack() as silent:
        before = set(threading.enumerate())
        for _ in range(5 * most):
            one = socket.create_connection(("127.0.0.1", port), WAIT_SECONDS)
            silent.enter_context(closing(one))
        wait_until(lambda: len(begun_since(before)) >= most)
        wait_until(lambda: answers(port))
        threads = len(begun_since(before))

    assert threads <= most + 2, "one that ends lives on for a moment"


def test_a_page_that_is_not_whole_is_unavailable(make_server: MakeServer) -> None:
    def lack(accept: str) -> tuple[bytes, str]:
        raise IncompleteError("a broker is missing")

    port = serve(make_server(*free_range(1), render=lack))

    status, body, _ = get(port)
    assert status == 503
    assert "a broker is missing" in body


def test_the_port_has_fine_buckets_for_who_asks(make_server: MakeServer) -> None:
    port = serve(make_server(*free_range(1), fine=lambda _: (b"fine", "x/y")))

    bodies = [get(port, path=f"?{query}")[1] for query in ("a=1&buckets=fine", "a=1")]

    assert bodies == ["fine", "for "]


def test_nobody_who_keeps_silent_holds_the_others_up(make_server: MakeServer) -> None:
    port = serve(make_server(*free_range(1)))

    with closing(socket.create_connection(("127.0.0.1", port))):
        status, _, _ = get(port)

    assert status == 200
