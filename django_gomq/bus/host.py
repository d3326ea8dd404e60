"""What the bus asks of the program that it lives in; it knows no such program."""

from __future__ import annotations

from .consumer import Handler


class Host:
    """The surroundings of handlers; these methods do nothing, for a bare program.

    They run on the thread that runs the handler.
    """

    def before_handler(self) -> None:
        """Run before each sync handler."""

    def after_handler(self) -> None:
        """Run after each sync handler, whatever came of it."""

    async def before_async_handler(self) -> None:
        """Run before each async handler, on the loop."""

    async def after_async_handler(self) -> None:
        """Run after each async handler, on the loop."""

    def thread_idle(self) -> None:
        """Run when a handler thread has nothing to do, and before it ends."""

    def in_transaction(self, handler: Handler, using: bool | str) -> Handler:
        """Return the handler, wrapped to run in a transaction."""
        return handler
