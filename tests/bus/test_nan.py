"""A NaN becomes null in JSON: which types would let that pass unseen."""

from __future__ import annotations

import math
import uuid
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, NamedTuple

import msgspec
import pytest

from django_gomq.bus.data.codec import may_hide_nan

NAN = math.nan


class Color(Enum):
    RED = "red"


class Inner(msgspec.Struct):
    share: float


class Loose(msgspec.Struct):
    share: float | None = None


class Node(msgspec.Struct):
    share: float
    next: Node | None = None


class Pair(NamedTuple):
    one: float | None
    other: int


def holder(annotation: Any) -> Any:
    """Return a struct with one field of this type."""
    return msgspec.defstruct("Holder", [("x", annotation)])


def passes(annotation: Any, value: Any) -> bool:
    """Whether this value, written as JSON, is read again as if nothing were wrong."""
    kind = holder(annotation)
    body = msgspec.json.encode(kind(x=value))
    assert b"null" in body
    try:
        msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError:
        return False
    return True


# A type, and a value of it in which a NaN stands, in the right place or in a wrong one.
CASES: dict[str, tuple[Any, Any]] = {
    "float": (float, NAN),
    "int": (int, NAN),
    "text": (str, NAN),
    "bool": (bool, NAN),
    "moment": (datetime, NAN),
    "uuid": (uuid.UUID, NAN),
    "decimal": (Decimal, NAN),
    "enum": (Color, NAN),
    "literal": (Literal["a"], NAN),
    "float or none": (float | None, NAN),
    "int or none": (int | None, NAN),
    "text or none": (str | None, NAN),
    "moment or none": (datetime | None, NAN),
    "list or none": (list[int] | None, NAN),
    "struct or none": (Inner | None, NAN),
    "none": (None, NAN),
    "literal or none": (Literal["a"] | None, NAN),
    "number or text": (float | str, NAN),
    "floats": (list[float], [1.0, NAN]),
    "floats or nones": (list[float | None], [1.0, NAN]),
    "ints or nones": (list[int | None], [1, NAN]),
    "list of lists": (list[list[float]], [[NAN]]),
    "struct": (Inner, Inner(NAN)),
    "loose struct": (Loose, Loose(NAN)),
    "list of loose structs": (list[Loose], [Loose(NAN)]),
    "loose struct or none": (Loose | None, Loose(NAN)),
    "chain": (Node, Node(1.0, Node(NAN))),
    "dict": (dict[str, float], {"a": NAN}),
    "loose dict": (dict[str, float | None], {"a": NAN}),
    "tuple": (tuple[float, int], (NAN, 1)),
    "loose tuple": (tuple[float | None, ...], (NAN,)),
    "named tuple": (Pair, Pair(NAN, 1)),
    "set": (set[float], {NAN}),
    "anything": (Any, NAN),
    "list of anything": (list, [NAN]),
    "raw": (msgspec.Raw, NAN),
}


@pytest.mark.parametrize(("annotation", "value"), CASES.values(), ids=CASES)
def test_a_nan_that_passes_as_nothing_is_looked_for(
    annotation: Any, value: Any
) -> None:
    if passes(annotation, value):
        assert may_hide_nan(holder(annotation))


@pytest.mark.parametrize(
    "annotation",
    [
        float,
        int,
        str,
        bool,
        datetime,
        uuid.UUID,
        Decimal,
        Color,
        Literal["a"],
        float | str,
        list[float],
        list[list[int]],
        Inner,
        list[Inner],
    ],
    ids=str,
)
def test_where_decoding_again_finds_the_null_nothing_is_looked_for(
    annotation: Any,
) -> None:
    assert not may_hide_nan(holder(annotation))


def test_a_struct_that_holds_its_own_kind_is_looked_into_once() -> None:
    class Tree(msgspec.Struct):
        share: float
        leaves: list[Tree]

    globals()["Tree"] = Tree
    try:
        assert not may_hide_nan(Tree)
    finally:
        del globals()["Tree"]
