"""Makes the backends that GOMQ['BROKERS'] names, and says what is wrong with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from django.utils.module_loading import import_string

from django_gomq.bus.backend import Backend
from django_gomq.bus.errors import ConfigurationError, describe_error
from django_gomq.conf import BACKENDS, BrokerConfig

OUTBOX: Final = "outbox"
"""The option of every backend with a server: the database that emits go into."""

MakeBackend = Callable[[], Backend]


def maker_of(alias: str, entry: BrokerConfig) -> MakeBackend:
    """Return what makes the backend of a broker for one process.

    Raises ConfigurationError for a path that is no backend, and unknown options.
    """
    backend = _import_backend(alias, entry)
    options = dict(entry.options)
    known = inspect.signature(backend).parameters
    using = options.pop(OUTBOX, None) if OUTBOX not in known else None
    _check_names(alias, backend, options)
    make = partial(backend, **options)
    return make if using is None else partial(_make_with_outbox, make, using)


def _make_with_outbox(make: MakeBackend, using: object) -> Backend:
    if not isinstance(using, str):
        raise ConfigurationError(f"outbox is {using!r}: name a database of DATABASES.")
    # As backends are: not every site has one.
    outbox: Callable[..., Backend]
    outbox = import_string("django_gomq.relay.backend.OutboxBackend")
    return outbox(make(), using)


def _import_backend(alias: str, entry: BrokerConfig) -> type[Backend]:
    where = f"GOMQ['BROKERS'][{alias!r}]: BACKEND {entry.backend!r}"
    there_are = f"There are {', '.join(map(repr, BACKENDS))}, and subclasses of Backend"
    try:
        backend = import_string(entry.backend)
    except Exception as error:  # a module may raise anything
        raise ConfigurationError(
            f"{where} cannot be imported: {describe_error(error)}. {there_are}.",
            broker=alias,
        ) from error
    if not (isinstance(backend, type) and issubclass(backend, Backend)):
        raise ConfigurationError(
            f"{where} is no Backend class. {there_are}.", broker=alias
        )
    return backend


def _check_names(
    alias: str, backend: type[Backend], options: Mapping[str, object]
) -> None:
    known = inspect.signature(backend).parameters
    takes_all = any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()
    )
    for option in options if not takes_all else ():
        if option not in known:
            raise ConfigurationError(
                f"GOMQ['BROKERS'][{alias!r}]['OPTIONS'][{option!r}] does not exist: "
                f"{backend.__name__} has {', '.join(known) or 'none'}.",
                broker=alias,
            )


def try_options(alias: str, make: MakeBackend) -> Backend:
    """Make a backend once, so that wrong options are told now and not at an emit."""
    try:
        return make()
    except (TypeError, ConfigurationError) as error:
        where = f"GOMQ['BROKERS'][{alias!r}]['OPTIONS']"
        raise ConfigurationError(f"{where}: {error}", broker=alias) from error
