"""Typed events: msgspec structs that know their event type."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal, Never, dataclass_transform, get_args

import msgspec

from .errors import ConfigurationError
from .message import validate_type

NoConsumer = Literal["warn", "raise", "ignore"]
_NO_CONSUMER: Final = get_args(NoConsumer)

_classes: weakref.WeakSet[EventMeta] = weakref.WeakSet()


_versions: Final[dict[str, int]] = {}


class Definitions:
    """Tells of Event classes that are defined from then on."""

    on_defined: Callable[[str], None] | None = None
    """Is called with the event type of each."""


definitions: Final = Definitions()


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
        **unknown: Never,
    ) -> EventMeta:
        _check_keywords(name, type, version, no_consumer, unknown)
        if not (frozen is kw_only is True):
            raise ConfigurationError(
                f"Event class {name}: events are frozen and keyword-only, always."
            )
        # Of a member of an enum its value.
        namespace["__event_type__"] = str.__str__(type)
        namespace["__event_version__"] = version
        namespace["__no_consumer__"] = no_consumer
        cls = super().__new__(
            mcls, name, bases, namespace, frozen=frozen, kw_only=kw_only
        )
        if type:
            _classes.add(cls)
            _versions[namespace["__event_type__"]] = version
            if definitions.on_defined is not None:
                definitions.on_defined(type)
        return cls


def _check_keywords(
    name: str,
    event_type: object,
    version: object,
    no_consumer: object,
    unknown: dict[str, Never],
) -> None:
    """Raise ConfigurationError, which names the class, for a keyword that is wrong."""
    problem = ""
    if unknown:
        shown = ", ".join(map(repr, unknown))
        problem = f"unknown keyword {shown}; there are type, version, no_consumer."
    elif not isinstance(version, int) or isinstance(version, bool) or version < 1:
        problem = f"version is {version!r}, not a whole number from 1."
    elif no_consumer is not None and no_consumer not in _NO_CONSUMER:
        problem = f"no_consumer is {no_consumer!r}, not one of {_NO_CONSUMER}."
    elif event_type != "":
        try:
            validate_type(event_type)  # type: ignore[arg-type] # that is the question
        except ConfigurationError as error:
            problem = f"type: {error}"
    if problem:
        raise ConfigurationError(f"Event class {name}: {problem}")


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


def version_of(event_type: str) -> int | None:
    """Return the version of the Event class of a type, the latest defined."""
    return _versions.get(event_type)


_named: Final[set[str]] = set()


def declare(event_type: str) -> None:
    """Note that code names this event type, which has no class: it is no data."""
    _named.add(event_type)


def declared_types() -> set[str]:
    """Return the types of all Event classes, and those that code names."""
    return {cls.__event_type__ for cls in _classes} | _named
