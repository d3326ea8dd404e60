"""``manage.py gomq tree``: why a message is there, and what came of it."""

from __future__ import annotations

import textwrap
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.core.management.base import CommandError
from django.db import Error

from django_gomq.bus.errors import describe_error
from django_gomq.history import tree
from django_gomq.history.tree import Node, Tree

from .subcommand import Write
from .tables import Screen

HELP: Final = "Show what caused a message, and what it caused."
_DEEPEST: Final = 12
"""Levels that are indented; a line of an id still fits 80 columns."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the message."""
    parser.add_argument("message", metavar="MESSAGE_ID", help="as logs name it")


def run(options: Mapping[str, Any], write: Write) -> int:
    """Print the tree; raises CommandError where there is none."""
    if not tree.databases():
        raise CommandError(
            "No broker of this site is on the database backend, and the tree needs "
            "its kept history: other backends do not keep what was handled. The ids "
            "are on each message (causation_id, correlation_id), for your logs.",
            returncode=2,
        )
    message = options["message"]
    try:
        found = tree.find(message)
    except Error as error:
        raise CommandError(
            f"The kept history cannot be read: {describe_error(error)}. Is manage.py "
            "migrate gomq still to run?",
            returncode=1,
        ) from error
    if found is None:
        raise CommandError(
            f"No kept event has the id {message}: it was not dispatched yet, it was "
            "pruned, it was emitted before the migration that keeps ids, or it went "
            "to a broker on another backend.",
            returncode=1,
        )
    for line in _lines_of(found, options["screen"]):
        write(line)
    return 0


def _lines_of(found: Tree, screen: Screen) -> Iterator[str]:
    if found.lost_cause is not None:
        text = (
            f"Caused by {found.lost_cause}, which is not kept here, or is further up "
            "than is shown."
        )
        yield from _wrapped(text, "", screen)
    for node in found.nodes:
        yield from _lines_of_node(node, found, screen)
    if found.is_cut:
        yield from _wrapped(
            f"There is more than the {len(found.nodes)} messages shown.", "", screen
        )
    if any(node.untold for node in found.nodes):
        yield ""
        yield from _wrapped(_UNTOLD, "", screen)


_UNTOLD: Final = (
    "Nothing is kept of a consumer that was recorded after the message, or that ended "
    "with it while outcomes were not kept (OPTIONS['outcomes'])."
)


def _lines_of_node(node: Node, found: Tree, screen: Screen) -> Iterator[str]:
    indent = "  " * min(node.depth, _DEEPEST)
    level = f" (level {node.depth})" if node.depth > _DEEPEST else ""
    asked = " *" if node.id == found.asked else ""
    title = f"{node.type}  {tree.told_moment(node.made)}{level}{asked}"
    yield from _wrapped(f"- {title}", indent, screen)
    for text in (
        node.id,
        *(
            f"{handling.consumer} {handling.told}"
            + ("" if handling.letter is None else f" (dead letter {handling.letter})")
            for handling in node.handlings
        ),
        *([f"nothing is kept of {', '.join(node.untold)}"] if node.untold else ()),
    ):
        yield from _wrapped(f"  {text}", indent, screen)


def _wrapped(text: str, indent: str, screen: Screen) -> list[str]:
    return textwrap.wrap(
        text,
        screen.width,
        initial_indent=indent,
        subsequent_indent=f"{indent}    ",
        break_on_hyphens=False,
    )
