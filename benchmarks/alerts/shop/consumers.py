"""Handlers that do as their messages say."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from threading import Event
from typing import Any, Final

from django_gomq import Message, Retry, consumer

# A file, as workers that a reload starts have the environment of their master.
LETTERS: Final = Path(os.environ.get("SHOP_LETTERS", "/dev/null")).read_text() or "old"
FAILURES: Final = 0.02
RETRY: Final = Retry(attempts=3, min_delay=0.1)


def _obey(message: Message[Any]) -> None:
    told = message.data
    if told.get("hang"):
        Event().wait()
    if told.get("fail"):
        raise ValueError("as told")
    time.sleep(told.get("seconds", 0.003))


@consumer("shop.order.paid", name="shop.books")
def keep_books(message: Message[Any]) -> None:
    """Never fail."""
    _obey(message)


@consumer("shop.order.paid", name="shop.mail", retry=RETRY)
def send_mail(message: Message[Any]) -> None:
    """Fail now and then; the next attempt succeeds."""
    if message.attempt == 1 and random.random() < FAILURES:
        raise ConnectionError("the mail server is busy")
    _obey(message)


@consumer("shop.order.paid", name=f"shop.letters_{LETTERS.strip()}")
def write_letters(message: Message[Any]) -> None:
    """Have another name after a deployment."""
    _obey(message)


@consumer("shop.hog.fed", name="shop.hog", concurrency=8)
def feed_hog(message: Message[Any]) -> None:
    """Have all threads, if it is told to hang often enough."""
    _obey(message)


@consumer("shop.lone.called", name="shop.lone")
def call_lone(message: Message[Any]) -> None:
    """Take one message at a time."""
    _obey(message)


@consumer("shop.small.filled", name="shop.small", capacity=20)
def fill_small(message: Message[Any]) -> None:
    """Have little room."""
    _obey(message)


@consumer("shop.seldom.tried", name="shop.seldom", retry=RETRY)
def try_seldom(message: Message[Any]) -> None:
    """Fail as often as not, when there is anything to do at all."""
    if message.attempt == 1:
        _obey(message)


@consumer("shop.doomed.sent", name="shop.doomed", retry=RETRY)
def send_doomed(message: Message[Any]) -> None:
    """Give up."""
    _obey(message)


@consumer("shop.page.viewed", name="shop.pages")
async def count_pages(message: Message[Any]) -> None:
    """Block the event loop, if told to."""
    _obey(message)
