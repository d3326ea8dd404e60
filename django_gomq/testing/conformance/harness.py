"""The harness: what a backend's author gives the conformance suite."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import NoReturn

import pytest

from django_gomq.bus.backend import Backend, ConsumerState


class Harness(ABC):
    """A fresh server, or a namespace of one, for one test, and what may befall it.

    Only ``make_backend`` must be written. A test that needs something else is reported
    as not tested, with the reason, until that is written too. Made without arguments,
    and called by the test's own thread alone, ``leave_thread`` apart.
    """

    @abstractmethod
    def make_backend(self) -> Backend:
        """Return the backend of one more process; it is not open yet."""

    def close(self) -> None:  # noqa: B027 - may hold nothing
        """Remove what the test has left. Every broker is closed by then."""

    def leave_thread(self) -> None:  # noqa: B027 - may hold nothing
        """Let go of what the calling thread has opened; it published, and ends."""

    def pass_time(self, seconds: float) -> None:
        """Let leases grow so much older; blocks. By default it really waits.

        Where the server's clock can be moved, move it: the suite is faster, and no
        lease is lost because the machine was busy.
        """
        time.sleep(seconds)

    def stop_server(self) -> None:
        """Make the server unreachable for everybody; it keeps what is durable."""
        self.cannot("stop the server")

    def start_server(self) -> None:
        """Make it reachable again; also called, at the end, where it is."""
        return

    def cut(self, backend: Backend) -> None:  # noqa: B027 - see the docstring
        """Cut one process off from the server, without a word to either.

        The suite lets every call of the reader and of the settler fail by itself, so
        this is for servers that push.
        """

    def mend(self, backend: Backend) -> None:  # noqa: B027 - as for cut
        """End what ``cut`` has done."""

    def lose_answers(self) -> AbstractContextManager[None]:
        """Have the server take what is published, and not say so."""
        self.cannot("lose the answers of the server")

    def put_garbage(self, event_type: str) -> None:
        """Put an entry of this type at the server that cannot be decoded."""
        self.cannot("put garbage at the server")

    def desire(self, consumer: str, state: ConsumerState) -> None:
        """Have ``desired_state`` return this for the consumer from now on."""
        self.cannot("change the desired state")

    def atomic(self) -> AbstractContextManager[str]:
        """Open a transaction of the database, whose alias is given.

        It is rolled back where the block raises. For backends that are transactional.
        """
        self.cannot("open a transaction")

    def cannot(self, what: str) -> NoReturn:
        """Report the test as not tested, as this harness cannot do that."""
        pytest.skip(f"not tested: the harness of this backend cannot {what}")
