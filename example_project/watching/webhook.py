"""Receives what Alertmanager sends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from acceptance.ports import free_port


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert that began or ended."""

    status: str
    """firing or resolved."""
    labels: dict[str, str]
    annotations: dict[str, str]

    def __str__(self) -> str:
        return (
            f"{self.status.upper():>8}  {self.annotations.get('summary', self.labels)}"
        )


class Webhook:
    """A server on loopback that hands each notice on, in its own thread."""

    def __init__(self, take: Callable[[Notice], object]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for alert in json.loads(body)["alerts"]:
                    take(_notice(alert))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        address = ("127.0.0.1", free_port(9099))
        self._server = ThreadingHTTPServer(address, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _notice(alert: dict[str, object]) -> Notice:
    labels, annotations = alert["labels"], alert["annotations"]
    assert isinstance(labels, dict)
    assert isinstance(annotations, dict)
    return Notice(str(alert["status"]), labels, annotations)
