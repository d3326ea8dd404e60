"""What a program may do around the bus; by default nothing."""

from __future__ import annotations

from typing import Final

from django_gomq.bus.channels.spilling import SpillStore
from django_gomq.bus.declarations.handler import Handler


class ThreadScope:
    """What an environment does around the handlers of one thread; here nothing.

    Belongs to its thread.
    """

    is_needed = False
    """Whether ``before`` and ``after`` have anything to do: asked at each message."""

    def before(self) -> None:
        """Run before a sync handler."""

    def after(self) -> None:
        """Run after a sync handler, whatever came of it."""


NO_SCOPE: Final = ThreadScope()


class Environment:
    """What surrounds the bus; these methods do nothing, for a bare program."""

    def make_spill_store(self, broker: str) -> SpillStore | None:
        """Return where consumers of a broker spill, if there is such a place."""
        return None

    def thread_scope(self) -> ThreadScope:
        """Return what to do around the handlers of the current thread."""
        return NO_SCOPE

    async def before_async_handler(self) -> None:
        """Run before each async handler, on the loop."""

    async def after_async_handler(self) -> None:
        """Run after each async handler, on the loop."""

    async def loop_ending(self) -> None:
        """Run on the loop before it ends, after the last async handler."""

    def thread_idle(self) -> None:
        """Run when a handler thread has nothing to do, and before it ends."""

    def in_transaction(self, handler: Handler, using: bool | str) -> Handler:
        """Return the handler, wrapped to run in a transaction."""
        return handler
