"""The newest messages of all processes: what became of each, and how long it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from django.utils import timezone
from django.utils.safestring import SafeString

from django_gomq.bus.errors import ConfigurationError
from django_gomq.operations.samples import (
    ALL,
    PER_SECOND,
    MessageFilter,
    Sample,
    ShownMessage,
)
from django_gomq.operations.tail import Tail, tail_of
from django_gomq.site import Site

from . import amounts, tree_page
from .mounting import Mount, Rights, consumer_address
from .rows import badge

SHOWN: Final = 50
_OUTCOMES: Final = {
    "ack": ("ok", "ok", "Handled"),
    "retry": ("warn", "warn", "Retry"),
    "dead_letter": ("bad", "bad", "Dead letter"),
    "drop": ("bad", "bad", "Dropped"),
}
"""Kind, shape and word of each."""
_POSTPONED: Final = ("idle", "idle", "Again later")


class MessageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One message, as it is shown."""

    key: str
    time: str
    event: str
    consumer: str
    address: str
    """Of the page of its consumer."""
    outcome: SafeString
    reason: str
    wait: str
    duration: str
    attempt: int
    message: str
    tree: str
    """The address of the tree of this message."""
    trace: str
    process: str
    payload: str | None
    """None for those who may not see it, and what was sampled for others."""


def context(
    site: Site, asked: Mapping[str, str], rights: Rights, mount: Mount
) -> Mapping[str, Any]:
    """Return what the page shows of what is asked for.

    Has processes sample such messages for some seconds. Blocks for the database.
    """
    event, consumer = asked.get("event", "").strip(), asked.get("consumer", "")
    consumers = _names(site)
    shown: dict[str, Any] = {
        "event": event,
        "consumer": consumer,
        "consumers": consumers,
        "per_second": PER_SECOND,
    }
    try:
        wanted = _filter(event, consumer, consumers, rights)
        tail = tail_of(site)
    except ConfigurationError as error:
        return {**shown, "problem": str(error), "scope": ""}
    tail.watch(wanted)
    return {
        **shown,
        "scope": _scope(tail),
        "rows": [_row(told, mount) for told in tail.newest(wanted, SHOWN)],
    }


def _names(site: Site) -> Sequence[str]:
    return sorted(
        {
            consumer.name
            for alias in site.brokers
            for consumer in site.consumers_of(alias)
        }
    )


def _filter(
    event: str, consumer: str, known: Sequence[str], rights: Rights
) -> MessageFilter:
    if consumer and consumer not in known:
        raise ConfigurationError(f"There is no consumer {consumer!r:.200}.")
    return MessageFilter(event or ALL, consumer, rights.message)


def _scope(tail: Tail) -> str:
    count = len(tail.view.processes())
    if not count:
        return "No process has answered so far"
    return "1 process" if count == 1 else f"All {amounts.count(count)} processes"


def _row(told: ShownMessage, mount: Mount) -> MessageRow:
    sample = told.sample
    return MessageRow(
        key=f"{told.slot}-{told.place}-{sample.message}",
        time=_time(sample.ended),
        event=sample.event,
        consumer=sample.consumer,
        address=consumer_address(mount.address("live"), sample.broker, sample.consumer),
        outcome=badge(*_word(sample)),
        reason=sample.reason,
        wait=amounts.duration(sample.wait),
        duration=amounts.duration(sample.duration),
        attempt=sample.attempt,
        message=sample.message,
        tree=tree_page.address(mount, sample.message),
        trace=sample.trace,
        process=f"{sample.host} {sample.pid}",
        payload=told.payload,
    )


def _word(sample: Sample) -> tuple[str, str, str]:
    is_postponed = sample.outcome == "retry" and not sample.reason
    return _POSTPONED if is_postponed else _OUTCOMES[sample.outcome]


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.get_current_timezone())
    return moment.isoformat(timespec="milliseconds")[11:23]
