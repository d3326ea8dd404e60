"""The GOMQ setting: what it may hold, and its values with their defaults."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
from django.utils.module_loading import import_string

from django_gomq.bus.consumer import OPTIONS
from django_gomq.bus.counts import HANDLER_BUCKETS, WAIT_BUCKETS
from django_gomq.bus.errors import ConfigurationError, describe_error
from django_gomq.bus.hooks import Hook
from django_gomq.bus.message import validate_type
from django_gomq.bus.patterns import Pattern

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


def _is_seconds(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < math.inf


def _is_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(item, str) for item in value
    )


def _is_dict(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


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


def _one_of(*choices: object) -> tuple[Any, str]:
    texts = " or ".join(map(repr, choices))
    return (
        lambda value: any(value is choice or value == choice for choice in choices)
    ), texts


_A_DICT: Final = "a dict"
_HIDDEN: Final = "a text"
_SECONDS: Final = (_is_seconds, "seconds, from 0")
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
    "THREADS": (_is_count, "a whole number from 1"),
    "EMIT_ON_COMMIT": _BOOL,
    "NO_CONSUMER": _one_of("warn", "raise", "ignore"),
    "DRAIN_TIMEOUT": _SECONDS,
    "FLUSH_TIMEOUT": _SECONDS,
    "MAX_BODY_BYTES": (_is_count, "a whole number from 1"),
    "SOURCE": (_is_text, "who this site is, as a text"),
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
    "TOKEN": (_is_text, _HIDDEN),
    "ENABLED": _BOOL,
    "WAIT_BUCKETS": _BUCKETS,
    "HANDLER_BUCKETS": _BUCKETS,
    "PORT_RANGE": (_is_ports, "a first and a last port, such as [9464, 9480]"),
    "PORT_ADDRESS": (_is_text, "an address of this machine, as a text"),
}
_TRACING_RULES: Final[_Rules] = {
    "ENABLED": _one_of(None, True, False),
    "CONSUMER": _one_of("parent", "link"),
}
_DEAD_LETTERS_RULES: Final[_Rules] = {"KEEP": (_is_count, "a whole number from 1")}

_DETAILS: Final[Mapping[str, Any]] = {
    "BROKERS": _check_brokers,
    "CONSUMERS": _check_consumers,
    "EVENTS": _check_events,
    "HOOKS": _check_hooks,
    "METRICS": _check_metrics,
    "TRACING": lambda value: _check_keys("GOMQ['TRACING']", value, _TRACING_RULES),
    "DEAD_LETTERS": lambda value: _check_keys(
        "GOMQ['DEAD_LETTERS']", value, _DEAD_LETTERS_RULES
    ),
}


Run = Literal["here", "worker", "never", "auto"]
MEMORY: Final = "django_gomq.backends.memory.MemoryBackend"


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

    def admits(self, authorization: str) -> bool:
        """Whether this Authorization header will do, where access is by token."""
        if self.access != "token":
            return True
        given = authorization.removeprefix("Bearer ")
        return secrets.compare_digest(given.encode(), self.token.encode())


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
    no_consumer: Literal["warn", "raise", "ignore"] = "warn"
    drain_timeout: float | None = None
    """Seconds that a stop waits for what was accepted; None: 10, 1 in runserver."""
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
    """``KEEP``: how many the memory backend keeps."""


def load(raw: Mapping[str, Any] | None) -> Config:
    """Return the setting as values; a ConfigurationError names every problem."""
    problems = list(check(raw))
    if problems:
        lines = [f"  {problem.text} {problem.hint}" for problem in problems]
        raise ConfigurationError("\n".join(["GOMQ is wrong:", *lines]))
    return _read(raw or {})


def _read(raw: Mapping[str, Any]) -> Config:
    values = {key.lower(): value for key, value in raw.items()}
    for key in ("events", "hooks", "autodiscover", "autodiscover_exclude"):
        if key in values:
            values[key] = tuple(values[key])
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
