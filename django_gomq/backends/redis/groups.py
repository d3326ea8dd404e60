"""The consumers that are set up at the server: made, renamed, checked, removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from django_gomq.bus.backend import ConsumerState
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.errors import ConfigurationError

from .keys import Keys
from .operator_scripts import DESIRE, RENAME_DESIRED
from .scripts import RENAME, SETUP, Command
from .server import ServerConnection

OLDEST: Final = 7
"""The first major version of Redis that counts what a group has read."""


def set_up(
    connection: ServerConnection, keys: Keys, every: Sequence[Consumer]
) -> list[str]:
    """Make what consumers need; return a line for each. Raises ConfigurationError."""
    problems = problems_of_server(connection)
    if problems:
        raise ConfigurationError(" ".join(problems))
    done = []
    for consumer in every:
        renamed = [
            old for old in consumer.aliases if _rename(connection, keys, old, consumer)
        ]
        ((made, left),) = connection.run(_setup(keys, consumer, consumer.start))
        news = f"{made} new groups" if made else "as it was"
        if renamed:
            news = f"renamed from {renamed[0]}"
        done.append(f"{consumer.name}: set up in {keys.prefix}, {news}")
        done += [
            f"{consumer.name}: does not read {event.decode()} any more, of which some "
            "is left; run setup again once the processes of the old code have read it"
            for event in left
        ]
    if _info(connection, "persistence").get("aof_enabled") != "1":
        done.append(
            "The server keeps no log (appendonly no): where it crashes, what it has "
            "accepted since its last snapshot is lost."
        )
    return done


def _rename(
    connection: ServerConnection, keys: Keys, old: str, consumer: Consumer
) -> bool:
    names = [keys.consumers, keys.types, keys.version, keys.dead_of]
    renamed, _ = connection.run(
        RENAME(names, keys.prefix, old, consumer.name),
        RENAME_DESIRED([keys.desired], old, consumer.name),
    )
    return bool(renamed)


def restore(connection: ServerConnection, keys: Keys, consumer: Consumer) -> bool:
    """Make groups again that are lost, to read all that there is.

    Returns whether it did; a consumer that was removed, or never set up, stays away.
    """
    ((made, _),) = connection.run(_setup(keys, consumer, "lost"))
    return bool(made)


def _setup(keys: Keys, consumer: Consumer, start: str) -> Command:
    names = [keys.consumers, keys.types, keys.version]
    return SETUP(
        names, keys.prefix, consumer.name, start, _written(consumer), *consumer.types
    )


def _written(consumer: Consumer) -> bytes:
    return msgspec.json.encode(sorted(consumer.types))


def problems(
    connection: ServerConnection, keys: Keys, every: Sequence[Consumer]
) -> list[str]:
    """Return what is wrong with the server, or not set up, a sentence each."""
    found = problems_of_server(connection)
    if every:
        names = [consumer.name for consumer in every]
        (known,) = connection.run(("HMGET", keys.consumers, *names))
        missing = sorted(
            consumer.name
            for consumer, types in zip(every, known, strict=True)
            if types != _written(consumer)
        )
        if missing:
            found.append(f"Not set up: {', '.join(missing)}. Run manage.py gomq setup.")
    return found


def problems_of_server(connection: ServerConnection) -> list[str]:
    """Return why messages are not safe at this server, a sentence each."""
    found = []
    server, memory = _info(connection, "server"), _info(connection, "memory")
    version = server.get("valkey_version") or server.get("redis_version", "0")
    if int(version.partition(".")[0]) < OLDEST:
        found.append(
            f"The server is Redis {version}; 7.0 or later is needed, or Valkey."
        )
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        found.append(
            f"The server's maxmemory-policy is {policy!r}: it would delete messages "
            "where memory runs out. Set it to 'noeviction'."
        )
    return found


def _info(connection: ServerConnection, section: str) -> Mapping[str, str]:
    (text,) = connection.run(("INFO", section))
    pairs = (each.partition(":") for each in text.decode().splitlines())
    return {name: value for name, _, value in pairs}


def types_in(consumers: Sequence[bytes]) -> Mapping[str, Sequence[str]]:
    """Return the types of each consumer, as the server tells them."""
    pairs = zip(consumers[::2], consumers[1::2], strict=True)
    return {name.decode(): msgspec.json.decode(types) for name, types in pairs}


def desire(
    connection: ServerConnection, keys: Keys, name: str, state: ConsumerState
) -> None:
    """Keep how a consumer is to be. Raises ConfigurationError for no such one."""
    said = msgspec.to_builtins(state)
    pairs = (
        each
        for field, value in said.items()
        if value is not None
        for each in (field, msgspec.json.encode(value))
    )
    (is_known,) = connection.run(DESIRE([keys.consumers, keys.desired], name, *pairs))
    if not is_known:
        raise ConfigurationError(
            f"Redis has no consumer {name!r} set up in {keys.prefix}: run manage.py "
            "gomq setup, or see gomq doctor for those that it has.",
            consumer=name,
        )


def desired(connection: ServerConnection, keys: Keys) -> Mapping[str, ConsumerState]:
    """Return how consumers are to be. Raises msgspec.DecodeError for what is none."""
    (found,) = connection.run(("HGETALL", keys.desired))
    return {
        name.decode(): msgspec.json.decode(state, type=ConsumerState)
        for name, state in zip(found[::2], found[1::2], strict=True)
    }
