"""Answers scrapes with a page that is made once a second, however many ask for it.

To make one takes tens of milliseconds of the interpreter, and many series take more:
scrapers must not hold up requests by being many.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from threading import Lock
from typing import Final

import msgspec
from prometheus_client import REGISTRY

from django_gomq.bus.process.fork import Process, current, register

from .collector import IncompleteError
from .registration import generation_of
from .text import (
    content_type_of,
    render,
    render_fine,
    render_fine_this_process,
    render_this_process,
)

FRESH_SECONDS: Final = 1.0
WAIT_SECONDS: Final = 5.0  # then a thread of the server is worth more than a scrape
_PLAIN: Final = "text/plain; charset=utf-8"

Render = Callable[[str], tuple[bytes, str]]
"""From an Accept header to a page and its content type."""


class Answer(msgspec.Struct, frozen=True):
    """What a scraper is answered."""

    status: HTTPStatus
    body: bytes
    content_type: str


class _Made(msgspec.Struct, frozen=True):
    """An answer, and when it was made of what."""

    answer: Answer
    began: float
    ended: float
    generation: int

    def serves(self, asked: float) -> bool:
        """Whether it is new enough for who asked then; one who waited gets it."""
        is_new = asked < self.began + FRESH_SECONDS or asked <= self.ended
        return is_new and self.generation == generation_of(REGISTRY)


class Pages:
    """The pages of one door. Thread-safe, and each process has its own after a fork.

    While one is made, others wait for it; one page is made at a time.
    """

    def __init__(self, render: Render, render_fine: Render) -> None:
        self._renders = {False: render, True: render_fine}
        self._lock = Lock()
        self._made: dict[tuple[bool, str], _Made] = {}
        register(self)

    def after_in_child(self, process: Process) -> None:
        """Forget a lock that a thread of the parent may hold."""
        self._lock = Lock()
        self._made = {}

    def answer(self, accept: str, *, fine: bool = False) -> Answer:
        """Return a page that was made within a second of now, or 503 and why not.

        Raises what a collector of somebody else raises. Blocks while it is made.
        """
        current()
        asked = time.monotonic()
        key = fine, content_type_of(accept)
        made = self._made.get(key)
        if made is not None and made.serves(asked):
            return made.answer
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            return _unavailable("Another scrape is not answered yet.")
        try:
            made = self._made.get(key)
            if made is None or not made.serves(asked):
                made = self._made[key] = self._make(accept, asked, fine=fine)
            return made.answer
        finally:
            self._lock.release()

    def _make(self, accept: str, began: float, *, fine: bool) -> _Made:
        generation = generation_of(REGISTRY)
        try:
            body, content_type = self._renders[fine](accept)
            answer = Answer(HTTPStatus.OK, body, content_type)
        except IncompleteError as error:
            answer = _unavailable(str(error))
        return _Made(answer, began, time.monotonic(), generation)


def _unavailable(why: str) -> Answer:
    text = f"The numbers are not whole: {why}\n"
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, text.encode(), _PLAIN)


all_processes: Final = Pages(render, render_fine)
"""What the page shows: all processes where they share, else this one."""
this_process: Final = Pages(render_this_process, render_fine_this_process)
