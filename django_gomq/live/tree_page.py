"""The page of a message: what caused it, and what it caused, as one nested list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from django.utils.http import urlencode

from django_gomq.bus.message import MAX_ID_LENGTH
from django_gomq.history import tree

from .mounting import Mount, Rights

PARAMETER: Final = "id"
"""What the page is asked by."""


class Handling(msgspec.Struct, frozen=True):
    """What one consumer has to do with a message, as it is shown."""

    consumer: str
    told: str
    letter: str | None
    """The address of the dead letter, for those who may see it."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the list."""

    id: str
    address: str
    """Of its own tree."""
    event: str
    made: str
    is_asked: bool
    handlings: Sequence[Handling]
    untold: str
    opens: bool
    """Whether a list begins before it."""
    has_effects: bool
    closes: range
    """So many lists, and the messages above them, end after it."""


def address(mount: Mount, message_id: str) -> str:
    """Return the path of the page of this message."""
    return f"{mount.address('live_tree')}?{urlencode({PARAMETER: message_id})}"


def context(asked: str, rights: Rights, mount: Mount) -> Mapping[str, Any]:
    """Return what the page shows of a message. Blocks for the database."""
    asked = asked.strip()[:MAX_ID_LENGTH]
    found = tree.find(asked) if asked else None
    lost = found and found.lost_cause
    return {
        "asked": asked,
        "keeps_history": bool(tree.databases()),
        "tree": found,
        "lost_address": address(mount, lost) if lost else None,
        "has_untold": found is not None and any(node.untold for node in found.nodes),
        "items": [] if found is None else list(_items(found, rights, mount)),
    }


def _items(found: tree.Tree, rights: Rights, mount: Mount) -> Iterator[Item]:
    depths = [-1, *(node.depth for node in found.nodes), 0]
    for at, node in enumerate(found.nodes, 1):
        yield Item(
            id=node.id,
            address=address(mount, node.id),
            event=node.type,
            made=tree.told_moment(node.made),
            is_asked=node.id == found.asked,
            handlings=[
                _handling(handling, rights, mount) for handling in node.handlings
            ],
            untold=", ".join(node.untold),
            opens=node.depth > depths[at - 1],
            has_effects=depths[at + 1] > node.depth,
            closes=range(node.depth - depths[at + 1]),
        )


def _handling(handling: tree.Handling, rights: Rights, mount: Mount) -> Handling:
    is_shown = handling.letter is not None and rights.letters
    letter = mount.address("live_dead_letter", handling.letter) if is_shown else None
    return Handling(handling.consumer, handling.told, letter)
