"""A log in partitions, as Kafka's: by key, with members, generations and offsets."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Condition
from typing import Any

import msgspec

from django_gomq.bus.message import Message

LOOK_SECONDS = 0.05

Entry = tuple[str, Message[Any] | None]
"""An event type and its message; without one it is garbage."""
Place = tuple[str, int]
"""A consumer and a partition."""


class Ownership(msgspec.Struct, frozen=True):
    """Who reads a partition; a new generation fences earlier owners out."""

    member: str
    generation: int


class PartitionLog:
    """Partitions, each read by one member per consumer; thread-safe.

    A partition that is to move is kept by its owner until it lets go, or until its
    session ends: by the server's own clock, which only ``pass_time`` moves.
    """

    def __init__(self, session: float, partitions: int = 4) -> None:
        self.is_away = False
        self.loses_answers = False
        self._session = session
        self._changed = Condition()
        self._now = 0.0
        self._partitions: list[list[Entry]] = [[] for _ in range(partitions)]
        self._committed: dict[Place, int] = {}
        self._members: dict[str, dict[str, float]] = {}
        """By consumer: its members, and when each was heard of."""
        self._owners: dict[Place, Ownership] = {}
        self._generation = 0

    @contextmanager
    def _request(self) -> Iterator[None]:
        with self._changed:
            if self.is_away:
                raise ConnectionRefusedError("the log is away")
            yield

    def pass_time(self, seconds: float) -> None:
        with self._changed:
            self._now += seconds

    def append(self, messages: Sequence[Message[Any]]) -> None:
        with self._request():
            for message in messages:
                place = (message.key or message.id).encode()
                self._partition(place).append((message.type, message))
            self._changed.notify_all()

    def put_garbage(self, event_type: str) -> None:
        with self._request():
            self._partition(b"garbage").append((event_type, None))
            self._changed.notify_all()

    def _partition(self, place: bytes) -> list[Entry]:
        return self._partitions[zlib.crc32(place) % len(self._partitions)]

    def wait(self, timeout: float) -> None:
        with self._request():
            self._changed.wait(min(timeout, LOOK_SECONDS))

    def poll(self, consumer: str, member: str) -> dict[int, tuple[int, bool]]:
        """Say that a member lives; return its partitions, each with its generation.

        The flag says whether it may keep the partition.
        """
        with self._request():
            members = self._members.setdefault(consumer, {})
            members[member] = self._now
            self._expire(consumer)
            wanted = self._share(consumer)
            mine: dict[int, tuple[int, bool]] = {}
            for number, heir in wanted.items():
                owner = self._owners.get((consumer, number))
                if owner is None and heir == member:
                    owner = self._give((consumer, number), member)
                if owner is not None and owner.member == member:
                    mine[number] = owner.generation, heir == member
            return mine

    def _expire(self, consumer: str) -> None:
        members = self._members[consumer]
        for member, heard in list(members.items()):
            if self._now - heard > self._session:
                self._forget(consumer, member)

    def _share(self, consumer: str) -> dict[int, str]:
        members = sorted(self._members[consumer])
        return {
            number: members[number % len(members)]
            for number in range(len(self._partitions))
        }

    def _give(self, place: Place, member: str) -> Ownership:
        self._generation += 1
        self._owners[place] = Ownership(member, self._generation)
        return self._owners[place]

    def _forget(self, consumer: str, member: str) -> None:
        self._members[consumer].pop(member, None)
        for (name, number), owner in list(self._owners.items()):
            if name == consumer and owner.member == member:
                del self._owners[name, number]

    def beat(self, member: str) -> None:
        """Say that a member lives, without joining anything."""
        with self._request():
            for members in self._members.values():
                if member in members:
                    members[member] = self._now

    def let_go(self, place: Place, owner: Ownership) -> None:
        """Leave a partition to the member that is to have it."""
        with self._request():
            if self._owners.get(place) == owner:
                del self._owners[place]
            self._changed.notify_all()

    def leave(self, member: str) -> None:
        with self._request():
            for consumer in self._members:
                self._forget(consumer, member)
            self._changed.notify_all()

    def is_owner(self, place: Place, owner: Ownership) -> bool:
        with self._request():
            return self._owners.get(place) == owner

    def read(self, partition: int, offset: int, most: int) -> Sequence[Entry]:
        with self._request():
            return self._partitions[partition][offset : offset + most]

    def committed(self, place: Place) -> int:
        """Return the first offset that is not finished."""
        with self._request():
            return self._committed.get(place, 0)

    def commit(self, place: Place, offset: int, owner: Ownership) -> bool:
        """Return False if the partition has moved on."""
        with self._request():
            if self._owners.get(place) != owner:
                return False
            self._committed[place] = offset
            return True
