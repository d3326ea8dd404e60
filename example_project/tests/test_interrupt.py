"""Asked once a run ends in order, asked twice it breaks."""

from __future__ import annotations

import os
import signal

import pytest

from clinic.simulation.interrupt import Interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_breaks(number: int) -> None:
    with Interrupt() as interrupt:
        os.kill(os.getpid(), number)
        interrupt.wait(30)
        assert interrupt.asked

        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)

    with Interrupt():
        pass

    assert signal.getsignal(signal.SIGINT) is before
