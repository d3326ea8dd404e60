"""Whether events are published or captured in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_live_depth = 0


def _do_nothing() -> None:
    """Without Django there is nothing to renew."""


after_live: Callable[[], None] = _do_nothing
"""Set at startup: ends what ran inside ``live()``."""


def is_test_environment() -> bool:
    """Whether Django's test environment is set up, by its runner or pytest-django."""
    # Asking costs 40 ns where django.test was never imported, as in production.
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")  # noqa: SLF001


def is_forced() -> bool:
    """Whether this is inside ``live()``."""
    return _live_depth > 0


def is_live() -> bool:
    """Whether events are really published: outside tests, and inside ``live()``."""
    return is_forced() or not is_test_environment()


@contextmanager
def live() -> Iterator[None]:
    """Publish events for real in a test; use it with TransactionTestCase alone.

    Consumers start in this process at the first emit. At the end the brokers finish
    what they accepted, up to ``DRAIN_TIMEOUT``, and new ones take their place. Not
    thread-safe: it holds for the whole process.
    """
    global _live_depth  # noqa: PLW0603 - the mode of the process
    _live_depth += 1
    try:
        yield
    finally:
        _live_depth -= 1
        if not _live_depth:
            after_live()
