"""Clears away what ended with a process that was killed, and says what went with it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from typing import Final

from .catalogue import PREFIX
from .cells import Torn, read_numbers
from .directory import Listing, NumberFile, look
from .slots import hold

logger = logging.getLogger("gomq.metrics")

# Of a consumer, or, as long as no consumer has it, of an event.
_WAITING: Final = ("channel_depth", "messages_scheduled", "messages_in_flight")
_QUEUED: Final = ("queue_depth", "messages_delayed")
_NAMED: Final = 10  # in the line; its fields have all
_SUBJECT: Final = {
    **{PREFIX + name: "consumer" for name in _WAITING},
    **{PREFIX + name: "event" for name in _QUEUED},
}


def clear(directory: str, listing: Listing) -> None:
    """Bury all whose slots nobody holds. Raises OSError; blocks for nobody."""
    for number, files in listing.live_by_slot().items():
        slot = hold(directory, number)
        if slot is None:
            continue
        try:
            _bury(number, files)
        finally:
            slot.release()


def bury(directory: str, number: int) -> None:
    """Remove the live numbers of one who held this slot and died, if there are any.

    Logs one warning if there were messages. The caller holds the slot. Raises OSError.
    """
    _bury(number, look(directory).live_by_slot().get(number, ()))


def remove_live(directory: str, number: int) -> None:
    """Remove the live numbers of a slot that the caller holds. Raises OSError."""
    _remove(look(directory).live_by_slot().get(number, ()))


def _bury(number: int, files: Sequence[NumberFile]) -> None:
    left: Counter[str] = Counter()
    for one in files:
        if one.mode == "livesum":
            left.update(_messages_in(one.path))
    if left:
        names = [f"{name}: about {count}" for name, count in left.most_common(_NAMED)]
        logger.warning(
            "A process ended without a stop and took about %d messages along (as of "
            "its last numbers, up to a second before): %s",
            left.total(),
            ", ".join([*names, "..."] if len(left) > _NAMED else names),
            extra={"gomq_slot": number, "gomq_left": dict(left)},
        )
    _remove(files)


def _remove(files: Sequence[NumberFile]) -> None:
    for one in files:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(one.path)  # noqa: PTH108 - a text, as everywhere here


def _messages_in(path: str) -> Counter[str]:
    found: Counter[str] = Counter()
    try:
        for key, number in read_numbers(path):
            family, _, labels, _ = json.loads(key)
            subject = _SUBJECT.get(family)
            if subject is not None and number:
                found[labels[subject]] += int(number)
    except (OSError, Torn, ValueError):
        pass  # what cannot be read cannot be told; it goes all the same
    return found
