from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("busy", deadline=None)  # of one example
settings.load_profile("busy")


def pytest_configure() -> None:
    """Let Ctrl-C end the programs of tests also where a shell began them with &."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
