"""The runner of the fake partition backend: ordered partitions, members and commits."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from threading import Lock
from typing import Any

from django_gomq.bus.backend import DeadLetter
from django_gomq.bus.message import Message

Place = tuple[str, int]
"""A consumer and a partition."""


class Log:
    """Messages in partitions by key; each partition has one member per consumer.

    A partition that moves gets a new generation, which fences its old member out.
    """

    def __init__(self, partitions: int = 4) -> None:
        self.partitions: list[list[Message[Any]]] = [[] for _ in range(partitions)]
        self.dead: list[DeadLetter] = []
        self.commits: list[tuple[str, str, int, int]] = []
        """Member, consumer, partition and offset of each commit that was asked for."""
        self.refused: list[tuple[str, str, int, int]] = []
        """Those of them that came from a fenced member."""
        self._committed: dict[Place, int] = {}
        self._members: dict[str, list[str]] = {}
        self._owners: dict[Place, tuple[str, int]] = {}
        self._lock = Lock()

    def partition_of(self, message: Message[Any]) -> int:
        return zlib.crc32((message.key or message.id).encode()) % len(self.partitions)

    def append(self, message: Message[Any]) -> None:
        with self._lock:
            self.partitions[self.partition_of(message)].append(message)

    def join(self, consumer: str, member: str) -> None:
        with self._lock:
            self._members.setdefault(consumer, []).append(member)
            self._rebalance(consumer)

    def leave(self, member: str) -> None:
        with self._lock:
            for consumer, members in self._members.items():
                if member in members:
                    members.remove(member)
                    self._rebalance(consumer)

    def _rebalance(self, consumer: str) -> None:
        members = self._members[consumer]
        for number in range(len(self.partitions)):
            if members:
                self._move((consumer, number), members[number % len(members)])
            else:
                self._owners.pop((consumer, number), None)

    def move(self, consumer: str, partition: int, member: str) -> None:
        """Take a partition from its member and give it to this one."""
        with self._lock:
            self._move((consumer, partition), member)

    def _move(self, place: Place, member: str) -> None:
        owner, generation = self._owners.get(place, ("", 0))
        if owner != member:
            self._owners[place] = member, generation + 1

    def assignments(self, consumer: str, member: str) -> dict[int, int]:
        """Return the generation of each partition that this member has."""
        with self._lock:
            return {
                number: generation
                for (name, number), (owner, generation) in self._owners.items()
                if (name, owner) == (consumer, member)
            }

    def committed(self, consumer: str, partition: int) -> int:
        """Return the first offset that is not finished."""
        return self._committed.get((consumer, partition), 0)

    def read(self, partition: int, offset: int, most: int) -> Sequence[Message[Any]]:
        with self._lock:
            return self.partitions[partition][offset : offset + most]

    def commit(self, place: Place, offset: int, member: str, generation: int) -> bool:
        """Return False if the partition has moved on."""
        note = member, *place, offset
        with self._lock:
            self.commits.append(note)
            if self._owners.get(place) != (member, generation):
                self.refused.append(note)
                return False
            self._committed[place] = offset
            return True
