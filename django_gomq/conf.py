"""The GOMQ setting as frozen values, every default visible; it builds nothing."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from django_gomq.bus.counts import HANDLER_BUCKETS, WAIT_BUCKETS
from django_gomq.bus.errors import ConfigurationError
from django_gomq.rules import check

Run = Literal["here", "worker", "never", "auto"]
MEMORY: Final = "django_gomq.backends.memory.MemoryBackend"


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``BROKERS``."""

    backend: str = MEMORY
    on_refused: Literal["log", "raise"] = "log"
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
    metrics: MetricsConfig = msgspec.field(default_factory=MetricsConfig)
    tracing: TracingConfig = msgspec.field(default_factory=TracingConfig)
    dead_letters: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """``KEEP``: how many the memory backend keeps."""


def load(raw: Mapping[str, Any] | None) -> Config:
    """Return the setting as values; a ConfigurationError names every problem."""
    problems = list(check(raw))
    if problems:
        lines = [f"  {one.text} {one.hint}" for one in problems]
        raise ConfigurationError("\n".join(["GOMQ is wrong:", *lines]))
    return _read(raw or {})


def _read(raw: Mapping[str, Any]) -> Config:
    values = {key.lower(): value for key, value in raw.items()}
    for key in ("events", "autodiscover", "autodiscover_exclude"):
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
