"""Where the numbers come from: a page over HTTP, or a shared directory."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO, Final
from urllib.error import HTTPError, URLError
from urllib.request import (
    HTTPRedirectHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

from django.core.management.base import CommandError
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from django_gomq.bus.errors import printable
from django_gomq.observability.metrics.catalogue import PREFIX
from django_gomq.observability.metrics.multiprocess.directory import (
    DirectoryError,
    SharedDirectory,
)

from .numbers import CANNOT_READ

_LARGEST: Final = 64 * 2**20  # 500 times a page of 2,500 series
_PIECE: Final = 2**16
_ADVICE: Final[Mapping[int, str]] = {
    400: "Is that host among ALLOWED_HOSTS?",
    401: "Give --token, the one in GOMQ['METRICS']['TOKEN'].",
    403: "Only staff may read it in a browser: make GOMQ['METRICS']['ACCESS'] 'token'.",
    404: "Give the whole address of the page, such as "
    "http://127.0.0.1:8000/gomq/metrics, and include 'django_gomq.urls' in the URLs.",
}


class Page:
    """The metrics page at an address."""

    def __init__(self, url: str, *, token: str = "", timeout: float = 5.0) -> None:
        self.name = url
        self._timeout = timeout
        headers = {"Accept": "text/plain; version=0.0.4"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # A page that knows no fine buckets answers with those that it has.
        asked = url if "?" in url else f"{url}?buckets=fine"
        self._request = Request(asked, headers=headers)  # noqa: S310 - http or https: the option's type

    def read(self) -> Sequence[Metric]:
        """Return what is on the page. Blocks up to the timeout.

        Raises CommandError, which says what to do, where that is not to be had.
        """
        try:
            text = self._load().decode()
            metrics = list(text_string_to_metric_families(text))
        except HTTPError as error:
            raise self._refusal(error) from error
        except (OSError, HTTPException) as error:
            raise self._error("cannot be reached", error) from error
        except ValueError as error:
            raise self._error("is no page of metrics", error) from error
        if not any(metric.name.startswith(PREFIX) for metric in metrics):
            raise CommandError(
                f"{self.name} has metrics, but none of django_gomq. Give the address "
                "of its page, and see that GOMQ['METRICS']['ENABLED'] is not False.",
                returncode=CANNOT_READ,
            )
        return metrics

    def _load(self) -> bytes:
        deadline = time.monotonic() + self._timeout
        body = b""
        with _opener().open(self._request, timeout=self._timeout) as response:
            while piece := _read_some(response):
                body += piece
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no end after {self._timeout:g} s")
                if len(body) > _LARGEST:
                    raise ValueError(f"more than {_LARGEST} bytes")
        return body

    def _refusal(self, error: HTTPError) -> CommandError:
        with error:
            said = ""
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
                with contextlib.suppress(OSError, HTTPException):
                    said = f": {printable(error.read(_PIECE).decode(errors='replace'))}"
            return self._error(f"answers {error.code} {error.reason}{said}", error)

    def _error(self, what: str, error: Exception) -> CommandError:
        return CommandError(
            f"{self.name} {what}. {self._advice(error)}", returncode=CANNOT_READ
        )

    def _advice(self, error: Exception) -> str:
        if isinstance(error, HTTPError):
            target = error.headers.get("Location")
            if target:
                return f"Give the address that it redirects to: {target}"
            return _ADVICE.get(error.code, "The server's log says why.")
        reason = _reason(error)
        if isinstance(error, OSError | HTTPException):
            return f"Is the server up, at that host and port? ({reason})"
        return f"Give the address of a page for Prometheus. ({reason})"


class LocalPages:
    """What this machine serves: the ports of ``PORT_RANGE``, else the usual page.

    The ports come first: each has a process, where a page of several workers that
    share no directory has one of them.
    """

    def __init__(
        self, ports: range, host: str, path: str, *, token: str, timeout: float
    ) -> None:
        self.name = ""
        """What answered."""
        make = functools.partial(Page, token=token, timeout=timeout)
        self._ports = [make(f"http://{host}:{port}/metrics") for port in ports]
        self._page = make(f"http://127.0.0.1:{_PORT}{path}")

    def read(self) -> Sequence[Metric]:
        """Return what all that answer tell, processes side by side.

        Raises CommandError, which says what was tried.
        """
        tried: list[str] = []
        found = self._read_all(self._ports, tried)
        if not found:
            found = self._read_all([self._page], tried)
        if not found:
            raise self._error(tried)
        first, *more = found
        self.name = f"{first} and {len(more)} more ports" if more else first
        return [metric for metrics in found.values() for metric in metrics]

    def _read_all(
        self, pages: Sequence[Page], tried: list[str]
    ) -> Mapping[str, Sequence[Metric]]:
        """Return what answers, by address; note what else there is."""
        found: dict[str, Sequence[Metric]] = {}
        silent: list[str] = []
        for page in pages:
            try:
                found[page.name] = page.read()
            except CommandError as error:
                if isinstance(_reason(error.__cause__), ConnectionRefusedError):
                    silent.append(page.name)
                else:
                    tried.append(str(error))
        if silent:
            last = f" to {silent[-1]}" if len(silent) > 1 else ""
            tried.append(f"{silent[0]}{last}: nobody is there.")
        return found

    def _error(self, tried: Sequence[str]) -> CommandError:
        text = "\n".join(f"  {line}" for line in tried)
        return CommandError(
            f"There are no numbers on this machine. Tried:\n{text}\nIs the server up? "
            "Give --url http://host:port/gomq/metrics, its page, or --dir (or "
            "PROMETHEUS_MULTIPROC_DIR in the environment), the directory that its "
            "processes share.",
            returncode=CANNOT_READ,
        )


_PORT: Final = 8000  # of runserver, gunicorn and uvicorn, where they are not told


def _reason(error: BaseException | None) -> BaseException | str | None:
    return error.reason if isinstance(error, URLError) else error


def _read_some(response: HTTPResponse) -> bytes:
    return response.read1(_PIECE)


class _StayHere(HTTPRedirectHandler):
    """Follows no redirect: the token would go along, to whoever is named there."""

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        return None


def _opener() -> OpenerDirector:
    # A proxy of the environment is for the world outside, where no metrics page is.
    return build_opener(ProxyHandler({}), _StayHere)


class SharedNumbers:
    """The numbers of all processes that use one ``PROMETHEUS_MULTIPROC_DIR``."""

    def __init__(self, directory: str) -> None:
        self.name = directory
        self._directory = SharedDirectory(directory)

    def read(self) -> Sequence[Metric]:
        """Return what all processes counted, and what those alive hold now.

        Raises CommandError, which says what to do, where that is not to be had.
        """
        try:
            return self._directory.read()
        except DirectoryError as error:
            raise CommandError(str(error), returncode=CANNOT_READ) from error
