"""Kept events, and consumers that go: handed out once more, or buried."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from django_gomq.bus.backend import HistoryFilter
from django_gomq.bus.dead_letters import DeadLetter, trace_id_of
from django_gomq.bus.errors import ConfigurationError, DecodeError
from django_gomq.bus.wire import decode_structured

from .dead_letters import message_in, written
from .entries import EVENT, MAX_BODY, Token, event_in, token_in
from .keys import Keys
from .operator_scripts import FORGET, HURRY
from .server import ServerConnection, pending
from .upkeep import orphans, streams_by_consumer, streams_by_group

PAGE: Final = 200
REMOVED: Final = "ConsumerRemoved"
_UNKNOWN: Final = "_unknown"

Entry = tuple[bytes, Sequence[bytes]]


def find(
    connection: ServerConnection, keys: Keys, name: str, broker: str
) -> Sequence[str]:
    """Return the streams of a consumer. Raises ConfigurationError for no such one."""
    streams = dict(streams_by_consumer(connection, keys))
    streams |= orphans(connection, keys, streams)
    if name not in streams:
        known = ", ".join(sorted(streams)) or "none"
        raise ConfigurationError(
            f"Redis has no consumer {name!r} set up in {keys.prefix}; there are "
            f"{known}.",
            consumer=name,
            broker=broker,
        )
    return streams[name]


def replay(
    connection: ServerConnection,
    keys: Keys,
    name: str,
    streams: Sequence[str],
    kept: HistoryFilter,
    *,
    dry: bool,
) -> int:
    """Hand kept events to a consumer again, or only count them; return how many.

    What waits for it anyway is left out.
    """
    count, again = 0, keys.again(name)
    for stream in streams:
        event_type = keys.type_of(stream)
        if event_type is None or not kept.has(event_type):
            continue
        held = set(pending(connection, stream, name))
        for page in _read(connection, stream, name):
            chosen = [
                event
                for place, fields in page
                if place not in held and _is_meant(event := event_in(fields), kept)
            ]
            count += len(chosen)
            if chosen and not dry:
                connection.run(
                    *(
                        ("XADD", again, "*", EVENT, event, "replayed", 1)
                        for event in chosen
                    )
                )
    return count


def _is_meant(event: bytes, kept: HistoryFilter) -> bool:
    if kept.since is None and kept.until is None:
        return True
    try:
        made = decode_structured(event, max_body_bytes=MAX_BODY).message.made
    except DecodeError:
        return False
    is_old = kept.since is not None and made < kept.since
    return not is_old and (kept.until is None or made < kept.until)


def _read(
    connection: ServerConnection, stream: str, group: str
) -> Iterator[Sequence[Entry]]:
    """Yield what a group was given of a stream, a page at a time."""
    (groups,) = connection.run(("XINFO", "GROUPS", stream))
    told = (dict(zip(each[::2], each[1::2], strict=True)) for each in groups)
    last = next((each for each in told if each[b"name"] == group.encode()), None)
    first = b"-"
    while last is not None:
        end = last[b"last-delivered-id"]
        (page,) = connection.run(("XRANGE", stream, first, end, "COUNT", PAGE))
        if not page:
            return
        yield page
        first = b"(" + page[-1][0]


def remove(
    connection: ServerConnection,
    keys: Keys,
    name: str,
    streams: Sequence[str],
    broker: str | None,
) -> int:
    """Forget a consumer; return how many messages waited for it.

    They are dead letters of that broker then, or discarded where none is given.
    """
    connection.run(
        ("HDEL", keys.consumers, name),
        ("HDEL", keys.desired, name),
        ("INCR", keys.version),
    )
    # Also of types that it had once, with what was left there.
    groups = dict(streams_by_group(connection, keys))
    streams = list(dict.fromkeys([*streams, *groups.pop(name, ())]))
    of_others = {stream for each in groups.values() for stream in each}
    _hurry(connection, keys, keys.again(name))
    count = 0
    for stream in streams:
        if stream not in of_others:  # what is delayed there waits for this one alone
            _hurry(connection, keys, stream)
        count += _clear(connection, keys, name, stream, broker)
        event_type = keys.type_of(stream) or ""
        connection.run(
            FORGET([stream, keys.types, keys.later(stream)], name, event_type)
        )
    return count


def _hurry(connection: ServerConnection, keys: Keys, stream: str) -> None:
    """Move all that is to go into a stream later."""
    while connection.run(HURRY([keys.later(stream), stream], PAGE))[0]:
        pass


def _clear(
    connection: ServerConnection, keys: Keys, name: str, stream: str, broker: str | None
) -> int:
    """End all that is pending for a consumer, and what it was not given yet."""
    read = ("XREADGROUP", "GROUP", name, "gomq-removal", "COUNT", PAGE)
    while connection.run((*read, "STREAMS", stream, ">"))[0]:
        pass
    ids = list(pending(connection, stream, name))
    for start in range(0, len(ids), PAGE):
        part = ids[start : start + PAGE]
        if broker is not None:
            found = connection.run(*(("XRANGE", stream, each, each) for each in part))
            letters = [
                _letter(token_in(name, stream, (place, 1, fields)), broker)
                for entries in found
                for place, fields in entries
            ]
            connection.run(
                ("SADD", keys.dead_of, name),
                *(("XADD", keys.dead(name), "*", *letter) for letter in letters),
            )
        connection.run(("XACK", stream, name, *part))
    return len(ids)


def _letter(token: Token, broker: str) -> Sequence[Any]:
    message, now = message_in(_UNKNOWN, token.event), time.time()
    letter = DeadLetter(
        id="",
        message=message,
        broker=broker,
        consumer=token.consumer,
        attempt=token.attempt,
        error_type=REMOVED,
        error=f"{REMOVED}: it waited when its consumer was removed",
        trace_id=trace_id_of(message),
        first_failed=now,
        time=now,
    )
    return written(letter, token)
