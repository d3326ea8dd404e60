"""The GOMQ setting: what it may hold, and its values with their defaults."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

import msgspec
from django.db import connections
from django.utils.module_loading import import_string

from django_gomq.bus.consumer import OPTIONS
from django_gomq.bus.counts import (
    HANDLER_BUCKETS,
    MAX_UNDECLARED_TYPES,
    WAIT_BUCKETS,
)
from django_gomq.bus.durations import SECONDS_OR_TIMEDELTA, seconds_of
from django_gomq.bus.errors import ConfigurationError, describe_error
from django_gomq.bus.hooks import Hook
from django_gomq.bus.message import validate_type
from django_gomq.bus.patterns import Pattern
from django_gomq.bus.wire import MAX_SOURCE_LENGTH

RUNS: Final = ("here", "worker", "never", "auto")


class Problem(msgspec.Struct, frozen=True):
    """Something wrong with a setting or a registration, and what to do about it."""

    id: str
    text: str
    hint: str


def check(raw: object) -> Iterator[Problem]:
    """Yield every problem of the setting."""
    if raw is None:
        return
    if not isinstance(raw, Mapping):
        yield Problem("gomq.E001", f"GOMQ is {_kind_of(raw)}.", "Make it a dict.")
        return
    for key, value in raw.items():
        if key not in _RULES:
            yield Problem(
                "gomq.E001",
                f"GOMQ[{key!r}] does not exist.",
                f"There are {', '.join(sorted(_RULES))}.",
            )
        else:
            is_right, wanted = _RULES[key]
            if not is_right(value):
                yield _wrong(f"GOMQ[{key!r}]", value, wanted)
            elif key in _DETAILS:
                yield from _DETAILS[key](value)
    yield from _check_routes(raw)


def _wrong(where: str, value: object, wanted: str) -> Problem:
    # What stands for a dict may hold a token, or a URL with a password.
    is_hidden = wanted.startswith((_A_DICT, _HIDDEN))
    shown = _kind_of(value) if is_hidden else f"{value!r:.200}"
    return Problem("gomq.E002", f"{where} is {shown}.", f"Make it {wanted}.")


def _kind_of(value: object) -> str:
    return f"of type {type(value).__name__!r}"


def _check_keys(
    where: str, value: Mapping[str, Any], rules: _Rules
) -> Iterator[Problem]:
    for key, item in value.items():
        if key not in rules:
            known = ", ".join(sorted(rules))
            yield Problem(
                "gomq.E001", f"{where}[{key!r}] does not exist.", f"There are {known}."
            )
        elif not rules[key][0](item):
            yield _wrong(f"{where}[{key!r}]", item, rules[key][1])


def _check_brokers(value: Mapping[str, Any]) -> Iterator[Problem]:
    if "default" not in value:
        yield Problem(
            "gomq.E003", "GOMQ['BROKERS'] has no 'default'.", "Add a broker 'default'."
        )
    for alias, entry in value.items():
        if isinstance(entry, Mapping):
            yield from _check_keys(f"GOMQ['BROKERS'][{alias!r}]", entry, _BROKER_RULES)
        else:
            yield _wrong(f"GOMQ['BROKERS'][{alias!r}]", entry, _A_DICT)


def _check_consumers(value: Mapping[str, Any]) -> Iterator[Problem]:
    for name, options in value.items():
        if not isinstance(options, Mapping):
            yield _wrong(f"GOMQ['CONSUMERS'][{name!r}]", options, _A_DICT)
            continue
        for option in [option for option in options if option not in OPTIONS]:
            yield Problem(
                "gomq.E001",
                f"GOMQ['CONSUMERS'][{name!r}][{option!r}] does not exist.",
                f"There are {', '.join(sorted(OPTIONS))}.",
            )


_EVENTS_HINT: Final = "Name event types such as 'page.viewed'."
_HOOKS_HINT: Final = (
    "Name subclasses of django_gomq.bus.hooks.Hook, or functions without arguments "
    "that return one, such as 'clinic.hooks.ReportDeadLetters'."
)
_ROUTES_HINT: Final = "Name event types, or patterns such as 'billing.*' and '*'."


def _check_events(value: list[str]) -> Iterator[Problem]:
    for name in value:
        try:
            validate_type(name)
        except ConfigurationError as error:
            yield Problem("gomq.E002", f"GOMQ['EVENTS']: {error}", _EVENTS_HINT)


def _check_alias(where: str, value: object) -> Iterator[Problem]:
    if isinstance(value, str) and value not in connections.settings:
        known = ", ".join(map(repr, connections.settings))
        text = f"{where} names no database: {value!r}."
        yield Problem("gomq.E003", text, f"There are {known}.")


def _check_hooks(value: Sequence[str]) -> Iterator[Problem]:
    for path in value:
        try:
            found = import_string(path)
        except Exception as error:  # noqa: BLE001 - a module may raise anything
            text = f"{path!r} cannot be imported: {describe_error(error)}"
            yield Problem("gomq.E002", f"GOMQ['HOOKS']: {text}.", _HOOKS_HINT)
            continue
        is_class = isinstance(found, type)
        if not (issubclass(found, Hook) if is_class else callable(found)):
            text = f"{path!r} is no Hook"
            yield Problem("gomq.E002", f"GOMQ['HOOKS']: {text}.", _HOOKS_HINT)


def _check_metrics(value: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _check_keys("GOMQ['METRICS']", value, _METRICS_RULES)
    if value.get("ACCESS") == "token" and not value.get("TOKEN"):
        yield Problem(
            "gomq.E002",
            "GOMQ['METRICS']['ACCESS'] is 'token' and there is no TOKEN.",
            "Set GOMQ['METRICS']['TOKEN'] to a long random text.",
        )
    if value.get("ACCESS") == "staff" and value.get("PORT_RANGE"):
        yield Problem(
            "gomq.E002",
            "GOMQ['METRICS'] has a PORT_RANGE, and its ACCESS is 'staff'.",
            "No one logs in on these ports: make ACCESS 'token', or drop PORT_RANGE.",
        )


def _check_dead_letters(value: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _check_keys("GOMQ['DEAD_LETTERS']", value, _DEAD_LETTERS_RULES)
    yield from _check_alias("GOMQ['DEAD_LETTERS']['USING']", value.get("USING"))
    path = value.get("REDACT")
    if not isinstance(path, str):
        return  # not set, or told already
    where = f"GOMQ['DEAD_LETTERS']['REDACT']: {path!r}"
    hint = "Name a function that takes the data of a message, and returns what to show."
    try:
        found = import_string(path)
    except Exception as error:  # noqa: BLE001 - a module may raise anything
        text = f"{where} cannot be imported: {describe_error(error)}."
        yield Problem("gomq.E002", text, hint)
        return
    if not callable(found):
        yield Problem("gomq.E002", f"{where} cannot be called.", hint)


def _check_routes(raw: Mapping[str, Any]) -> Iterator[Problem]:
    routes = raw.get("ROUTES", {})
    brokers = raw.get("BROKERS", {"default": {}})
    if not isinstance(routes, Mapping) or not isinstance(brokers, Mapping):
        return  # told already
    for pattern, alias in routes.items():
        try:
            Pattern(pattern)
        except ConfigurationError as error:
            yield Problem("gomq.E003", f"GOMQ['ROUTES']: {error}", _ROUTES_HINT)
        if not isinstance(alias, str) or alias not in brokers:
            yield Problem(
                "gomq.E003",
                f"GOMQ['ROUTES'][{pattern!r}] names no broker: {alias!r}.",
                f"There are {', '.join(map(repr, brokers))}.",
            )


_Rules = Mapping[str, tuple[Any, str]]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_span(value: object) -> bool:
    return seconds_of(value) is not None


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and seconds_of(value) is not None


def _is_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(item, str) for item in value
    )


def _is_dict(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_source(value: object) -> bool:
    """Whether the wire takes it; nothing stands for the name of the project."""
    return (
        isinstance(value, str)
        and value.isprintable()
        and len(value) <= MAX_SOURCE_LENGTH
    )


def _is_token(value: object) -> bool:
    """Whether a header can carry it: servers take spaces around it away."""
    is_text = isinstance(value, str) and value.isascii() and value.isprintable()
    return is_text and value == str(value).strip()


def _is_address(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w.:%-]+", value) is not None


def _is_buckets(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(_is_seconds(item) and item > 0 for item in value)
        and list(value) == sorted(set(value))
    )


def _is_ports(value: object) -> bool:
    if not isinstance(value, list | tuple) or not all(map(_is_count, value)):
        return value is None
    return len(value) == 2 and value[0] <= value[1] < 1 << 16  # noqa: PLR2004


def _is_alias(value: object) -> bool:
    return value is None or isinstance(value, str)


def _one_of(*choices: object) -> tuple[Any, str]:
    texts = " or ".join(map(repr, choices))
    return (
        lambda value: any(value is choice or value == choice for choice in choices)
    ), texts


_A_DICT: Final = "a dict"
_HIDDEN: Final = "a text of printable ASCII without spaces around it"
_MAX_THREADS: Final = 1_000
_SECONDS: Final = (_is_span, SECONDS_OR_TIMEDELTA)
_NAMES: Final = (_is_names, "a list of names")
_DICT: Final = (_is_dict, f"{_A_DICT} with texts as keys")
_BOOL: Final = (lambda value: isinstance(value, bool), "True or False")
_BUCKETS: Final = (_is_buckets, "a rising list of seconds")

_RULES: Final[_Rules] = {
    "BROKERS": _DICT,
    "ROUTES": _DICT,
    "CONSUMERS": _DICT,
    "EVENTS": _NAMES,
    "AUTODISCOVER": _NAMES,
    "AUTODISCOVER_EXCLUDE": _NAMES,
    "THREADS": (
        lambda value: _is_count(value) and value <= _MAX_THREADS,
        f"a whole number from 1 to {_MAX_THREADS:,}",
    ),
    "EMIT_ON_COMMIT": _BOOL,
    "EMIT_USING": (_is_alias, "None, or the alias of a database"),
    "NO_CONSUMER": _one_of("warn", "raise", "ignore"),
    "IDLE_COMMANDS": _NAMES,
    "DRAIN_TIMEOUT": _SECONDS,
    "FLUSH_TIMEOUT": _SECONDS,
    "MAX_BODY_BYTES": (_is_count, "a whole number from 1"),
    "SOURCE": (
        _is_source,
        f"who this site is, in up to {MAX_SOURCE_LENGTH} printable characters",
    ),
    "HOOKS": _NAMES,
    "METRICS": _DICT,
    "TRACING": _DICT,
    "DEAD_LETTERS": _DICT,
}
_BROKER_RULES: Final[_Rules] = {
    "BACKEND": (_is_text, "the dotted path of a backend class"),
    "ON_REFUSED": _one_of("log", "raise"),
    "RUN": _one_of(*RUNS),
    "OPTIONS": _DICT,
}
_METRICS_RULES: Final[_Rules] = {
    "ACCESS": _one_of("open", "token", "staff"),
    "TOKEN": (_is_token, _HIDDEN),
    "ENABLED": _BOOL,
    "WAIT_BUCKETS": _BUCKETS,
    "HANDLER_BUCKETS": _BUCKETS,
    "PORT_RANGE": (_is_ports, "a first and a last port, such as [9464, 9480]"),
    "PORT_ADDRESS": (_is_address, "an address of this machine, such as 127.0.0.1"),
    "UNDECLARED_EVENTS": (
        lambda value: (
            value == 0 or (_is_count(value) and value <= MAX_UNDECLARED_TYPES)
        ),
        f"a whole number from 0 to {MAX_UNDECLARED_TYPES}",
    ),
}
_TRACING_RULES: Final[_Rules] = {
    "ENABLED": _one_of(None, True, False),
    "CONSUMER": _one_of("parent", "link"),
}
_DEAD_LETTERS_RULES: Final[_Rules] = {
    "KEEP": (_is_count, "a whole number from 1"),
    "KEEP_STORED": (_is_count, "a whole number from 1"),
    "REDACT": (_is_text, "the dotted path of a function"),
    "USING": (_is_alias, "None, or the alias of a database"),
}

_DETAILS: Final[Mapping[str, Any]] = {
    "BROKERS": _check_brokers,
    "CONSUMERS": _check_consumers,
    "EVENTS": _check_events,
    "EMIT_USING": partial(_check_alias, "GOMQ['EMIT_USING']"),
    "HOOKS": _check_hooks,
    "METRICS": _check_metrics,
    "TRACING": lambda value: _check_keys("GOMQ['TRACING']", value, _TRACING_RULES),
    "DEAD_LETTERS": _check_dead_letters,
}


Run = Literal["here", "worker", "never", "auto"]
MEMORY: Final = "django_gomq.backends.memory.MemoryBackend"
BACKENDS: Final = (
    MEMORY,
    "django_gomq.backends.database.DatabaseBackend",
    "django_gomq.backends.redis.RedisBackend",
)
"""The backends that come with the package."""


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``BROKERS``."""

    backend: str = MEMORY
    on_refused: Literal["log", "raise"] | None = None
    """None: raised where messages outlive the process, logged in memory."""
    run: Run = "auto"
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """``METRICS``: who may read the numbers, where, and where buckets end."""

    access: Literal["open", "token", "staff"] = "open"
    token: str = field(default="", repr=False)
    enabled: bool = True
    wait_buckets: tuple[float, ...] = WAIT_BUCKETS
    handler_buckets: tuple[float, ...] = HANDLER_BUCKETS
    port_range: tuple[int, int] | None = None
    """First and last port; each process serves its own numbers on a free one."""
    port_address: str = "127.0.0.1"
    undeclared_events: int = 0
    """How many event types that nobody declared are labels of their own."""

    def admits(self, authorization: str) -> bool:
        """Whether this Authorization header will do, by itself."""
        if self.access != "token":
            return self.access == "open"
        scheme, _, given = authorization.partition(" ")
        is_right = secrets.compare_digest(given.lstrip().encode(), self.token.encode())
        return is_right and scheme.lower() == "bearer"


class TracingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``TRACING``: on, off, or (None) on where the OpenTelemetry SDK is set up."""

    enabled: bool | None = None
    consumer: Literal["parent", "link"] = "parent"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole GOMQ setting."""

    brokers: Mapping[str, BrokerConfig] = msgspec.field(
        default_factory=lambda: {"default": BrokerConfig()}
    )
    routes: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Event type pattern to broker alias; the most specific wins."""
    consumers: Mapping[str, Mapping[str, Any]] = msgspec.field(default_factory=dict)
    """Options by consumer name, over those in the code."""
    events: tuple[str, ...] = ()
    """Names of untyped events, for checks and metrics."""
    autodiscover: tuple[str, ...] = ("consumers",)
    autodiscover_exclude: tuple[str, ...] = ()
    """App names whose modules are not imported."""
    threads: int = 8
    """Handler threads of a process, shared by all consumers."""
    emit_on_commit: bool = True
    emit_using: str | None = None
    """Whose commit events wait for where several transactions are open; None: all."""
    no_consumer: Literal["warn", "raise", "ignore"] = "warn"
    drain_timeout: float | None = None
    """Seconds that a stop waits for what was accepted; None: by what ends."""
    idle_commands: tuple[str, ...] = ()
    """More management commands in which no consumer runs."""
    flush_timeout: float = 0.1
    """Seconds that a commit in a request waits for room."""
    max_body_bytes: int = 262_144
    source: str = ""
    """Who this site is on the wire; empty: the name of the project."""
    hooks: tuple[str, ...] = ()
    """Dotted paths of the site's own hooks, or of functions that make them."""
    metrics: MetricsConfig = msgspec.field(default_factory=MetricsConfig)
    tracing: TracingConfig = msgspec.field(default_factory=TracingConfig)
    dead_letters: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """``KEEP``: how many a process keeps of brokers whose server keeps none; ``USING``
    and ``KEEP_STORED``: the database with those of all processes, and how many of each
    broker; ``REDACT``: what hides data."""


def load(raw: Mapping[str, Any] | None) -> Config:
    """Return the setting as values; a ConfigurationError names every problem."""
    problems = list(check(raw))
    if problems:
        lines = [f"  {problem.text} {problem.hint}" for problem in problems]
        raise ConfigurationError("\n".join(["GOMQ is wrong:", *lines]))
    return _read(raw or {})


def _read(raw: Mapping[str, Any]) -> Config:
    values = {key.lower(): value for key, value in raw.items()}
    for key in (
        "events",
        "hooks",
        "autodiscover",
        "autodiscover_exclude",
        "idle_commands",
    ):
        if key in values:
            values[key] = tuple(values[key])
    for key in ("drain_timeout", "flush_timeout"):
        if key in values:
            values[key] = seconds_of(values[key])
    if "brokers" in values:
        values["brokers"] = {
            alias: BrokerConfig(**_lower(entry))
            for alias, entry in values["brokers"].items()
        }
    if "metrics" in values:
        values["metrics"] = _read_metrics(values["metrics"])
    if "tracing" in values:
        values["tracing"] = TracingConfig(**_lower(values["tracing"]))
    return Config(**values)


def _read_metrics(raw: Mapping[str, Any]) -> MetricsConfig:
    values = _lower(raw)
    for key in ("wait_buckets", "handler_buckets"):
        if key in values:
            values[key] = tuple(values[key])
    if values.get("port_range"):
        values["port_range"] = tuple(values["port_range"])
    return MetricsConfig(**values)


def _lower(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key.lower(): value for key, value in raw.items()}
