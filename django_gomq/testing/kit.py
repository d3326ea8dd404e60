"""The whole kit as one object: the fixture ``gomq``, and a mixin for unittest."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from django_gomq.bus.errors import ConfigurationError

from .captured import CapturedEvents, OfInnermost, capture
from .handling import HandledMessage, assert_listening, call
from .inline import InlineEvents, inline
from .live import LiveBus, live

_MODES: Final[
    Mapping[str, Callable[[], AbstractContextManager[CapturedEvents | LiveBus]]]
] = {"capture": capture, "inline": inline, "live": live}


class Gomq(OfInnermost):
    """All that a test may ask of the bus, in the mode that it runs in.

    The assertions look at the innermost ``capture()`` or ``inline()``, which is that of
    the test itself where it opens no other.
    """

    capture = staticmethod(capture)
    inline = staticmethod(inline)
    live = staticmethod(live)
    call = staticmethod(call)
    assert_listening = staticmethod(assert_listening)

    def __init__(self, mode: str, found: CapturedEvents | LiveBus) -> None:
        self.mode = mode
        """``capture``, ``inline`` or ``live``."""
        self._found = found

    @property
    def events(self) -> CapturedEvents:
        """What the test emitted. Raises AssertionError in live mode."""
        if isinstance(self._found, CapturedEvents):
            return self._found
        raise AssertionError(
            "In live mode events are published, not captured: look at what the "
            "handlers did after gomq.drain(), or use mode 'inline' or 'capture'."
        )

    @property
    def handled(self) -> list[HandledMessage]:
        """Every attempt of a handler. Raises AssertionError but in inline mode."""
        if isinstance(self._found, InlineEvents):
            return self._found.handled
        raise AssertionError(f"Mode {self.mode!r} does not say what is handled.")

    def drain(self, timeout: float = 10.0) -> None:
        """Wait for the handlers in live mode; see LiveBus.drain."""
        if isinstance(self._found, LiveBus):
            self._found.drain(timeout)


@contextmanager
def running(mode: str) -> Iterator[Gomq]:
    """Run a test in this mode; raises ConfigurationError for what is none."""
    if mode not in _MODES:
        raise ConfigurationError(
            f"{mode!r} is no mode of tests; there are {', '.join(_MODES)}."
        )
    with _MODES[mode]() as found:
        yield Gomq(mode, found)


class GomqTestMixin(unittest.TestCase):
    """Gives each test of a TestCase ``self.gomq``, in the mode ``gomq_mode``.

    ``class PaymentTests(GomqTestMixin, TestCase)``; a ``setUp`` of the class must call
    ``super().setUp()``. Mode ``live`` needs TransactionTestCase.
    """

    gomq_mode: str = "capture"
    gomq: Gomq

    def setUp(self) -> None:
        """Open the capture of this test, or what its mode is."""
        super().setUp()
        self.gomq = self.enterContext(running(self.gomq_mode))
