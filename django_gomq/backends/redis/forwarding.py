"""Publishes what stood in an outbox: in its order, and as its emitters wrote it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from django_gomq.bus.wire import WireMessage

from .entries import EVENT, rewrite
from .keys import Keys
from .publishing import Answer, Publisher
from .scripts import DELAY, Command, Script
from .server import AwayError, IdleConnections, ServerConnection, UnansweredError

MAX_KNOWN: Final = 10_000
"""Event types that are remembered to have a stream: names may be data."""
REMADE_SECONDS: Final = 60.0
"""In this time workers make what a server has lost."""

FORWARD: Final = Script(
    """
-- KEYS streams...; ARGV field events...
local answers = {}
for i = 1, #KEYS do
  local got = redis.pcall('XADD', KEYS[i], 'NOMKSTREAM', '*', ARGV[1], ARGV[i + 1])
  answers[i] = got
  if not got or (type(got) == 'table' and got.err) then break end
end
return answers
""",
)
"""Adds events to their streams, up to the first that is refused or has none."""

_NOT_SENT: Final = ResponseError("not sent, as one before it was not taken")


class Forwarder:
    """Forwards for one thread. Blocks for the server's answer."""

    def __init__(
        self, publisher: Publisher, connections: IdleConnections, keys: Keys
    ) -> None:
        self._publisher, self._connections = publisher, connections
        self._keys = keys
        self._known: set[str] = set()
        """Event types that have a stream."""
        self._lost: dict[str, float] = {}
        """Those that had one until then, in seconds of the monotonic clock."""

    def forward(self, events: Sequence[WireMessage], timeout: float) -> list[Answer]:
        """Answer None for each that the server has, or the error; never raises for it.

        What follows one that is refused is not taken either, unless it is delayed.
        """
        deadline = time.monotonic() + timeout
        try:
            with self._connections.borrow() as connection:
                unconsumed = self._make_streams(connection, events, deadline)
                sent = [each for each in events if each.message.type not in unconsumed]
                left = max(0.001, deadline - time.monotonic())
                added, *delayed = connection.ask(self._commands(sent), left)
        except UnansweredError as error:
            return [self._publisher.read(event.message, error) for event in events]
        except (AwayError, ResponseError) as error:
            return [self._publisher.away(error)] * len(events)
        if not isinstance(added, list):  # an error: that of all
            added = [added]
        prompt, later = iter(added), iter(delayed)
        return [
            self._publisher.read(event.message, None)
            if event.message.type in unconsumed
            else self._read(
                event, next(later if event.message.delay else prompt, _NOT_SENT)
            )
            for event in events
        ]

    def _commands(self, events: Sequence[WireMessage]) -> list[Command]:
        """Return one for all that are due, and one for each that is delayed."""
        keys = self._keys
        prompt = [event for event in events if not event.message.delay]
        streams = [keys.events(event.message.type) for event in prompt]
        commands = [FORWARD(streams, EVENT, *map(rewrite, prompt))]
        for event in events:
            if event.message.delay:
                stream = keys.events(event.message.type)
                names = [stream, keys.later(stream), keys.serial]
                due = f"{event.message.delay * 1000:.0f}"
                commands.append(DELAY(names, due, EVENT, rewrite(event)))
        return commands

    def _make_streams(
        self,
        connection: ServerConnection,
        events: Sequence[WireMessage],
        deadline: float,
    ) -> set[str]:
        """Make those of new types first: who waited for one would be overtaken.

        Returns the types that nobody consumes. Raises ResponseError where the server
        may have lost who does.
        """
        types = {event.message.type for event in events} - self._known
        if not types:
            return set()
        made = self._publisher.make_streams(connection, types, deadline)
        unconsumed = types - made
        if unconsumed:
            self._check_lost(connection, unconsumed, deadline)
        self._known |= made if len(self._known) < MAX_KNOWN else set()
        return unconsumed

    def _check_lost(
        self, connection: ServerConnection, types: set[str], deadline: float
    ) -> None:
        now = time.monotonic()
        self._lost = {
            name: since
            for name, since in self._lost.items()
            if now < since + REMADE_SECONDS
        }
        left = max(0.001, deadline - now)
        (is_set_up,) = connection.run(("EXISTS", self._keys.version), timeout=left)
        if not is_set_up:
            raise ResponseError("the server has no consumers: run manage.py gomq setup")
        if lost := types & self._lost.keys():
            raise ResponseError(f"{', '.join(sorted(lost))} lost all consumers")

    def _read(self, event: WireMessage, answer: Any) -> Answer:
        if answer is not None:
            return self._publisher.read(event.message, answer)
        # It had a stream a moment ago; that is made anew at the next try.
        event_type = event.message.type
        self._known.discard(event_type)
        self._lost[event_type] = time.monotonic()
        return self._publisher.away(ResponseError(f"{event_type} lost its stream"))
