"""Logging configurations that raise or block, as projects have them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, cast

from tests.bus.waiting import LONG

LOGGERS = ("gomq.publish", "gomq.consumer", "gomq.bus", "gomq.hooks")


class Raising(logging.Handler):
    """Cannot write, and does not say so as handlers should."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def emit(self, record: logging.LogRecord) -> None:
        raise self._error


class RaisingFilter(logging.Filter):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def filter(self, record: logging.LogRecord) -> bool:
        raise self._error


class Blocking(logging.Handler):
    """Blocks in every line until ``go_on``; counts the lines that it got."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.lines: list[str] = []

    def createLock(self) -> None:  # noqa: N802 - logging's own name
        # None will not do: Python 3.13 enters it.
        self.lock = cast("Any", threading.Semaphore(1000))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.entered.set()
        self.go_on.wait(LONG)


@contextmanager
def adding(handler: logging.Handler) -> Iterator[None]:
    with ExitStack() as stack:
        for name in LOGGERS:
            logger = logging.getLogger(name)
            logger.addHandler(handler)
            stack.callback(logger.removeHandler, handler)
        yield


@contextmanager
def filtering(error: BaseException) -> Iterator[None]:
    bad = RaisingFilter(error)
    with ExitStack() as stack:
        for name in LOGGERS:
            logger = logging.getLogger(name)
            logger.addFilter(bad)
            stack.callback(logger.removeFilter, bad)
        yield


@contextmanager
def making_records(make: Callable[..., logging.LogRecord]) -> Iterator[None]:
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(make)
    try:
        yield
    finally:
        logging.setLogRecordFactory(before)


@contextmanager
def raising(where: str, error: BaseException) -> Iterator[None]:
    """Have logging raise this in a handler, a filter, or where records are made."""

    def refuse(*args: object, **kwargs: object) -> logging.LogRecord:
        raise error

    contexts: dict[str, AbstractContextManager[None]] = {
        "handler": adding(Raising(error)),
        "filter": filtering(error),
        "factory": making_records(refuse),
    }
    with contexts[where]:
        yield


WHERE = ("handler", "filter", "factory")
