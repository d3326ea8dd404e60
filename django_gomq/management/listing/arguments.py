"""What the arguments of each function that emits say of its events; runs nothing."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from .evaluating import UNKNOWN, Evaluator, Names
from .place import Place

_MODEL_EVENTS: Final = frozenset({"created", "updated", "saved", "deleted"})


class Arguments(msgspec.Struct, frozen=True, eq=False):
    """What a call hands to a function that emits."""

    positional: Sequence[ast.expr]
    named: Mapping[str | None, ast.expr]


Reading = tuple[Names, ast.AST | None]
"""The event types, and what to show of how they are written."""


def _read_one(evaluator: Evaluator, given: Arguments, place: Place) -> Reading:
    if not given.positional:
        return UNKNOWN, None
    return evaluator.event(given.positional[0], place), given.positional[0]


def _read_many(evaluator: Evaluator, given: Arguments, place: Place) -> Reading:
    if not given.positional:
        return UNKNOWN, None
    return evaluator.events(given.positional[0], place), given.positional[0]


def _read_model(evaluator: Evaluator, given: Arguments, place: Place) -> Reading:
    written = [given.named[key] for key in given.named if key in _MODEL_EVENTS]
    types = frozenset[str | None]()
    fields = given.named.get("m2m")
    if isinstance(fields, ast.Dict):
        written += fields.values
    elif fields is not None:
        types |= UNKNOWN
    if None in given.named:  # **options
        types |= UNKNOWN
    for one in written:
        if not (isinstance(one, ast.Constant) and one.value is None):
            types |= evaluator.event(one, place)
    shown = given.positional[0] if given.positional else given.named.get("model")
    return _made_by_data(evaluator, given, place, types), shown


def _read_signal(evaluator: Evaluator, given: Arguments, place: Place) -> Reading:
    names = given.named.get("event") or next(iter(given.positional[1:]), None)
    types = evaluator.event(names, place) if names is not None else UNKNOWN
    return _made_by_data(evaluator, given, place, types), names


def _made_by_data(
    evaluator: Evaluator, given: Arguments, place: Place, named: Names
) -> Names:
    """Return the types of the events that ``data`` makes in place of those named."""
    data = given.named.get("data")
    made = evaluator.result(data, place) if data is not None else UNKNOWN
    typed = frozenset(one for one in made if one is not None)
    return typed if typed == made else typed | named


READERS: Final[Mapping[str, Callable[[Evaluator, Arguments, Place], Reading]]] = {
    "emit": _read_one,
    "aemit": _read_one,
    "emit_many": _read_many,
    "emit_model_events": _read_model,
    "emit_on_signal": _read_signal,
}
"""By the name of the function."""
