"""A receiver of OTLP, over HTTP and over gRPC; it keeps spans and judges none."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True, slots=True)
class Arrived:
    """A span, and the process that it came from."""

    pid: int
    span: Span


Spans = deque[Arrived]


def _keep(request: ExportTraceServiceRequest, spans: Spans) -> None:
    for resource_spans in request.resource_spans:
        attributes = resource_spans.resource.attributes
        pids = [one.value.int_value for one in attributes if one.key == "process.pid"]
        for scope_spans in resource_spans.scope_spans:
            spans.extend(Arrived(pids[0], span) for span in scope_spans.spans)


@contextmanager
def receiving_http() -> Iterator[tuple[str, Spans]]:
    """Receive at the address that is yielded, until the end of the block."""
    spans: Spans = deque()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            _keep(ExportTraceServiceRequest.FromString(body), spans)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *arguments: object) -> None: ...  # noqa: A002

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", spans
        finally:
            server.shutdown()
            thread.join()


class _Service(services.TraceServiceServicer):
    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def Export(  # noqa: N802 - the protocol's name
        self, request: Any, context: object
    ) -> ExportTraceServiceResponse:
        _keep(request, self._spans)
        return ExportTraceServiceResponse()


@contextmanager
def receiving_grpc() -> Iterator[tuple[str, Spans]]:
    """Receive at the address that is yielded, until the end of the block."""
    spans: Spans = deque()
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        services.add_TraceServiceServicer_to_server(_Service(spans), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"http://127.0.0.1:{port}", spans
        finally:
            server.stop(grace=None).wait()
