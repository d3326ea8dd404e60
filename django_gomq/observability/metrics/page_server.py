"""An HTTP server of one page, read by those who may; it knows no process, no metric."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import TCPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client.exposition import ThreadingWSGIServer

Render = Callable[[str], tuple[bytes, str]]
"""From an Accept header to a page and its content type."""


class Page:
    """A WSGI application that shows one page, whatever the path."""

    def __init__(
        self,
        render: Render,
        admits: Callable[[str], bool],
        note_failure: Callable[[str], None],
    ) -> None:
        """``admits`` is asked of the Authorization header; see ``Failures.note``."""
        self._render = render
        self._admits = admits
        self._note_failure = note_failure

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer one request; raises nothing."""
        plain = [("Content-Type", "text/plain; charset=utf-8")]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _refuse(start_response, HTTPStatus.METHOD_NOT_ALLOWED, plain)
        if not self._admits(environ.get("HTTP_AUTHORIZATION", "")):
            headers = [*plain, ("WWW-Authenticate", "Bearer")]
            return _refuse(start_response, HTTPStatus.UNAUTHORIZED, headers)
        try:
            body, content_type = self._render(environ.get("HTTP_ACCEPT", ""))
        except Exception:  # noqa: BLE001 - whatever a collector of somebody raises
            self._note_failure("A page of metrics could not be made")
            return _refuse(start_response, HTTPStatus.INTERNAL_SERVER_ERROR, plain)
        start_response("200 OK", [("Content-Type", content_type)])
        return [body] if environ["REQUEST_METHOD"] == "GET" else []


def _refuse(
    start_response: StartResponse,
    status: HTTPStatus,
    headers: list[tuple[str, str]],
) -> Iterable[bytes]:
    start_response(f"{status.value} {status.phrase}", headers)
    return [f"{status.phrase}.\n".encode()]


class PageServer(ThreadingWSGIServer):
    """A server whose port nobody else has, and that asks no name server.

    Raises OSError where the address is taken, or not ours.
    """

    pause_seconds = 0.1
    allow_reuse_port = False  # else two processes may take one port, and share it
    timeout = None

    def __init__(self, address: str, port: int, page: Page) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), _Quiet)
        self.set_app(page)

    def server_bind(self) -> None:
        """Take the port, without the look-up of a name that the base class does."""
        TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> Any:
        """Return the next connection."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(self.pause_seconds)  # out of descriptors: do not ask on and on
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client went away."""


class _Quiet(WSGIRequestHandler):
    """Logs no request, and lets nobody hold a thread."""

    timeout = 10.0

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Say nothing."""
