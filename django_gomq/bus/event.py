"""Typed events: msgspec structs that know their event type."""

from __future__ import annotations

import weakref
from typing import Any, ClassVar, Literal, dataclass_transform

import msgspec

NoConsumer = Literal["warn", "raise", "ignore"]

_classes: weakref.WeakSet[EventMeta] = weakref.WeakSet()


class EventMeta(msgspec.StructMeta):
    """Takes the class keywords ``type``, ``version`` and ``no_consumer``."""

    __event_type__: str
    __event_version__: int
    __no_consumer__: NoConsumer | None

    # The keywords are taken here: msgspec refuses those that it does not know. It hands
    # kw_only down to no subclass, so each class is given it.
    def __new__(  # noqa: D102, PYI034 - mypy knows no Self of a metaclass
        mcls,
        name: str,
        bases: tuple[type[Any], ...],
        namespace: dict[str, Any],
        /,
        *,
        type: str = "",  # noqa: A002 - the public keyword
        version: int = 1,
        no_consumer: NoConsumer | None = None,
        frozen: Literal[True] = True,
        kw_only: Literal[True] = True,
    ) -> EventMeta:
        namespace["__event_type__"] = type
        namespace["__event_version__"] = version
        namespace["__no_consumer__"] = no_consumer
        cls = super().__new__(
            mcls, name, bases, namespace, frozen=frozen, kw_only=kw_only
        )
        if type:
            _classes.add(cls)
        return cls


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,)
)
class Event(msgspec.Struct, frozen=True, kw_only=True, metaclass=EventMeta):
    """A business fact with typed fields; frozen and keyword-only.

    ``class HealthRecordSaved(Event, type="health.record.saved", version=1)`` names
    its event type; without ``type`` the class is a base for others. Fields may be
    of any type that msgspec writes as JSON: numbers, texts, datetimes, UUIDs,
    Decimals, enums, lists, dicts, other structs. They are checked at emit and when
    a consumer decodes. Fields that a reader does not know are ignored, so that a
    newer sender does not break an older reader.
    """

    __event_type__: ClassVar[str]
    __event_version__: ClassVar[int]
    __no_consumer__: ClassVar[NoConsumer | None]


def event_classes() -> list[EventMeta]:
    """Return every living Event class that names a type, by event type."""
    return sorted(_classes, key=lambda cls: (cls.__event_type__, cls.__module__))
