"""Where the numbers come from: a page over HTTP, or a shared directory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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

from django_gomq.observability.metrics.multiprocess.files import (
    ListedFile,
    Listing,
    look,
)
from django_gomq.observability.metrics.multiprocess.reader import Merger
from django_gomq.observability.metrics.multiprocess.slots import hold

from .numbers import CANNOT_READ, PREFIX

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
        self._request = Request(url, headers=headers)  # noqa: S310 - http or https: the option's type

    def read(self) -> Sequence[Metric]:
        """Return what is on the page. Blocks up to the timeout.

        Raises CommandError, which says what to do, where that is not to be had.
        """
        try:
            text = self._load().decode()
            metrics = list(text_string_to_metric_families(text))
        except HTTPError as error:
            error.close()
            raise self._error(f"answers {error.code} {error.reason}", error) from error
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
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(error, OSError | HTTPException):
            return f"Is the server up, at that host and port? ({reason})"
        return f"Give the address of a page for Prometheus. ({reason})"


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
        self._merger = Merger()

    def read(self) -> Sequence[Metric]:
        """Return what all processes counted, and what those alive hold now.

        Raises CommandError, which says what to do, where that is not to be had.
        """
        unreadable: list[str] = []
        try:
            files = self._files(look(self.name))
        except OSError as error:
            raise self._error(f"cannot be read ({error.strerror})") from error
        families = self._merger.merge(files, unreadable.append)
        if unreadable:
            raise self._error(f"has what is no file of numbers: {unreadable[0]}")
        return families.all()

    def _files(self, listing: Listing) -> Sequence[ListedFile]:
        ended = {slot for slot in listing.live_by_slot() if self._has_ended(slot)}
        return [
            file for file in listing.ours if not (file.is_live and file.slot in ended)
        ]

    def _has_ended(self, slot: int) -> bool:
        """Whether no living process holds the slot; False where that cannot be told.

        The server's processes clear such slots away, and say in their log what was
        lost with them: not for a reader to do.
        """
        try:
            taken = hold(self.name, slot)
        except OSError:
            return False
        if taken is None:
            return False
        taken.release()
        return True

    def _error(self, what: str) -> CommandError:
        return CommandError(
            f"The directory {self.name} {what}. Give the one that the server has as "
            "PROMETHEUS_MULTIPROC_DIR, as a user who may read it.",
            returncode=CANNOT_READ,
        )
