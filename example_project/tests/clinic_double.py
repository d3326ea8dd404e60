"""A stand-in for the clinic's server: it answers as told and saves nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

from clinic import told


class ClinicDouble(ThreadingHTTPServer):
    """Counts what it is asked, and can refuse to answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.silent = threading.Event()
        self.enough = threading.Event()
        self.modes: list[str] = []
        self.asked = 0
        self.enough_at = 1
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self) -> None:
        with self.lock:
            self.asked += 1
            if self.asked >= self.enough_at:
                self.enough.set()


class _Handler(BaseHTTPRequestHandler):
    server: ClinicDouble
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200, "page.viewed=accepted*1", cookie="csrftoken=abc123; Path=/")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/switches/":
            form = parse_qs(body.decode())
            valid = form["csrfmiddlewaretoken"] == ["abc123"]
            self.server.modes += form["mode"] if valid else ["forbidden"]
        self._answer(*_ANSWERS[self.path])

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, "patient.updated=sent*1")

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(204, "patient.deleted=sent*1")

    def _answer(self, status: int, events: str, cookie: str = "") -> None:
        self.server.count()
        if self.server.silent.is_set():
            self.close_connection = True
            return
        content = b"" if status == 204 else json.dumps({"id": 5}).encode()
        self.send_response(status)
        self.send_header(told.HEADER, events)
        self.send_header("Content-Length", str(len(content)))
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


_ANSWERS = {
    "/switches/": (302, ""),
    "/records/": (302, "health.record.saved=accepted*1"),
    "/api/records/": (201, "health.record.saved=accepted*1"),
    "/api/records/bulk/": (201, "health.record.saved=accepted*10"),
    "/api/patients/": (201, "patient.created=sent*1"),
}


@contextmanager
def running() -> Iterator[ClinicDouble]:
    """Serve until the block is left."""
    with ClinicDouble() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
