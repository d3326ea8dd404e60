"""What is done at the server now and then: counting, trimming, forgetting the dead."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, Final

from django_gomq.bus.patterns import Pattern
from django_gomq.bus.stats import ServerProcess, ServerSample, ServerStats

from .groups import types_in
from .keys import Keys
from .scripts import LEAVE, STATS, TRIM, Command
from .server import ServerConnection

DEAD_AFTER: Final = 3
"""Leases without a sign of life after which a process is dead."""


def streams_by_consumer(
    connection: ServerConnection, keys: Keys, limit: float | None = None
) -> Mapping[str, Sequence[str]]:
    """Return the streams that each consumer reads."""
    asked = ("SMEMBERS", keys.types), ("HGETALL", keys.consumers)
    found, consumers = connection.run(*asked, timeout=limit)
    types = sorted(each.decode() for each in found)
    return {
        name: [
            keys.again(name),
            *(
                keys.events(each)
                for each in types
                if any(Pattern(text).matches(each) for text in patterns)
            ),
        ]
        for name, patterns in types_in(consumers).items()
    }


def orphans(
    connection: ServerConnection, keys: Keys, known: Container[str]
) -> Mapping[str, Sequence[str]]:
    """Return the streams of each group whose consumer is not set up.

    Nobody reads for it, and no entry that it has not read is trimmed.
    """
    found = streams_by_group(connection, keys)
    return {name: streams for name, streams in found.items() if name not in known}


def streams_by_group(
    connection: ServerConnection, keys: Keys
) -> Mapping[str, Sequence[str]]:
    """Return the streams of events that each group is of."""
    (types,) = connection.run(("SMEMBERS", keys.types))
    streams = [keys.events(each.decode()) for each in sorted(types)]
    found: dict[str, list[str]] = {}
    answers = connection.ask([("XINFO", "GROUPS", stream) for stream in streams])
    for stream, groups in zip(streams, answers, strict=True):
        if isinstance(groups, Exception):
            continue  # the stream has gone meanwhile
        for group in groups:
            told = dict(zip(group[::2], group[1::2], strict=True))
            name = told[b"name"].decode(errors="replace")
            found.setdefault(name, []).append(stream)
    return found


def trim(connection: ServerConnection, streams: Sequence[str], seconds: float) -> int:
    """Delete what no group needs and is older than that; return how many entries."""
    asked = [TRIM([stream], f"{seconds * 1000:.0f}") for stream in streams]
    return sum(connection.run(*asked)) if asked else 0


def forget_dead(connection: ServerConnection, keys: Keys, lease: float) -> None:
    """Remove the names of processes that are gone, and hold nothing any more."""
    ((seconds, _),) = connection.run(("TIME",))
    limit = (int(seconds) - DEAD_AFTER * lease) * 1000
    (dead,) = connection.run(("ZRANGEBYSCORE", keys.workers, "-inf", f"{limit:.0f}"))
    for name in dead:
        leave(connection, keys, name.decode())


def leave(
    connection: ServerConnection, keys: Keys, owner: str, limit: float | None = None
) -> None:
    """Remove the name of a process from the groups in which it holds nothing."""
    pairs = [
        (stream, name)
        for name, streams in streams_by_consumer(connection, keys, limit).items()
        for stream in streams
    ]
    names, groups = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    connection.run(LEAVE([keys.workers, *names], owner, *groups), timeout=limit)


def sample(
    connection: ServerConnection, keys: Keys, lease: float
) -> tuple[ServerSample, Mapping[str, int]]:
    """Return what waits for each consumer, and how much somebody trimmed of it.

    Groups without a consumer are among them, and what is left for consumers of types
    that they have dropped. Blocks for the server's answers.
    """
    streams = dict(streams_by_consumer(connection, keys))
    for name, read in streams_by_group(connection, keys).items():
        # Also of types that it does not read any more, with what is left there.
        streams[name] = list(dict.fromkeys([*streams.get(name, ()), *read]))
    asked = [_question(keys, name, read) for name, read in streams.items()]
    beats = ("ZRANGE", keys.workers, 0, -1, "WITHSCORES")
    (seconds, micros), beaten, *answers = connection.run(("TIME",), beats, *asked)
    now = int(seconds) + int(micros) / 1_000_000
    ages = {
        name: max(0.0, now - float(beat) / 1000)
        for name, beat in zip(beaten[::2], beaten[1::2], strict=True)
    }
    living = {name for name, age in ages.items() if age <= lease}
    return ServerSample(
        consumers={
            name: _stats_in(answer, living)
            for name, answer in zip(streams, answers, strict=True)
        },
        processes=[_process(name.decode(), age, lease) for name, age in ages.items()],
    ), {name: answer[5] for name, answer in zip(streams, answers, strict=True)}


def _question(keys: Keys, name: str, streams: Sequence[str]) -> Command:
    pairs = (name for each in streams for name in (each, keys.later(each)))
    return STATS([keys.dead(name), *pairs], name)


def _stats_in(answer: Any, living: set[bytes]) -> ServerStats:
    ready, held, scheduled, dead, age, trimmed, names = answer
    return ServerStats(
        ready=ready,
        held=held,
        trimmed=trimmed,
        scheduled=scheduled,
        dead=dead,
        oldest_age=age / 1000,
        workers=len(living.intersection(names)),
    )


def _process(name: str, age: float, lease: float) -> ServerProcess:
    """Return a process by the name that ``RedisBackend.open`` gave it."""
    host, pid, _ = ("", *name.rsplit("-", 2))[-3:]
    number = int(pid) if pid.isdecimal() else 0
    return ServerProcess(host=host, pid=number, beat_age=age, is_late=age > lease)
