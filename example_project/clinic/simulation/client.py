"""One visitor's connection, kept alive."""

from __future__ import annotations

import http.client
import json
import re
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from clinic import told
from clinic.simulation.tally import Tally

AGENT = "clinic-simulate"
"""How the access log tells the driver's requests from those of other visitors."""

TIMEOUT = 30
"""Seconds for an answer: longer than a request waits for SQLite's write lock."""

_CSRF_COOKIE = re.compile(r"csrftoken=(\w+)")


class UnansweredError(Exception):
    """No answer came, so nobody knows what became of the request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    cookies: str

    def json(self) -> dict[str, object]:
        """Return the body, a JSON object."""
        data: dict[str, object] = json.loads(self.body)
        return data


class Client:
    """A keep-alive connection of one thread."""

    def __init__(self, url: str, tally: Tally) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            parts.hostname or "127.0.0.1", parts.port or 80, timeout=TIMEOUT
        )
        self.tally = tally

    def get(self, path: str) -> Answer:
        """Open a page."""
        return self._request("GET", path)

    def send_json(self, method: str, path: str, body: object = None) -> Answer:
        """Call a JSON endpoint."""
        headers = {"Content-Type": "application/json"}
        return self._request(method, path, json.dumps(body).encode(), headers)

    def post_form(self, path: str, fields: dict[str, str], page: str = "") -> Answer:
        """Open `page` (or `path`) and submit the form on it, as a browser does."""
        found = _CSRF_COOKIE.search(self.get(page or path).cookies)
        token = found.group(1) if found else ""
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": f"csrftoken={token}",
        }
        form = urlencode({**fields, "csrfmiddlewaretoken": token})
        return self._request("POST", path, form.encode(), headers)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        self.tally.asked()
        try:
            headers = {"User-Agent": AGENT, **(headers or {})}
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            self.tally.unanswered()
            raise UnansweredError(f"{method} {path}: {error!r}") from error
        self.tally.answered(response.status, response.getheader(told.HEADER, ""))
        cookies = response.getheader("Set-Cookie", "")
        return Answer(status=response.status, body=content, cookies=cookies)
