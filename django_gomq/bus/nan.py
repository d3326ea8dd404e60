"""Whether a type may hide a NaN that JSON turns into null; it knows no event."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect

# None of them reads null, so decoding again finds it.
_PLAIN = (
    inspect.BoolType,
    inspect.BytesType,
    inspect.DateType,
    inspect.DateTimeType,
    inspect.DecimalType,
    inspect.EnumType,
    inspect.FloatType,
    inspect.IntType,
    inspect.LiteralType,
    inspect.StrType,
    inspect.TimeDeltaType,
    inspect.TimeType,
    inspect.UUIDType,
)


def may_hide_nan(struct: msgspec.StructMeta) -> bool:
    """Return whether a NaN in such a struct could pass as None."""
    return _may_hide(inspect.type_info(struct), set())


def _may_hide(info: Any, seen: set[type]) -> bool:
    if isinstance(info, _PLAIN):
        return False
    if isinstance(info, inspect.StructType):
        if info.cls in seen:
            return False
        seen.add(info.cls)
        return any(_may_hide(field.type, seen) for field in info.fields)
    if isinstance(info, inspect.UnionType):
        return any(_may_hide(one, seen) for one in info.types)
    if isinstance(info, inspect.ListType):
        return _may_hide(info.item_type, seen)
    return True  # None, or what may hold it; fields are not checked before this
