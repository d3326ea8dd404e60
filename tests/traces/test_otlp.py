"""One trace leads from a request to its handler, as a collector receives it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.django_site.waiting import wait_until
from tests.docs.pasting import ROOT, Running, running
from tests.ports import free_port
from tests.traces.receiving import (
    Arrived,
    Spans,
    receiving_grpc,
    receiving_http,
)

VISITS: Final = 40
VISITORS: Final = 4
LONG: Final = "60"  # seconds
NAMES: Final = ("GET /", "send visit.made", "process visit.made", "note")
GUNICORN: Final = [sys.executable, "-m", "gunicorn"]
FORKED: Final = ["tests.traces.site.wsgi"]
PRELOADED: Final = [
    "tests.traces.site.preloaded",
    "--config",
    str(ROOT / "tests" / "traces" / "site" / "gunicorn_conf.py"),
]


def by_trace(spans: Spans) -> dict[bytes, dict[str, Arrived]]:
    traces: dict[bytes, dict[str, Arrived]] = {}
    for one in list(spans):
        traces.setdefault(one.span.trace_id, {})[one.span.name] = one
    return traces


def attributes(span: Span) -> dict[str, object]:
    return {
        one.key: getattr(one.value, str(one.value.WhichOneof("value")))
        for one in span.attributes
    }


def visit_both_workers(server: Running, spans: Spans) -> int:
    """Visit until each of the two workers has told of a visit; return how many told.

    No more are under way than visitors: an exporter drops what it has no room for.
    """
    server.wait_for("/", "accepted")
    answers = ["accepted"]

    def is_done() -> bool:
        with ThreadPoolExecutor(VISITORS) as visitors:
            answers.extend(visitors.map(server.get, ["/"] * VISITORS))
        assert set(answers) == {"accepted"}
        wait_until(lambda: len(spans) >= len(answers) * len(NAMES), "all spans")
        pids = {arrived.pid for arrived in list(spans)}
        return len(answers) >= VISITS and len(pids) == 2

    wait_until(is_done, "visits of both workers")
    return len(answers)


@pytest.mark.parametrize(
    ("protocol", "receive", "application"),
    [
        ("http/protobuf", receiving_http, FORKED),
        pytest.param("grpc", receiving_grpc, FORKED, marks=pytest.mark.slow),
        ("grpc", receiving_grpc, PRELOADED),
    ],
)
def test_a_request_its_send_and_its_handler_are_one_trace_from_each_gunicorn_worker(
    protocol: str,
    receive: Callable[[], AbstractContextManager[tuple[str, Spans]]],
    application: list[str],
    tmp_path: Path,
) -> None:
    port = free_port()
    with receive() as (address, spans):
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": address,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_TIMEOUT": LONG,
        }
        command = [*GUNICORN, *application, "--no-control-socket"]
        command += ["--bind", f"127.0.0.1:{port}", "--workers", "2"]
        command += ["--timeout", LONG, "--graceful-timeout", LONG]
        with running(tmp_path, command, port, environ) as server:
            visits = visit_both_workers(server, spans)
            assert server.end() == 0

    traces = by_trace(spans)
    assert len(traces) == visits
    for trace in traces.values():
        request, send, process, note = (trace[name].span for name in NAMES)
        assert len({one.pid for one in trace.values()}) == 1
        assert not request.parent_span_id
        assert send.parent_span_id == request.span_id
        assert process.parent_span_id == send.span_id
        assert note.parent_span_id == process.span_id
        assert [link.span_id for link in process.links] == [send.span_id]
        assert (send.kind, process.kind) == (
            Span.SPAN_KIND_PRODUCER,
            Span.SPAN_KIND_CONSUMER,
        )
        assert process.status.code == Status.STATUS_CODE_UNSET
        sent, processed = attributes(send), attributes(process)
        assert sent["messaging.message.id"] == processed["messaging.message.id"]
        assert (sent["sentry.op"], processed["sentry.op"]) == (
            "queue.publish",
            "queue.process",
        )
    assert len({one.pid for one in spans}) == 2
