"""The consumers that a program declared, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, Unpack

from .consumer import Consumer, ConsumerOptions, make_consumer
from .errors import ConfigurationError
from .event import EventMeta

F = TypeVar("F")


def label_of_module(module: str) -> str:
    """Return the package of a module: ``shop`` for ``site.shop.consumers``."""
    parts = module.split(".")
    return parts[-2] if len(parts) > 1 else parts[0]


class Registry:
    """Consumers by name, in the order of registration.

    Not for use by many threads: modules register while they are imported.
    """

    def __init__(self) -> None:
        self._consumers: dict[str, Consumer] = {}
        self._sources: dict[str, str] = {}
        self.label_of: Callable[[str], str] = label_of_module
        """Gives the first part of a default name, by the handler's module."""

    def register(self, consumer: Consumer, *, source: str = "") -> Consumer:
        """Add a consumer; raises ConfigurationError if its name is taken.

        A handler that is registered again from the same place, as when a module is
        reloaded, takes the place of the old one.
        """
        taken = self._consumers.get(consumer.name)
        old_source = self._sources.get(consumer.name, "")
        if taken is not None and (not source or old_source != source):
            raise ConfigurationError(
                f"Two consumers are named {consumer.name!r}: {old_source or taken} and "
                f"{source or consumer}. Names are stable ids: give one another name.",
                consumer=consumer.name,
            )
        self._consumers[consumer.name] = consumer
        self._sources[consumer.name] = source
        return consumer

    def consumer(
        self,
        *types: str | EventMeta,
        name: str | None = None,
        **options: Unpack[ConsumerOptions],
    ) -> Callable[[F], F]:
        """Return a decorator that registers a handler and returns it unchanged.

        ``name`` defaults to ``<label>.<function>``. Raises ConfigurationError, when
        the module is imported, for wrong types, options or a name that is taken.
        """

        def decorate(handler: F) -> F:
            module = getattr(handler, "__module__", "")
            qualname = getattr(handler, "__qualname__", repr(handler))
            short = getattr(handler, "__name__", qualname)
            self.register(
                make_consumer(
                    types,
                    handler,
                    name=name or f"{self.label_of(module)}.{short}",
                    options=options,
                ),
                source=f"{module}.{qualname}",
            )
            return handler

        return decorate

    def consumers(
        self, overrides: Mapping[str, Mapping[str, Any]] | None = None
    ) -> list[Consumer]:
        """Return all consumers, each with the options that ``overrides`` gives it.

        Raises ConfigurationError for an override of a consumer that does not exist.
        """
        overrides = overrides or {}
        unknown = sorted(set(overrides) - set(self._consumers))
        if unknown:
            raise ConfigurationError(
                f"There is no consumer {', '.join(map(repr, unknown))}; there are "
                f"{', '.join(sorted(self._consumers)) or 'none'}.",
                consumer=unknown[0],
            )
        return [
            found.with_options(overrides.get(found.name, {}))
            for found in self._consumers.values()
        ]

    def snapshot(self) -> dict[str, tuple[Consumer, str]]:
        """Return what is registered now, for ``restore``."""
        return {
            name: (found, self._sources[name])
            for name, found in self._consumers.items()
        }

    def restore(self, snapshot: Mapping[str, tuple[Consumer, str]]) -> None:
        """Go back to what was registered at the snapshot."""
        self._consumers = {name: pair[0] for name, pair in snapshot.items()}
        self._sources = {name: pair[1] for name, pair in snapshot.items()}

    @contextmanager
    def isolated(self) -> Iterator[Registry]:
        """Start empty, and go back to what was there at the end; for tests."""
        before = self.snapshot()
        self.restore({})
        try:
            yield self
        finally:
            self.restore(before)


registry = Registry()
"""Where ``@consumer`` registers."""

consumer = registry.consumer
