"""Keeps messages in Redis Streams, on Redis 7 or Valkey."""

from __future__ import annotations

from django_gomq.bus.errors import ConfigurationError

try:
    from .backend import RedisBackend
except ModuleNotFoundError as error:
    if error.name != "redis":
        raise
    raise ConfigurationError(
        "The Redis backend needs redis-py: pip install 'django-gomq[redis]'."
    ) from error

__all__ = ["RedisBackend"]
