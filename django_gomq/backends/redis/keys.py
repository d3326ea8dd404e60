"""The names of all keys of a broker at the server.

They carry one hash tag, so they are in one slot of a cluster: a script, and a read that
blocks, may cover any of them.
"""

from __future__ import annotations

import msgspec


class Keys(msgspec.Struct, frozen=True):
    """The names of the keys of one broker."""

    prefix: str
    """With the hash tag."""

    @property
    def consumers(self) -> str:
        """Hash: the types, as JSON, of each consumer that was set up."""
        return f"{self.prefix}:consumers"

    @property
    def types(self) -> str:
        """Set: the event types that have a stream."""
        return f"{self.prefix}:types"

    @property
    def version(self) -> str:
        """Counter: changes with consumers and types; gone if the data were lost."""
        return f"{self.prefix}:version"

    @property
    def workers(self) -> str:
        """Sorted set: when each process was last heard of, in ms."""
        return f"{self.prefix}:workers"

    @property
    def serial(self) -> str:
        """Counter: makes what waits for its time distinct."""
        return f"{self.prefix}:serial"

    @property
    def dead_of(self) -> str:
        """Set: the consumers that have had dead letters."""
        return f"{self.prefix}:dead"

    @property
    def moving(self) -> str:
        """Hash: which process moves dead letters to the site's store, until when."""
        return f"{self.prefix}:moving"

    @property
    def desired(self) -> str:
        """Hash: how operators want each consumer to be, as JSON."""
        return f"{self.prefix}:desired"

    def events(self, event_type: str) -> str:
        """Stream: the events of a type; one group for each of its consumers."""
        return f"{self.prefix}:e:{event_type}"

    def type_of(self, stream: str) -> str | None:
        """Return the type of which a stream has the events, if it has."""
        head = f"{self.prefix}:e:"
        return stream.removeprefix(head) if stream.startswith(head) else None

    def again(self, consumer: str) -> str:
        """Stream: what comes to one consumer once more."""
        return f"{self.prefix}:r:{consumer}"

    def later(self, stream: str) -> str:
        """Sorted set: what goes into that stream when it is due, in ms."""
        return f"{self.prefix}:later{stream.removeprefix(self.prefix)}"

    def dead(self, consumer: str) -> str:
        """Stream: the dead letters of a consumer."""
        return f"{self.prefix}:d:{consumer}"
